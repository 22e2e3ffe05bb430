/* Two routers' key rings and a real redis-server, a child on a unix socket: what one reserves the
 * other does not have; one dies, Redis restarts, is emptied, hangs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <event2/event.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "router/keys/keyring.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/keys/keyfile.h"

#define PATIENCE_MS 10000
#define LEASE_MS 1500

/* SHA-256 of "abc" (FIPS 180-2), so that "abc" is the secret. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

struct router {
    struct event_base *base;
    struct keyring *ring;
};

struct asked {
    struct grant grant;
    bool decided, yes;
    struct refusal why;
};

static struct bench {
    char dir[64], socket[96], url[112], file[96];
    pid_t server;
    redisContext *eye;
    struct router a, b, dead;
} bench;

/* ---- Redis ----------------------------------------------------------------------------------- */

static void server_start(void)
{
    bench.server = fork();
    assert_true(bench.server >= 0);
    if (bench.server == 0) {
        int null = open("/dev/null", O_WRONLY);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, 1);
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", bench.socket,
               "--save", "", "--dir", bench.dir, (char *)NULL);
        _exit(127);
    }
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; usleep(10000)) {
        bench.eye = redisConnectUnix(bench.socket);
        if (bench.eye && !bench.eye->err)
            return;
        redisFree(bench.eye);
    }
    fail_msg("redis-server does not listen");
}

static void server_kill(void)
{
    redisFree(bench.eye);
    kill(bench.server, SIGKILL);
    waitpid(bench.server, NULL, 0);
    unlink(bench.socket);
}

static void tell(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    redisReply *r = redisvCommand(bench.eye, format, ap);
    va_end(ap);
    assert_non_null(r);
    if (r->type == REDIS_REPLY_ERROR)
        fail_msg("%s", r->str);
    freeReplyObject(r);
}

static void put_key(const char *limits)
{
    char line[256];
    snprintf(line, sizeof(line), ABC " name=test %s", limits);
    tell("HSET argosy:{t}:keys " ABC " %s", line);
    tell("INCR argosy:{t}:keys:version");
}

/* ---- routers --------------------------------------------------------------------------------- */

static int ring_open(struct router *r, const char *file, const char *url, const char *id,
                     struct err *e)
{
    struct keyring_config c = {.file = file,
                               .url = url,
                               .cluster = "t",
                               .router_id = id,
                               .timeout_ms = 300,
                               .wait_ms = 200,
                               .lease_ms = LEASE_MS};
    r->base = event_base_new();
    return keyring_open(&c, r->base, &r->ring, e);
}

static void turn(struct router *r, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_base_loopexit(r->base, &tv);
    event_base_dispatch(r->base);
}

static void both(uint32_t ms)
{
    for (uint64_t end = clock_mono_ms() + ms; clock_mono_ms() < end;) {
        turn(&bench.a, 2);
        turn(&bench.b, 2);
    }
}

static void close_router(struct router *r)
{
    keyring_free(r->ring);
    if (r->base)
        event_base_free(r->base);
    *r = (struct router){0};
}

static struct tenant *knows(struct router *r)
{
    return keyring_find(r->ring, "abc", 3);
}

static void wait_known(struct router *r, bool known)
{
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; turn(r, 5)) {
        struct tenant *t = knows(r);
        if (t)
            tenant_put(t);
        if ((t != NULL) == known)
            return;
    }
    fail_msg("the key is %s", known ? "not known" : "still known");
}

static void on_decided(void *ctx, const struct refusal *why)
{
    struct asked *a = ctx;
    a->decided = true;
    a->yes = !why;
    if (why)
        a->why = *why;
}

/* True: admitted. Waits for Redis as a request does. */
static bool ask(struct router *r, struct asked *a, uint64_t tokens)
{
    struct tenant *t = knows(r);
    *a = (struct asked){0};
    assert_non_null(t);
    enum admission said = keyring_admit(r->ring, t, tokens, &a->grant, on_decided, a, &a->why);
    tenant_put(t);
    if (said != UNDECIDED)
        return said == ADMITTED;
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; !a->decided && clock_mono_ms() < end;)
        turn(r, 1);
    assert_true(a->decided);
    return a->yes;
}

/* Far from a minute's end, so that its pots stay the same for a while. */
static void wait_for_room_in_the_minute(void)
{
    while (time(NULL) % 60 > 54)
        usleep(100000);
}

static int setup(void **state)
{
    (void)state;
    memset(&bench, 0, sizeof(bench));
    log_init("test", LOG_LEVEL_OFF);
    snprintf(bench.dir, sizeof(bench.dir), "/tmp/argosy-keyring-XXXXXX");
    assert_non_null(mkdtemp(bench.dir));
    snprintf(bench.socket, sizeof(bench.socket), "%s/redis.sock", bench.dir);
    snprintf(bench.url, sizeof(bench.url), "unix:%s", bench.socket);
    snprintf(bench.file, sizeof(bench.file), "%s/keys", bench.dir);
    server_start();
    assert_int_equal(ring_open(&bench.a, NULL, bench.url, "a", NULL), 0);
    assert_int_equal(ring_open(&bench.b, NULL, bench.url, "b", NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (bench.a.base)
        close_router(&bench.a);
    close_router(&bench.b);
    if (bench.dead.base)
        close_router(&bench.dead);
    server_kill();
    unlink(bench.file);
    rmdir(bench.dir);
    return 0;
}

static void start(const char *limits)
{
    put_key(limits);
    wait_known(&bench.a, true);
    wait_known(&bench.b, true);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void test_keyring_knows_a_key_and_its_end_within_two_seconds(void **state)
{
    (void)state;
    start("requests=5");
    struct tenant *kept = knows(&bench.a);
    assert_int_equal(tenant_key(kept)->requests, 5);
    assert_null(keyring_find(bench.a.ring, "abd", 3));
    assert_null(keyring_find(bench.a.ring, "", 0));
    tell("HDEL argosy:{t}:keys " ABC);
    tell("INCR argosy:{t}:keys:version");
    turn(&bench.a, 1500);
    assert_null(knows(&bench.a));
    tenant_put(kept); /* what runs with it goes on until here */
}

static void test_keyring_passes_over_what_is_no_key(void **state)
{
    (void)state;
    tell("HSET argosy:{t}:keys x y");
    tell("HSET argosy:{t}:keys %s %s", "another", ABC);
    start("requests=5");
}

static void test_keyring_shares_a_budget_and_settles(void **state)
{
    (void)state;
    start("budget=1000");
    struct asked x, y, z;
    assert_true(ask(&bench.a, &x, 600));
    assert_false(ask(&bench.b, &y, 600));
    assert_int_equal(y.why.kind, REFUSAL_BUDGET);
    assert_true(y.why.never);
    assert_true(ask(&bench.b, &y, 300));
    grant_settle(&x.grant, 50); /* 550 come back, of which a keeps a sixteenth of the limit */
    both(50);
    assert_true(ask(&bench.b, &z, 580));
    grant_settle(&y.grant, 300);
    grant_settle(&z.grant, 580);
    both(2500); /* idle routers keep nothing */
    assert_false(ask(&bench.a, &x, 71));
    assert_true(ask(&bench.a, &x, 70));
    grant_settle(&x.grant, 70);
}

static void test_keyring_hammered_by_two_routers_spends_no_more_than_there_is(void **state)
{
    (void)state;
    start("budget=100000");
    uint64_t used = 0, n = 0;
    for (int i = 0; i < 1500; i++) {
        struct asked x;
        uint64_t really = (uint64_t)(i * 37 % 500);
        if (!ask(i % 3 ? &bench.a : &bench.b, &x, 500))
            continue;
        grant_settle(&x.grant, really);
        used += really;
        n++;
    }
    both(100);
    assert_true(used <= 100000);
    assert_true(used > 99000); /* and it is not lost: less than two requests' worth is left */
    assert_true(n < 1500);
}

/* A router whose loop never turns again is one that was killed. */
static void test_keyring_gets_back_what_a_dead_router_had_reserved(void **state)
{
    (void)state;
    start("budget=1600");
    struct asked x, y;
    assert_true(ask(&bench.a, &x, 100));
    both(20);
    turn(&bench.a, 20); /* the last that Redis hears of a: 100 used, and some reserved */
    assert_false(ask(&bench.b, &y, 1500));
    assert_false(y.why.never); /* a holds it, and may give it back */
    turn(&bench.b, LEASE_MS + 300);
    assert_true(ask(&bench.b, &y, 1500)); /* all but the 100 that ran at a */
    struct asked z;
    assert_false(ask(&bench.b, &z, 1));
    grant_settle(&y.grant, 1500);
    grant_settle(&x.grant, 100);
    bench.dead = bench.a; /* buried when the test is over */
    bench.a = (struct router){0};
}

static void test_keyring_forgets_the_requests_of_a_dead_router(void **state)
{
    (void)state;
    start("concurrency=2");
    struct asked x[2], y;
    assert_true(ask(&bench.a, &x[0], 1));
    assert_true(ask(&bench.a, &x[1], 1));
    turn(&bench.a, 20);
    assert_false(ask(&bench.b, &y, 1));
    assert_int_equal(y.why.kind, REFUSAL_RUNNING);
    turn(&bench.b, LEASE_MS + 300);
    assert_true(ask(&bench.b, &y, 1));
    grant_settle(&y.grant, 1);
    bench.dead = bench.a;
    bench.a = (struct router){0};
    grant_settle(&x[0].grant, 1);
    grant_settle(&x[1].grant, 1);
}

static void test_keyring_counts_a_minutes_requests_over_both(void **state)
{
    (void)state;
    start("requests=20 tokens=100000");
    wait_for_room_in_the_minute();
    uint32_t n = 0;
    struct asked x;
    for (int i = 0; i < 40; i++)
        if (ask(i % 2 ? &bench.a : &bench.b, &x, 10)) {
            n++;
            grant_settle(&x.grant, 10);
        }
    assert_int_equal(n, 20);
    assert_int_equal(x.why.kind, REFUSAL_REQUESTS);
    assert_true(x.why.retry_after_ms > 0 && x.why.retry_after_ms <= 60000);
    struct tenant *t = knows(&bench.a);
    struct tenant_left left = tenant_left_of(bench.a.ring, t);
    tenant_put(t);
    assert_int_equal(left.requests_limit, 20);
    assert_int_equal(left.requests, 0);
}

static void test_keyring_goes_on_without_redis_and_does_not_overspend(void **state)
{
    (void)state;
    start("requests=100 budget=16000");
    wait_for_room_in_the_minute();
    struct asked x, y;
    assert_true(ask(&bench.a, &x, 10));
    assert_true(ask(&bench.b, &y, 10));
    grant_settle(&x.grant, 10);
    grant_settle(&y.grant, 10);
    both(100);
    server_kill();
    both(100);
    /* Half of the requests each, and the 1,000 tokens that were at hand. */
    uint32_t n = 0;
    uint64_t used = 0;
    for (int i = 0; i < 100; i++) {
        if (!ask(&bench.a, &x, 40))
            break;
        grant_settle(&x.grant, 40);
        used += 40;
        n++;
    }
    assert_true(n >= 20 && n <= 50);
    assert_true(used <= 1000);
    assert_int_equal(x.why.kind, REFUSAL_UNSURE);
    turn(&bench.a, LEASE_MS);
    assert_false(ask(&bench.a, &x, 1)); /* its lease is over */
    /* An empty Redis comes back: the key stays known, and what was used stays used. */
    server_start();
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end;) {
        both(50);
        if (ask(&bench.a, &x, 1))
            break;
    }
    grant_settle(&x.grant, 1);
    both(700);
    wait_known(&bench.a, true);
    assert_false(ask(&bench.a, &x, 16000 - used - 20));
    assert_true(ask(&bench.a, &x, 14000 - used));
    grant_settle(&x.grant, 0);
}

static void test_keyring_does_not_wait_for_a_redis_that_hangs(void **state)
{
    (void)state;
    start("requests=100");
    wait_for_room_in_the_minute();
    struct asked x;
    assert_true(ask(&bench.a, &x, 1));
    grant_settle(&x.grant, 1);
    turn(&bench.a, 50);
    kill(bench.server, SIGSTOP);
    uint32_t n = 0;
    uint64_t begun_ms = clock_mono_ms();
    for (int i = 0; i < 8; i++) /* more than what is at hand */
        if (ask(&bench.a, &x, 1)) {
            n++;
            grant_settle(&x.grant, 1);
        }
    assert_int_equal(n, 8);
    assert_true(clock_mono_ms() - begun_ms < PATIENCE_MS / 2);
    kill(bench.server, SIGCONT);
}

static void test_keyring_client_that_leaves_while_it_waits(void **state)
{
    (void)state;
    start("requests=100 concurrency=1");
    struct asked x = {0}, y;
    struct tenant *t = knows(&bench.a);
    assert_int_equal(keyring_admit(bench.a.ring, t, 1, &x.grant, on_decided, &x, &x.why),
                     UNDECIDED);
    tenant_put(t);
    grant_settle(&x.grant, 0);
    both(100);
    assert_false(x.decided);
    assert_true(ask(&bench.b, &y, 1));
    grant_settle(&y.grant, 1);
}

static void write_file(const char *text)
{
    FILE *f = fopen(bench.file, "w");
    fputs(text, f);
    fclose(f);
}

static void test_keyring_reads_its_file_again(void **state)
{
    (void)state;
    struct router r = {0};
    struct err e = {0};
    write_file(ABC " name=x budget=5\n");
    assert_int_equal(ring_open(&r, bench.file, NULL, "c", &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "needs Redis"));
    event_base_free(r.base);
    write_file(ABC " name=x concurrency=1\n");
    assert_int_equal(ring_open(&r, bench.file, NULL, "c", &e), 0);
    struct asked x, y;
    assert_true(ask(&r, &x, 1000000));
    assert_false(ask(&r, &y, 1));
    assert_int_equal(y.why.kind, REFUSAL_RUNNING);
    grant_settle(&x.grant, 5);
    write_file("no key\n");
    turn(&r, 1100);
    wait_known(&r, true); /* a file that is wrong changes nothing */
    write_file("# nobody any more\n");
    turn(&r, 1100);
    assert_null(knows(&r));
    close_router(&r);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_keyring_knows_a_key_and_its_end_within_two_seconds),
        T(test_keyring_passes_over_what_is_no_key),
        T(test_keyring_shares_a_budget_and_settles),
        T(test_keyring_hammered_by_two_routers_spends_no_more_than_there_is),
        T(test_keyring_gets_back_what_a_dead_router_had_reserved),
        T(test_keyring_forgets_the_requests_of_a_dead_router),
        T(test_keyring_counts_a_minutes_requests_over_both),
        T(test_keyring_goes_on_without_redis_and_does_not_overspend),
        T(test_keyring_does_not_wait_for_a_redis_that_hangs),
        T(test_keyring_client_that_leaves_while_it_waits),
        T(test_keyring_reads_its_file_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
