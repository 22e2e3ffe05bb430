/* Ranks exchange exactly their own columns, and a group that loses one ends as a whole, in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/rng.h"
#include "runtime/engine/collective.h"
#include "runtime/engine/ranks.h"
#include "runtime/model/shard.h"

/* No test waits for longer, whatever goes wrong. */
#define LIMIT_S 60

/* ---- threads as ranks -------------------------------------------------------------------------
 */

enum { ROUNDS = 40, PLANES = 3 };

struct rank_thread {
    pthread_t id;
    struct collective_region *region;
    uint32_t rank;
    uint64_t seed;
    uint64_t wrong; /* bytes */
};

/* A plane as all ranks know it. */
struct shape {
    size_t begin[SHARD_RANKS_MAX + 1];
    size_t rows, gap;
};

static void random_shape(struct shape *s, struct rng *rng, uint32_t ranks)
{
    bool large = rng_below(rng, 24) == 0; /* than what is exchanged at once */
    s->rows = rng_below(rng, large ? 200 : 9);
    s->gap = rng_below(rng, 7);
    s->begin[0] = 0;
    for (uint32_t r = 0; r < ranks; r++)
        s->begin[r + 1] = s->begin[r] + rng_below(rng, large ? 3000 : 50);
}

static unsigned char value_of(uint32_t round, int plane, size_t row, size_t column)
{
    return (unsigned char)(round * 131 + (unsigned)plane * 17 + row * 251 + column * 7 + 1);
}

/* One exchange; what is wrong in what this rank has after it. */
static uint64_t one_round(struct collective *c, struct rng *rng, uint32_t round)
{
    struct shape shapes[PLANES];
    struct collective_plane planes[PLANES];
    unsigned char *src[PLANES], *dst[PLANES];
    uint64_t wrong = 0;
    uint32_t root = rng_below(rng, 3) ? COLLECTIVE_ALL : (uint32_t)rng_below(rng, c->size);
    bool in_place = rng_below(rng, 2), wanted = root == COLLECTIVE_ALL || root == c->rank;
    for (int i = 0; i < PLANES; i++) {
        struct shape *s = &shapes[i];
        random_shape(s, rng, c->size);
        size_t from = s->begin[c->rank], width = s->begin[c->rank + 1] - from;
        size_t stride = s->begin[c->size] + s->gap, src_stride = in_place ? stride : width + 3;
        dst[i] = calloc(s->rows * stride + 1, 1);
        src[i] = in_place ? NULL : calloc(s->rows * src_stride + 1, 1);
        unsigned char *own = in_place ? dst[i] + from : src[i];
        for (size_t row = 0; row < s->rows; row++)
            for (size_t k = 0; k < width; k++)
                own[row * src_stride + k] = value_of(round, i, row, from + k);
        planes[i] = (struct collective_plane){
            own, src_stride, wanted || in_place ? dst[i] : NULL, stride, s->rows, s->begin};
    }
    if (collective_gather(c, planes, PLANES, root, NULL) < 0)
        wrong++;
    for (int i = 0; i < PLANES; i++) {
        size_t stride = planes[i].dst_stride;
        for (size_t k = 0; wanted && k < shapes[i].rows * stride; k++) {
            size_t row = k / stride, column = k % stride;
            bool gap = column >= shapes[i].begin[c->size];
            wrong += dst[i][k] != (gap ? 0 : value_of(round, i, row, column));
        }
        free(src[i]);
        free(dst[i]);
    }
    return wrong;
}

static void *gather_randomly(void *arg)
{
    struct rank_thread *t = arg;
    struct collective *c;
    struct rng rng;
    if (collective_open(t->region, t->rank, NULL, NULL, &c, NULL) < 0)
        abort();
    rng_init(&rng, t->seed);
    for (uint32_t round = 0; round < ROUNDS; round++)
        t->wrong += one_round(c, &rng, round);
    collective_free(c);
    return NULL;
}

static void run_threads(uint32_t n, uint64_t seed, void *(*body)(void *), struct rank_thread *t)
{
    struct collective_region *region;
    assert_int_equal(collective_region_create(n, &region, NULL), 0);
    for (uint32_t i = 0; i < n; i++) {
        t[i] = (struct rank_thread){.region = region, .rank = i, .seed = seed};
        assert_int_equal(pthread_create(&t[i].id, NULL, body, &t[i]), 0);
    }
    for (uint32_t i = 0; i < n; i++)
        pthread_join(t[i].id, NULL);
    collective_region_free(region);
}

static void test_gather_gives_every_rank_all_columns(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 3, 8};
    struct rank_thread t[SHARD_RANKS_MAX];
    alarm(LIMIT_S);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        run_threads(sizes[i], i, gather_randomly, t);
        for (uint32_t r = 0; r < sizes[i]; r++)
            assert_int_equal(t[r].wrong, 0);
    }
    alarm(0);
}

static void *broadcast_and_agree(void *arg)
{
    struct rank_thread *t = arg;
    struct collective *c;
    struct err own = {.code = 0}, found = {.code = 0};
    uint64_t word = t->rank == 0 ? t->seed : 0;
    if (collective_open(t->region, t->rank, NULL, NULL, &c, NULL) < 0)
        abort();
    t->wrong += collective_broadcast(c, &word, sizeof(word), NULL) < 0 || word != t->seed;
    t->wrong += collective_agree(c, 0, NULL, NULL) != 0;
    int rc = t->rank < 2 ? 0 : err_set(&own, ERR_NOMEM, "no room %u", t->rank);
    t->wrong += collective_agree(c, rc, &own, &found) != ERR_NOMEM;
    t->wrong += strcmp(found.msg, "rank 2: no room 2") != 0;
    collective_free(c);
    return NULL;
}

static void test_ranks_agree_on_the_first_fault(void **state)
{
    (void)state;
    struct rank_thread t[4];
    alarm(LIMIT_S);
    run_threads(4, UINT64_C(0x123456789abcdef), broadcast_and_agree, t);
    for (uint32_t r = 0; r < 4; r++)
        assert_int_equal(t[r].wrong, 0);
    alarm(0);
}

/* ---- processes --------------------------------------------------------------------------------
 */

static void meet_forever(struct collective *c, void *arg)
{
    (void)arg;
    pid_t own = getpid();
    size_t begin[SHARD_RANKS_MAX + 1];
    for (uint32_t r = 0; r <= c->size; r++)
        begin[r] = r * sizeof(own);
    const struct collective_plane pids = {.src = &own, .rows = 1, .begin = begin};
    if (collective_gather(c, &pids, 1, 0, NULL) == 0)
        while (collective_barrier(c, NULL) == 0)
            ;
}

/* Starts n ranks and learns their process ids. */
static struct ranks *start(uint32_t n, pid_t *pids)
{
    struct ranks *r;
    size_t begin[SHARD_RANKS_MAX + 1];
    for (uint32_t i = 0; i <= n; i++)
        begin[i] = i * sizeof(*pids);
    const struct collective_plane plane = {.src = pids, .dst = pids, .rows = 1, .begin = begin};
    if (ranks_start(n, meet_forever, NULL, &r, NULL) < 0 ||
        collective_gather(ranks_collective(r), &plane, 1, 0, NULL) < 0)
        abort();
    return r;
}

/* Exchanges until the group has failed. */
static void exchange_until_lost(struct ranks *r, struct err *e)
{
    for (int i = 0; i < 10; i++)
        collective_barrier(ranks_collective(r), e);
    while (collective_barrier(ranks_collective(r), e) == 0)
        ;
}

static void test_ranks_find_one_that_was_killed(void **state)
{
    (void)state;
    pid_t pids[3] = {0};
    struct err e = {0};
    alarm(LIMIT_S);
    struct ranks *r = start(3, pids);
    assert_int_equal(ranks_check(r, &e), 0);
    kill(pids[2], SIGKILL);
    exchange_until_lost(r, &e);
    assert_int_equal(e.code, ERR_PEER);
    assert_string_equal(e.msg, "rank 2 was killed by signal 9");
    assert_int_equal(ranks_check(r, &e), ERR_PEER);
    assert_int_equal(collective_barrier(ranks_collective(r), &e), ERR_PEER);
    ranks_free(r);
    assert_int_equal(kill(pids[1], 0), -1); /* reaped */
    alarm(0);
}

static void test_ranks_find_one_that_stands_still(void **state)
{
    (void)state;
    pid_t pids[3] = {0};
    struct err e = {0};
    alarm(LIMIT_S);
    struct ranks *r = start(3, pids);
    collective_set_patience(ranks_collective(r), 1000);
    kill(pids[1], SIGSTOP);
    uint64_t begin_ms = clock_mono_ms();
    exchange_until_lost(r, &e);
    assert_int_equal(e.code, ERR_PEER);
    assert_non_null(strstr(e.msg, "did not answer within 1000 ms"));
    assert_true(clock_mono_ms() - begin_ms >= 900);
    assert_int_equal(ranks_check(r, &e), 0); /* it lives */
    ranks_free(r);
    assert_int_equal(kill(pids[1], 0), -1);
    alarm(0);
}

static void test_ranks_are_found_dead_between_exchanges(void **state)
{
    (void)state;
    pid_t pids[2] = {0};
    struct err e = {0};
    alarm(LIMIT_S);
    struct ranks *r = start(2, pids);
    kill(pids[1], SIGKILL);
    while (ranks_check(r, &e) == 0)
        usleep(1000);
    assert_string_equal(e.msg, "rank 1 was killed by signal 9");
    ranks_free(r);
    alarm(0);
}

/* What a killed rank 0 leaves behind. One of its children is stopped: it must go as well. */
static void test_ranks_end_with_rank_0(void **state)
{
    (void)state;
    int pipes[2], status;
    pid_t pids[3] = {0};
    alarm(LIMIT_S);
    assert_int_equal(pipe(pipes), 0);
    pid_t middle = fork();
    if (middle == 0) {
        start(3, pids);
        kill(pids[1], SIGSTOP);
        if (write(pipes[1], pids, sizeof(pids)) != sizeof(pids))
            _exit(1);
        pause();
        _exit(0);
    }
    assert_int_equal(read(pipes[0], pids, sizeof(pids)), sizeof(pids));
    kill(middle, SIGKILL);
    assert_int_equal(waitpid(middle, &status, 0), middle);
    /* The ranks had the pipe's other end only if they kept their parent's files. */
    close(pipes[1]);
    char byte;
    assert_int_equal(read(pipes[0], &byte, 1), 0);
    for (int i = 1; i < 3; i++)
        while (kill(pids[i], 0) == 0) {
            char path[64], text[256] = {0};
            snprintf(path, sizeof(path), "/proc/%d/stat", (int)pids[i]);
            FILE *f = fopen(path, "r");
            size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
            if (f)
                fclose(f);
            if (n == 0 || strstr(text, ") Z "))
                break; /* nobody here reaps orphans */
            usleep(1000);
        }
    close(pipes[0]);
    alarm(0);
}

static void test_ranks_keep_no_files_of_their_parent(void **state)
{
    (void)state;
    int ends[2];
    char byte;
    pid_t pids[2] = {0};
    alarm(LIMIT_S);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct ranks *r = start(2, pids);
    close(ends[1]);
    assert_int_equal(read(ends[0], &byte, 1), 0); /* the peer sees the end */
    close(ends[0]);
    ranks_free(r);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_gives_every_rank_all_columns),
        cmocka_unit_test(test_ranks_agree_on_the_first_fault),
        cmocka_unit_test(test_ranks_find_one_that_was_killed),
        cmocka_unit_test(test_ranks_find_one_that_stands_still),
        cmocka_unit_test(test_ranks_are_found_dead_between_exchanges),
        cmocka_unit_test(test_ranks_end_with_rank_0),
        cmocka_unit_test(test_ranks_keep_no_files_of_their_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
