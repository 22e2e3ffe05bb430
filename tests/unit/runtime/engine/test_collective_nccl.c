/* Ranks are processes, each with an emulated GPU, that exchange by NCCL's calls: exactly their own
 * columns, and a group that loses one ends as a whole, in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <unistd.h>

#include "kernels/simt/cuda_api.h"
#include "kernels/simt/simt.h"
#include "runtime/base/clock.h"
#include "runtime/base/rng.h"
#include "runtime/engine/collective_nccl.h"
#include "runtime/engine/ranks.h"
#include "runtime/model/shard.h"

/* No test waits for longer, whatever goes wrong. */
#define LIMIT_S 60

enum { ROUNDS = 12, PLANES = 3, ROW_BYTES_MAX = 900, STAGING_BYTES = PLANES * ROW_BYTES_MAX * 8 };

struct gpu {
    cudaStream_t stream;
    struct collective *group;
};

static int gpu_open(struct gpu *g, struct collective *control, struct ranks *ranks, struct err *e)
{
    if (cudaStreamCreateWithFlags(&g->stream, cudaStreamNonBlocking) != cudaSuccess)
        abort();
    return collective_nccl_open(control, g->stream, STAGING_BYTES, ranks ? ranks_watch : NULL,
                                ranks, &g->group, e);
}

static void gpu_release(struct gpu *g)
{
    collective_free(g->group);
    if (cudaStreamDestroy(g->stream) != cudaSuccess)
        abort();
}

/* ---- what is exchanged ------------------------------------------------------------------------
 */

/* A plane as all ranks know it. Some are larger than what staging holds. */
struct shape {
    size_t begin[SHARD_RANKS_MAX + 1];
    size_t rows, gap;
};

static void random_shape(struct shape *s, struct rng *rng, uint32_t ranks)
{
    s->rows = rng_below(rng, 30);
    s->gap = rng_below(rng, 7);
    s->begin[0] = 0;
    for (uint32_t r = 0; r < ranks; r++)
        s->begin[r + 1] = s->begin[r] + rng_below(rng, ROW_BYTES_MAX / ranks);
}

static unsigned char value_of(uint32_t round, int plane, size_t row, size_t column)
{
    return (unsigned char)(round * 131 + (unsigned)plane * 17 + row * 251 + column * 7 + 1);
}

static void copy(const struct gpu *g, void *to, const void *from, size_t n,
                 enum cudaMemcpyKind kind)
{
    if (n > 0 && (cudaMemcpyAsync(to, from, n, kind, g->stream) != cudaSuccess ||
                  cudaStreamSynchronize(g->stream) != cudaSuccess))
        abort();
}

static void *device_zeros(const struct gpu *g, size_t bytes)
{
    void *p;
    if (cudaMalloc(&p, bytes) != cudaSuccess ||
        cudaMemsetAsync(p, 0, bytes, g->stream) != cudaSuccess)
        abort();
    return p;
}

struct buffers {
    unsigned char *own, *dst; /* on the device */
    size_t bytes;
};

/* This rank's columns of the plane, in place or apart. */
static void fill(const struct gpu *g, const struct shape *s, uint32_t round, int plane,
                 bool in_place, struct buffers *b, struct collective_plane *p)
{
    uint32_t rank = g->group->rank;
    size_t from = s->begin[rank], width = s->begin[rank + 1] - from;
    size_t stride = s->begin[g->group->size] + s->gap, own_stride = in_place ? stride : width + 3;
    unsigned char row_bytes[ROW_BYTES_MAX];
    b->bytes = s->rows * stride + 1;
    b->dst = device_zeros(g, b->bytes);
    b->own = in_place ? NULL : device_zeros(g, s->rows * own_stride + 1);
    unsigned char *own = in_place ? b->dst + from : b->own;
    for (size_t row = 0; row < s->rows; row++) {
        for (size_t k = 0; k < width; k++)
            row_bytes[k] = value_of(round, plane, row, from + k);
        copy(g, own + row * own_stride, row_bytes, width, cudaMemcpyHostToDevice);
    }
    *p = (struct collective_plane){own, own_stride, b->dst, stride, s->rows, s->begin};
}

static uint64_t count_wrong(const struct gpu *g, const struct shape *s, uint32_t round, int plane,
                            const struct buffers *b, size_t stride)
{
    uint64_t wrong = 0;
    unsigned char *got = malloc(b->bytes);
    if (!got)
        abort();
    copy(g, got, b->dst, b->bytes, cudaMemcpyDeviceToHost);
    for (size_t k = 0; k < s->rows * stride; k++) {
        bool gap = k % stride >= s->begin[g->group->size];
        wrong += got[k] != (gap ? 0 : value_of(round, plane, k / stride, k % stride));
    }
    free(got);
    return wrong;
}

/* One exchange; what is wrong in what this rank has after it. */
static uint64_t one_round(const struct gpu *g, struct rng *rng, uint32_t round)
{
    struct shape shapes[PLANES];
    struct collective_plane planes[PLANES];
    struct buffers b[PLANES];
    uint32_t size = g->group->size;
    uint32_t root = rng_below(rng, 3) ? COLLECTIVE_ALL : (uint32_t)rng_below(rng, size);
    bool in_place = rng_below(rng, 2), wanted = root == COLLECTIVE_ALL || root == g->group->rank;
    uint64_t wrong = 0;
    for (int i = 0; i < PLANES; i++) {
        random_shape(&shapes[i], rng, size);
        fill(g, &shapes[i], round, i, in_place, &b[i], &planes[i]);
    }
    wrong += collective_gather(g->group, planes, PLANES, root, NULL) < 0;
    wrong += collective_wait(g->group, NULL) < 0;
    for (int i = 0; i < PLANES; i++) {
        if (wanted)
            wrong += count_wrong(g, &shapes[i], round, i, &b[i], planes[i].dst_stride);
        cudaFree(b[i].own);
        cudaFree(b[i].dst);
    }
    return wrong;
}

static void gather_randomly(struct collective *control, void *arg)
{
    struct gpu g;
    struct rng rng;
    struct err own = {0};
    uint64_t wrong = 0;
    (void)arg;
    simt_set(&(struct simt_options){.seed = 1, .eager_copies = control->rank % 2 != 0});
    if (gpu_open(&g, control, NULL, NULL) < 0)
        abort();
    rng_init(&rng, control->size);
    for (uint32_t round = 0; round < ROUNDS; round++)
        wrong += one_round(&g, &rng, round);
    int rc = wrong ? err_set(&own, ERR_FORMAT, "%llu are wrong", (unsigned long long)wrong) : 0;
    collective_agree(control, rc, &own, NULL);
    gpu_release(&g);
}

static void test_gather_gives_every_rank_all_columns(void **state)
{
    (void)state;
    alarm(LIMIT_S);
    for (uint32_t n = 2; n <= 8; n *= 2) {
        struct ranks *r;
        struct gpu g;
        struct rng rng;
        struct err e = {0};
        uint64_t wrong = 0;
        assert_int_equal(ranks_start(n, gather_randomly, NULL, &r, &e), 0);
        assert_int_equal(gpu_open(&g, ranks_collective(r), r, &e), 0);
        rng_init(&rng, n);
        for (uint32_t round = 0; round < ROUNDS; round++)
            wrong += one_round(&g, &rng, round);
        assert_int_equal(wrong, 0);
        if (collective_agree(ranks_collective(r), 0, NULL, &e) < 0)
            fail_msg("%s", e.msg);
        gpu_release(&g);
        ranks_free(r);
    }
    alarm(0);
}

/* ---- ranks that are lost ----------------------------------------------------------------------
 */

/* Exchanges until the group has failed. */
static void exchange_until_lost(struct gpu *g, struct err *e)
{
    const size_t begin[] = {0, 100, 200, 300};
    struct collective_plane plane = {.src_stride = 300, .dst_stride = 300, .rows = 9};
    plane.dst = device_zeros(g, 2700);
    plane.src = (char *)plane.dst + begin[g->group->rank];
    plane.begin = begin;
    while (collective_gather(g->group, &plane, 1, COLLECTIVE_ALL, e) == 0 &&
           collective_wait(g->group, e) == 0)
        ;
    cudaFree(plane.dst);
}

static void meet_forever(struct collective *control, void *arg)
{
    pid_t own = getpid();
    size_t begin[SHARD_RANKS_MAX + 1];
    struct gpu g;
    (void)arg;
    for (uint32_t r = 0; r <= control->size; r++)
        begin[r] = r * sizeof(own);
    const struct collective_plane pids = {.src = &own, .rows = 1, .begin = begin};
    if (collective_gather(control, &pids, 1, 0, NULL) < 0 || gpu_open(&g, control, NULL, NULL) < 0)
        return;
    exchange_until_lost(&g, NULL);
    gpu_release(&g);
}

struct lost {
    struct ranks *ranks;
    struct gpu g;
    pid_t pids[3];
};

static void lose(struct lost *l, int rank, int sig, struct err *e)
{
    const size_t begin[] = {0, sizeof(pid_t), 2 * sizeof(pid_t), 3 * sizeof(pid_t)};
    const struct collective_plane plane = {
        .src = l->pids, .dst = l->pids, .rows = 1, .begin = begin};
    assert_int_equal(ranks_start(3, meet_forever, NULL, &l->ranks, e), 0);
    struct collective *control = ranks_collective(l->ranks);
    assert_int_equal(collective_gather(control, &plane, 1, 0, e), 0);
    assert_int_equal(gpu_open(&l->g, control, l->ranks, e), 0);
    collective_set_patience(l->g.group, 1000);
    kill(l->pids[rank], sig);
    exchange_until_lost(&l->g, e);
}

static void lost_release(struct lost *l)
{
    gpu_release(&l->g);
    ranks_free(l->ranks);
}

static void test_ranks_find_one_that_was_killed(void **state)
{
    (void)state;
    struct lost l = {0};
    struct err e = {0};
    alarm(LIMIT_S);
    lose(&l, 2, SIGKILL, &e);
    assert_int_equal(e.code, ERR_PEER);
    assert_string_equal(e.msg, "rank 2 was killed by signal 9");
    assert_int_equal(collective_wait(l.g.group, &e), ERR_PEER); /* for good */
    lost_release(&l);
    alarm(0);
}

static void test_ranks_find_one_that_stands_still(void **state)
{
    (void)state;
    struct lost l = {0};
    struct err e = {0};
    alarm(LIMIT_S);
    uint64_t begin_ms = clock_mono_ms();
    lose(&l, 1, SIGSTOP, &e);
    assert_int_equal(e.code, ERR_PEER);
    assert_non_null(strstr(e.msg, "did not finish a step within 1000 ms"));
    assert_in_range(clock_mono_ms() - begin_ms, 900, 20000);
    lost_release(&l);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_gives_every_rank_all_columns),
        cmocka_unit_test(test_ranks_find_one_that_was_killed),
        cmocka_unit_test(test_ranks_find_one_that_stands_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
