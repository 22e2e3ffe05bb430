/* The load table against a real redis-server, a child on a unix socket: it is killed, stopped, made
 * read-only, flushed and lied to, and the pool goes on. */
#include "tests/unit/router/pool/pool_world.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "router/pool/loadtable.h"
#include "runtime/base/clock.h"

#define PATIENCE_MS 10000
#define LEASE_MS 600
/* Below the ports that the system gives out by itself. */
#define TCP_PORT (12000 + (int)(getpid() % 18000))

struct bench {
    struct world w;
    struct event_base *base;
    struct loadtable *table;
    char dir[64];
    char socket[96];
    char url[112];
    pid_t server;
    int port;
    uint32_t lease_ms;
    redisContext *eye; /* what the test looks with */
};

static void server_start(struct bench *b)
{
    char port[16];
    b->port = TCP_PORT;
    snprintf(port, sizeof(port), "%d", b->port);
    b->server = fork();
    assert_true(b->server >= 0);
    if (b->server == 0) {
        int null = open("/dev/null", O_WRONLY);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(null, 1);
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1",
               "--unixsocket", b->socket, "--save", "", "--dir", b->dir, (char *)NULL);
        _exit(127);
    }
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; usleep(10000)) {
        struct timeval tv = {.tv_sec = 2};
        if (waitpid(b->server, NULL, WNOHANG) == b->server)
            fail_msg("redis-server does not start");
        b->eye = redisConnectUnixWithTimeout(b->socket, tv);
        if (b->eye && !b->eye->err) {
            redisSetTimeout(b->eye, tv);
            return;
        }
        redisFree(b->eye);
    }
    fail_msg("redis-server does not listen");
}

static void server_kill(struct bench *b)
{
    redisFree(b->eye);
    b->eye = NULL;
    kill(b->server, SIGKILL);
    waitpid(b->server, NULL, 0);
    unlink(b->socket);
}

static int table_open(struct bench *b, const char *url, struct err *e)
{
    struct loadtable_config c = {.url = url,
                                 .cluster = "test",
                                 .router_id = "r1",
                                 .address = "10.0.0.1:9090",
                                 .lease_ms = b->lease_ms,
                                 .period_ms = 20,
                                 .timeout_ms = 300};
    return loadtable_open(&c, b->base, b->w.pool, &b->table, e);
}

static void bench_init(struct bench *b, uint32_t lease_ms)
{
    struct pool_config config = world_config();
    memset(b, 0, sizeof(*b));
    b->lease_ms = lease_ms;
    config.policy = policy_find("least_load");
    config.lease_ms = 1000000;
    world_init(&b->w, &config);
    b->base = event_base_new();
    snprintf(b->dir, sizeof(b->dir), "/tmp/argosy-loadtable-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    snprintf(b->socket, sizeof(b->socket), "%s/redis.sock", b->dir);
    snprintf(b->url, sizeof(b->url), "unix:%s", b->socket);
    server_start(b);
    assert_int_equal(table_open(b, b->url, NULL), 0);
}

static void bench_release(struct bench *b)
{
    loadtable_free(b->table);
    if (b->eye)
        server_kill(b);
    rmdir(b->dir);
    event_base_free(b->base);
    world_release(&b->w);
}

static void loop_ms(struct bench *b, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    event_base_loopexit(b->base, &tv);
    event_base_dispatch(b->base);
}

/* An integer, the length of a string or array; -1: nil, -2: error. */
static long long ask(struct bench *b, const char *command)
{
    redisReply *r = redisCommand(b->eye, command);
    long long v = -2;
    if (!r)
        fail_msg("%s: %s", command, b->eye->errstr);
    if (r->type == REDIS_REPLY_INTEGER)
        v = r->integer;
    else if (r->type == REDIS_REPLY_STRING && r->len > 0 && strspn(r->str, "0123456789") == r->len)
        v = strtoll(r->str, NULL, 10);
    else if (r->type == REDIS_REPLY_STRING || r->type == REDIS_REPLY_STATUS)
        v = (long long)r->len;
    else if (r->type == REDIS_REPLY_ARRAY)
        v = (long long)r->elements;
    else if (r->type == REDIS_REPLY_NIL)
        v = -1;
    freeReplyObject(r);
    return v;
}

static void expect(struct bench *b, const char *command, long long want)
{
    long long got = -3;
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; loop_ms(b, 20))
        if ((got = ask(b, command)) == want)
            return;
    fail_msg("%s: %lld and not %lld", command, got, want);
}

static void expect_sync(struct bench *b, bool want)
{
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; loop_ms(b, 20))
        if (loadtable_in_sync(b->table) == want)
            return;
    fail_msg("in sync stays %d", !want);
}

static void test_bad_urls_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "unix:",
                                      "http://a",
                                      "redis://",
                                      "redis://:",
                                      "redis://a:b",
                                      "redis://a:99999",
                                      "redis://[::1",
                                      "redis://a:0",
                                      "redis://a:1/x",
                                      "redis://a:1/99999999"};
    struct bench b;
    memset(&b, 0, sizeof(b));
    world_init(&b.w, NULL);
    b.base = event_base_new();
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err e = {0};
        assert_int_equal(table_open(&b, bad[i], &e), ERR_CONFIG);
        assert_true(strstr(e.msg, "redis:") != NULL);
    }
    event_base_free(b.base);
    world_release(&b.w);
}

static void test_workers_are_written_and_taken_out(void **state)
{
    (void)state;
    struct bench b;
    struct client c = client_of(10);
    bench_init(&b, LEASE_MS);
    join(&b.w, 1, "a", 1);
    expect(&b, "SISMEMBER argosy:{test}:workers a", 1);
    expect(&b, "HGET argosy:{test}:worker:a kv_pages", 100);
    expect(&b, "HGET argosy:{test}:worker:a capacity", 8);
    expect(&b, "HGET argosy:{test}:worker:a state", (long long)strlen("ready"));
    expect(&b, "SISMEMBER argosy:{test}:routers r1", 1);
    expect(&b, "HGET argosy:{test}:inflight:r1 a", 0);
    assert_in_range(ask(&b, "PTTL argosy:{test}:worker:a"), 1, LEASE_MS);
    assert_in_range(ask(&b, "PTTL argosy:{test}:inflight:r1"), 1, LEASE_MS);
    assert_true(client_start(&b.w, &c, NULL));
    expect(&b, "HGET argosy:{test}:inflight:r1 a", 26);
    loop_ms(&b, 2 * LEASE_MS); /* leases are renewed */
    assert_int_equal(ask(&b, "EXISTS argosy:{test}:worker:a argosy:{test}:inflight:r1"), 2);
    pool_cancel(c.gen);
    event_load(&b.w, 1, true);
    expect(&b, "HGET argosy:{test}:worker:a state", (long long)strlen("draining"));
    event_closed(&b.w, 1);
    expect(&b, "EXISTS argosy:{test}:worker:a", 0);
    expect(&b, "SCARD argosy:{test}:workers", 0);
    /* Nothing is left without a lease. */
    loadtable_free(b.table);
    b.table = NULL;
    usleep(50000);
    assert_int_equal(ask(&b, "EXISTS argosy:{test}:inflight:r1"), 0);
    assert_int_equal(ask(&b, "SCARD argosy:{test}:routers"), 0);
    bench_release(&b);
}

static void expect_event(struct bench *b, redisContext *ear, const char *want)
{
    redisReply *r = NULL;
    loop_ms(b, 100);
    assert_int_equal(redisGetReply(ear, (void **)&r), REDIS_OK);
    assert_int_equal(r->elements, 3);
    assert_string_equal(r->element[2]->str, want);
    freeReplyObject(r);
}

static void test_events_are_published(void **state)
{
    (void)state;
    struct bench b;
    struct timeval tv = {.tv_sec = 5};
    bench_init(&b, LEASE_MS);
    redisContext *ear = redisConnectUnixWithTimeout(b.socket, tv);
    redisSetTimeout(ear, tv);
    freeReplyObject(redisCommand(ear, "SUBSCRIBE argosy:{test}:events"));
    join(&b.w, 1, "a", 1);
    expect_event(&b, ear, "join a");
    event_load(&b.w, 1, true);
    expect_event(&b, ear, "drain a");
    event_closed(&b.w, 1);
    expect_event(&b, ear, "leave a");
    redisFree(ear);
    bench_release(&b);
}

static void test_killed_redis_is_rebuilt(void **state)
{
    (void)state;
    struct bench b;
    struct client c = client_of(10);
    /* A lease so long that only the reconnection can be the reason for writing all again. */
    bench_init(&b, 120000);
    join(&b.w, 1, "a", 1);
    expect(&b, "SISMEMBER argosy:{test}:workers a", 1);
    expect_sync(&b, true);
    server_kill(&b);
    expect_sync(&b, false);
    assert_true(client_start(&b.w, &c, NULL)); /* the service goes on */
    event_tokens(&b.w, 1, last_sent(&b.w, SENT_START, 1)->request, 0, 4,
                 ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 4);
    join(&b.w, 2, "b", 1);
    server_start(&b);
    expect(&b, "SCARD argosy:{test}:workers", 2);
    expect(&b, "HGET argosy:{test}:worker:b kv_pages", 100);
    expect(&b, "HGET argosy:{test}:inflight:r1 a", 6);
    expect_sync(&b, true);
    /* Once more, and nothing has changed meanwhile. */
    server_kill(&b);
    server_start(&b);
    expect(&b, "SCARD argosy:{test}:workers", 2);
    expect(&b, "HGET argosy:{test}:worker:a kv_pages", 100);
    expect(&b, "HGET argosy:{test}:inflight:r1 a", 6);
    bench_release(&b);
}

static void test_flushed_table_heals(void **state)
{
    (void)state;
    struct bench b;
    bench_init(&b, LEASE_MS);
    join(&b.w, 1, "a", 1);
    expect(&b, "SISMEMBER argosy:{test}:workers a", 1);
    ask(&b, "FLUSHALL");
    expect(&b, "SISMEMBER argosy:{test}:workers a", 1);
    expect(&b, "HGET argosy:{test}:worker:a kv_pages", 100);
    expect(&b, "SISMEMBER argosy:{test}:routers r1", 1);
    bench_release(&b);
}

struct pulse {
    uint64_t last_ms, widest_ms;
};

static void on_pulse(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    struct pulse *p = ctx;
    uint64_t now_ms = clock_mono_ms();
    if (p->last_ms && now_ms - p->last_ms > p->widest_ms)
        p->widest_ms = now_ms - p->last_ms;
    p->last_ms = now_ms;
}

static void test_hanging_redis_blocks_nothing(void **state)
{
    (void)state;
    struct bench b;
    struct pulse pulse = {0};
    struct timeval every = {.tv_usec = 10000};
    bench_init(&b, LEASE_MS);
    join(&b.w, 1, "a", 1);
    expect_sync(&b, true);
    struct event *beat = event_new(b.base, -1, EV_PERSIST, on_pulse, &pulse);
    event_add(beat, &every);
    kill(b.server, SIGSTOP);
    loop_ms(&b, 3000);
    assert_false(loadtable_in_sync(b.table));
    assert_true(pulse.widest_ms < 250);
    kill(b.server, SIGCONT);
    expect_sync(&b, true);
    expect(&b, "SISMEMBER argosy:{test}:workers a", 1);
    event_free(beat);
    bench_release(&b);
}

static void test_read_only_redis_is_survived(void **state)
{
    (void)state;
    struct bench b;
    struct client c = client_of(10);
    bench_init(&b, LEASE_MS);
    join(&b.w, 1, "a", 1);
    expect_sync(&b, true);
    ask(&b, "REPLICAOF 127.0.0.1 1");
    join(&b.w, 2, "b", 1);
    expect_sync(&b, false);
    assert_true(client_start(&b.w, &c, NULL));
    ask(&b, "REPLICAOF NO ONE");
    expect_sync(&b, true);
    expect(&b, "SISMEMBER argosy:{test}:workers b", 1);
    bench_release(&b);
}

/* Where the next request goes: to the stream that has the least load. */
static uint64_t picked(struct bench *b)
{
    struct client c = client_of(10);
    assert_true(client_start(&b->w, &c, NULL));
    uint64_t stream = last_sent(&b->w, SENT_START, 0)->stream;
    pool_cancel(c.gen);
    return stream;
}

static void expect_picks(struct bench *b, uint64_t want)
{
    int in_a_row = 0;
    for (uint64_t end = clock_mono_ms() + PATIENCE_MS; clock_mono_ms() < end; loop_ms(b, 10)) {
        in_a_row = picked(b) == want ? in_a_row + 1 : 0;
        if (in_a_row == 20)
            return;
    }
    fail_msg("requests don't go to stream %llu", (unsigned long long)want);
}

static void test_other_routers_load_counts(void **state)
{
    (void)state;
    struct bench b;
    bench_init(&b, LEASE_MS);
    join(&b.w, 1, "a", 1);
    join(&b.w, 2, "b", 1);
    ask(&b, "SADD argosy:{test}:routers r2");
    ask(&b, "HSET argosy:{test}:inflight:r2 @address 10.0.0.2:9090 a 5000");
    expect_picks(&b, 2);
    ask(&b, "HSET argosy:{test}:inflight:r2 a 0 b 5000");
    expect_picks(&b, 1);
    /* Its lease runs out: so does its word, and its place in the set. */
    ask(&b, "HSET argosy:{test}:inflight:r2 a 9000 b 0");
    expect_picks(&b, 2);
    ask(&b, "PEXPIRE argosy:{test}:inflight:r2 1");
    expect(&b, "SISMEMBER argosy:{test}:routers r2", 0);
    join(&b.w, 3, "c", 1);
    ask(&b, "SADD argosy:{test}:routers r3");
    ask(&b, "HSET argosy:{test}:inflight:r3 @address x b 9000 c 9000");
    expect_picks(&b, 1);
    bench_release(&b);
}

static void test_nonsense_in_redis_is_harmless(void **state)
{
    (void)state;
    struct bench b;
    char *big = malloc(1 << 20);
    bench_init(&b, LEASE_MS);
    memset(big, 'x', 1 << 20);
    join(&b.w, 1, "a", 1);
    join(&b.w, 2, "b", 1);
    ask(&b, "SADD argosy:{test}:routers r2 r3 r4");
    freeReplyObject(redisCommand(b.eye, "SADD argosy:{test}:routers %b %s %b", "a\0b", (size_t)3,
                                 "../../x\r\nFLUSHALL", big, (size_t)(1 << 20)));
    freeReplyObject(redisCommand(b.eye, "SADD argosy:{test}:workers %s ghost %b", "x y", big,
                                 (size_t)(1 << 20)));
    freeReplyObject(redisCommand(b.eye, "HSET argosy:{test}:inflight:r2 @address %b a %s b %s", big,
                                 (size_t)(1 << 20), "99999999999999999999999999", "-17"));
    ask(&b, "SET argosy:{test}:inflight:r3 nonsense");
    ask(&b, "HSET argosy:{test}:inflight:r4 @address 10.0.0.4:1 a 300 b 1e9");
    expect_picks(&b, 2); /* the one honest number there */
    expect(&b, "SISMEMBER argosy:{test}:workers ghost", 0);
    assert_int_equal(ask(&b, "SISMEMBER argosy:{test}:workers a"), 1);
    /* A worker's key of another type is refused once a batch and nothing more. */
    ask(&b, "DEL argosy:{test}:worker:a");
    ask(&b, "SET argosy:{test}:worker:a 1");
    expect_sync(&b, false);
    ask(&b, "DEL argosy:{test}:worker:a");
    expect_sync(&b, true);
    free(big);
    bench_release(&b);
}

static void test_tcp_names_and_databases(void **state)
{
    (void)state;
    struct bench b;
    char url[64];
    bench_init(&b, LEASE_MS);
    join(&b.w, 1, "a", 1);
    loadtable_free(b.table);
    snprintf(url, sizeof(url), "redis://127.0.0.1:%d/2", b.port);
    assert_int_equal(table_open(&b, url, NULL), 0);
    expect_sync(&b, true);
    ask(&b, "SELECT 2");
    expect(&b, "SISMEMBER argosy:{test}:workers a", 1);
    loadtable_free(b.table);
    snprintf(url, sizeof(url), "redis://localhost:%d/3", b.port);
    assert_int_equal(table_open(&b, url, NULL), 0);
    expect_sync(&b, true);
    bench_release(&b);
}

static void test_password_is_given(void **state)
{
    (void)state;
    struct bench b;
    bench_init(&b, LEASE_MS);
    ask(&b, "CONFIG SET requirepass hunter2");
    struct loadtable_config c = {.url = b.url,
                                 .password = "hunter2",
                                 .cluster = "test",
                                 .router_id = "r1",
                                 .lease_ms = LEASE_MS,
                                 .period_ms = 20,
                                 .timeout_ms = 300};
    loadtable_free(b.table);
    assert_int_equal(loadtable_open(&c, b.base, b.w.pool, &b.table, NULL), 0);
    expect_sync(&b, true);
    loadtable_free(b.table);
    c.password = "wrong";
    assert_int_equal(loadtable_open(&c, b.base, b.w.pool, &b.table, NULL), 0);
    loop_ms(&b, 300);
    assert_false(loadtable_in_sync(b.table));
    bench_release(&b);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_urls_are_refused),
        cmocka_unit_test(test_workers_are_written_and_taken_out),
        cmocka_unit_test(test_events_are_published),
        cmocka_unit_test(test_killed_redis_is_rebuilt),
        cmocka_unit_test(test_flushed_table_heals),
        cmocka_unit_test(test_hanging_redis_blocks_nothing),
        cmocka_unit_test(test_read_only_redis_is_survived),
        cmocka_unit_test(test_other_routers_load_counts),
        cmocka_unit_test(test_nonsense_in_redis_is_harmless),
        cmocka_unit_test(test_tcp_names_and_databases),
        cmocka_unit_test(test_password_is_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
