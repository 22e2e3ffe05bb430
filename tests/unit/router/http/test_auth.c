/* Who may ask, and how much: the whole front with a key ring from a file. */
#include "tests/unit/router/http/harness.h"

#include "router/http/route.h"
#include "router/keys/keyring.h"
#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/keys/key.h"

/* SHA-256 of "abc" and of "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq" (FIPS 180-2,
 * B.1 and B.2): these texts are the secrets. */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define LONG "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
#define LONG_SECRET "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"

#define COMPLETION "{\"model\":\"tiny\",\"prompt\":\"hi\",\"max_tokens\":%d%s}"

static char file[64];

/* The server anew, with these keys. */
static void serve(const char *keys)
{
    struct keyring_config c = {.file = file, .wait_ms = 100, .lease_ms = 1000, .router_id = "r"};
    struct err e = {0};
    FILE *f = fopen(file, "w");
    fputs(keys, f);
    fclose(f);
    http_free(server.http);
    keyring_free(server.config.keys);
    if (keyring_open(&c, server.base, &server.config.keys, &e) < 0)
        fail_msg("%s", e.msg);
    server_open();
}

static int setup(void **state)
{
    log_init("test", LOG_LEVEL_OFF);
    server_setup(state);
    snprintf(file, sizeof(file), "/tmp/argosy-auth-XXXXXX");
    close(mkstemp(file));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    http_free(server.http);
    assert_int_equal(fake.live, 0);
    keyring_free(server.config.keys);
    server.config.keys = NULL;
    event_base_free(server.base);
    unlink(file);
    return 0;
}

/* One request with that Authorization ("": none), on a connection of its own. */
static void send_request(const char *method, const char *path, const char *auth, const char *body,
                         struct reply *r)
{
    struct buf text;
    buf_init(&text, 0);
    buf_addf(&text, "%s %s HTTP/1.1\r\nHost: x\r\n", method, path);
    if (auth[0])
        buf_addf(&text, "Authorization: %s\r\n", auth);
    buf_addf(&text, "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    exchange(buf_str(&text), r);
    buf_release(&text);
}

static int status_of(const char *method, const char *path, const char *auth)
{
    struct reply r;
    send_request(method, path, auth, "", &r);
    int status = r.status;
    reply_release(&r);
    return status;
}

static void complete(const char *secret, int max_tokens, const char *more, struct reply *r)
{
    char body[256], auth[128];
    snprintf(body, sizeof(body), COMPLETION, max_tokens, more);
    snprintf(auth, sizeof(auth), "Bearer %s", secret);
    send_request("POST", "/v1/completions", auth, body, r);
}

static void expect(const char *secret, int max_tokens, const char *more, int status,
                   const char *code)
{
    struct reply r;
    complete(secret, max_tokens, more, &r);
    if (r.status != status || (code && !strstr(buf_str(&r.body), code)))
        fail_msg("%d %s", r.status, buf_str(&r.body));
    reply_release(&r);
}

static const char *const methods[] = {"GET",    "HEAD",  "POST",  "PUT",
                                      "DELETE", "PATCH", "TRACE", "OPTIONS"};

/* Health, and a page that has to ask for the key. */
static const char *const open_paths[] = {"/health",
                                         "/ready",
                                         "/explorer",
                                         "/explorer/explorer.css",
                                         "/explorer/explorer.js",
                                         "/explorer/charts.js",
                                         "/explorer/icon.svg"};

/* Every path that there is, and some that there are not. */
static void test_auth_every_path_and_method_wants_a_key(void **state)
{
    (void)state;
    serve(ABC "\n");
    for (size_t i = 0; i < route_count() + 3; i++) {
        static const char *const none[] = {"/", "/v1/keys", "*"};
        bool is_route = i < route_count();
        const struct route *route = is_route ? route_at(i) : NULL;
        char path[128];
        snprintf(path, sizeof(path), "%s%s", is_route ? route->path : none[i - route_count()],
                 is_route && route->prefix ? "tiny" : "");
        bool is_open = false;
        for (size_t k = 0; k < ARRAY_LEN(open_paths); k++)
            is_open |= !strcmp(path, open_paths[k]);
        for (size_t m = 0; m < ARRAY_LEN(methods); m++) {
            if (!strcmp(path, "*") && strcmp(methods[m], "OPTIONS") != 0)
                continue; /* is no request */
            int status = status_of(methods[m], path, "");
            bool open = is_open && strcmp(methods[m], "OPTIONS") != 0;
            if (open ? status == 401 : status != 401)
                fail_msg("%s %s: %d", methods[m], path, status);
        }
    }
    assert_int_equal(fake.started, 0);
}

static void test_auth_options_for_it(void **state)
{
    (void)state;
    server.config.metrics_open = true;
    server.config.cors_origin = "https://example.org";
    serve(ABC "\n");
    assert_int_equal(status_of("GET", "/metrics", ""), 200);
    assert_int_equal(status_of("OPTIONS", "/v1/chat/completions", ""), 204);
    assert_int_equal(status_of("POST", "/v1/chat/completions", ""), 401);
}

static void test_auth_what_is_no_key_is_401(void **state)
{
    static const char *const wrong[] = {"abc",         "Bearer",      "Bearer ",     "Bearer  abc",
                                        "Bearer abd",  "Bearer abc ", "Basic abc",   "Bearer ab",
                                        "Bearer abcc", "Bearer " ABC, "Bearer a\x7f"};
    (void)state;
    serve(ABC "\n");
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        if (status_of("GET", "/v1/models", wrong[i]) == 200 &&
            strcmp(wrong[i], "Bearer abc ") != 0) /* the space is no part of the value */
            fail_msg("'%s' is taken", wrong[i]);
    assert_int_equal(status_of("GET", "/v1/models", "Bearer abc"), 200);
    assert_int_equal(status_of("GET", "/v1/models", "bearer abc"), 200);
    struct reply r;
    send_request("GET", "/v1/models", "Bearer abd", "", &r);
    assert_int_equal(r.status, 401);
    assert_string_equal(reply_header(&r, "WWW-Authenticate"), "Bearer");
    assert_non_null(strstr(buf_str(&r.body), "\"code\":\"invalid_api_key\""));
    reply_release(&r);
}

/* Nobody without a key can make the router read a body. */
static void test_auth_refuses_before_the_body(void **state)
{
    struct reply r;
    int fd = dial();
    (void)state;
    close(fd);
    serve(ABC "\n");
    fd = dial();
    send_text(fd, "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    read_reply(fd, &r, NULL, false);
    assert_int_equal(r.status, 401);
    assert_string_equal(reply_header(&r, "Connection"), "close");
    reply_release(&r);
    close(fd);
}

static void test_auth_limits_are_told_and_kept(void **state)
{
    struct reply r;
    (void)state;
    serve(ABC " requests=3 tokens=300\n");
    while (time(NULL) % 60 > 57)
        usleep(100000); /* not over a minute's end */
    complete("abc", 5, "", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "x-ratelimit-limit-requests"), "3");
    assert_string_equal(reply_header(&r, "x-ratelimit-remaining-requests"), "2");
    assert_string_equal(reply_header(&r, "x-ratelimit-limit-tokens"), "300");
    int64_t prompt = atoi(reply_header(&r, "x-ratelimit-remaining-tokens"));
    assert_true(prompt < 300 - 5 && prompt > 200); /* what it may take is taken */
    const char *reset = reply_header(&r, "x-ratelimit-reset-tokens");
    assert_true(reset[strlen(reset) - 1] == 's');
    reply_release(&r);
    /* Settled: "hello" is 5 tokens, and the prompt. */
    complete("abc", 5, "", &r);
    int64_t left = atoi(reply_header(&r, "x-ratelimit-remaining-tokens"));
    assert_int_equal(300 - left, 2 * (300 - prompt));
    reply_release(&r);
    expect("abc", 400, "", 429, "rate_limit_exceeded"); /* more than a minute's: never */
    complete("abc", 400, "", &r);
    assert_string_equal(reply_header(&r, "X-Should-Retry"), "false");
    assert_null(reply_header(&r, "Retry-After"));
    reply_release(&r);
    expect("abc", 5, "", 200, NULL);
    complete("abc", 5, "", &r);
    assert_int_equal(r.status, 429);
    int ms = atoi(reply_header(&r, "retry-after-ms"));
    assert_true(ms > 0 && ms <= 60000);
    assert_int_equal(atoi(reply_header(&r, "Retry-After")), (ms + 999) / 1000);
    assert_string_equal(reply_header(&r, "x-ratelimit-remaining-requests"), "0");
    reply_release(&r);
}

static void expect_status(const char *method, const char *path, const char *body, int status)
{
    struct reply r;
    send_request(method, path, "Bearer abc", body, &r);
    if (r.status != status)
        fail_msg("%s %s: %d %s", method, path, r.status, buf_str(&r.body));
    reply_release(&r);
}

/* What no worker sees is a request of the key all the same, and takes none of its tokens. */
static void test_auth_counts_what_the_router_answers_itself(void **state)
{
    static const char text[] = "{\"model\":\"tiny\",\"prompt\":\"hi\"}";
    static const char ids[] = "{\"model\":\"tiny\",\"tokens\":[1]}";
    struct reply r;
    (void)state;
    serve(ABC " requests=4 tokens=300\n");
    while (time(NULL) % 60 > 57)
        usleep(100000); /* not over a minute's end */
    send_request("GET", "/v1/models", "Bearer abc", "", &r);
    assert_int_equal(r.status, 200);
    assert_string_equal(reply_header(&r, "x-ratelimit-remaining-requests"), "3");
    assert_string_equal(reply_header(&r, "x-ratelimit-remaining-tokens"), "300");
    reply_release(&r);
    expect_status("GET", "/v1/models/tiny", "", 200);
    expect_status("POST", "/tokenize", text, 200);
    expect_status("POST", "/detokenize", ids, 200);
    send_request("POST", "/tokenize", "Bearer abc", text, &r);
    assert_int_equal(r.status, 429);
    int ms = atoi(reply_header(&r, "retry-after-ms"));
    assert_true(ms > 0 && ms <= 60000);
    reply_release(&r);
    expect_status("POST", "/detokenize", ids, 429);
    expect_status("GET", "/v1/models", "", 429);
    expect_status("HEAD", "/v1/models/tiny", "", 429);
    expect("abc", 5, "", 429, "requests a minute");
    expect_status("GET", "/health", "", 200);
    expect_status("GET", "/explorer/snapshot", "", 200); /* who watches asks again and again */
}

/* It is answered while another runs, and gives no place of another back. */
static void test_auth_what_runs_nowhere_takes_no_place(void **state)
{
    (void)state;
    serve(ABC " concurrency=1\n");
    char text[512];
    static const char body[] = "{\"model\":\"tiny\",\"prompt\":\"hi\",\"max_tokens\":5}";
    fake.hold = true;
    int fd = dial();
    snprintf(text, sizeof(text),
             "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    send_text(fd, text);
    for (uint64_t until = clock_mono_ms() + WAIT_MS; !fake.live && clock_mono_ms() < until;)
        pump();
    assert_int_equal(fake.live, 1);
    expect_status("GET", "/v1/models", "", 200);
    expect("abc", 5, "", 429, "requests at once");
    close(fd);
    for (uint64_t until = clock_mono_ms() + WAIT_MS; fake.live && clock_mono_ms() < until;)
        pump();
    fake.hold = false;
}

static void test_auth_concurrency_ends_with_the_request(void **state)
{
    (void)state;
    serve(ABC " concurrency=1\n");
    char text[512];
    static const char body[] = "{\"model\":\"tiny\",\"prompt\":\"hi\",\"max_tokens\":5}";
    fake.hold = true;
    int fd = dial();
    snprintf(text, sizeof(text),
             "POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\n"
             "Content-Length: %zu\r\n\r\n%s",
             strlen(body), body);
    send_text(fd, text);
    for (uint64_t until = clock_mono_ms() + WAIT_MS; !fake.live && clock_mono_ms() < until;)
        pump();
    assert_int_equal(fake.live, 1);
    expect("abc", 5, "", 429, "requests at once");
    close(fd);
    for (uint64_t until = clock_mono_ms() + WAIT_MS; fake.live && clock_mono_ms() < until;)
        pump();
    fake.hold = false;
    expect("abc", 5, "", 200, NULL);
}

static void test_auth_priority_and_pool_are_the_keys(void **state)
{
    (void)state;
    serve(ABC " priority=3 pool=trust=gold\n" LONG "\n");
    expect("abc", 5, "", 200, NULL);
    assert_int_equal(fake.last.priority, -3); /* the pool's: higher goes first */
    assert_int_equal(fake.last.n_wants, 1);
    expect("abc", 5, ",\"priority\":7", 200, NULL);
    assert_int_equal(fake.last.priority, -7);
    expect("abc", 5, ",\"priority\":2", 403, "priority_not_allowed");
    expect("abc", 5, ",\"priority\":-5", 403, "priority_not_allowed");
    expect("abc", 5, ",\"argosy\":{\"wants\":{\"trust\":\"lead\"}}", 403, "pool_not_allowed");
    expect("abc", 5, ",\"argosy\":{\"wants\":{\"trust\":\"gold\",\"a\":\"b\"}}", 200, NULL);
    assert_int_equal(fake.last.n_wants, 2);
    expect("abc", 5, ",\"argosy\":{\"wants\":{\"a\":\"b\"}}", 200, NULL);
    assert_int_equal(fake.last.n_wants, 2);
    expect(LONG_SECRET, 5, "", 200, NULL);
    assert_int_equal(fake.last.n_wants, 0);
    assert_int_equal(fake.last.priority, 0);
}

static void test_auth_keys_share_no_cache_and_no_session(void **state)
{
    struct gen_request first, second;
    static const uint8_t none[16];
    (void)state;
    serve(ABC "\n" LONG "\n");
    expect("abc", 5, ",\"user\":\"u\"", 200, NULL);
    first = fake.last;
    expect(LONG_SECRET, 5, ",\"user\":\"u\"", 200, NULL);
    second = fake.last;
    assert_memory_not_equal(first.cache_salt, none, 16);
    assert_memory_not_equal(first.cache_salt, second.cache_salt, 16);
    assert_true(first.session_hash != second.session_hash);
    expect("abc", 5, ",\"user\":\"u\"", 200, NULL);
    assert_memory_equal(first.cache_salt, fake.last.cache_salt, 16);
    assert_true(first.session_hash == fake.last.session_hash);
    expect("abc", 5, ",\"cache_salt\":\"s\"", 200, NULL);
    assert_memory_not_equal(first.cache_salt, fake.last.cache_salt, 16);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_auth_every_path_and_method_wants_a_key),
        T(test_auth_options_for_it),
        T(test_auth_what_is_no_key_is_401),
        T(test_auth_refuses_before_the_body),
        T(test_auth_limits_are_told_and_kept),
        T(test_auth_counts_what_the_router_answers_itself),
        T(test_auth_what_runs_nowhere_takes_no_place),
        T(test_auth_concurrency_ends_with_the_request),
        T(test_auth_priority_and_pool_are_the_keys),
        T(test_auth_keys_share_no_cache_and_no_session),
    };
    return cmocka_run_group_tests(tests, NULL, group_teardown);
}
