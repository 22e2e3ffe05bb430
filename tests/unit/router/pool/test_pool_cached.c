/* What workers say of their caches decides where a prompt goes: hashes as the workers make them. */
#include "runtime/base/blockhash.h"
#include "tests/unit/router/pool/pool_world.h"

#define PAGE 16 /* pool_world.h's workers */
#define PROMPT 1000
#define ADAPTER "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static uint32_t prompt[PROMPT];
static const uint8_t no_salt[BLOCKHASH_SALT_BYTES];

static void open_world(struct world *w)
{
    static const struct pool_model models[] = {
        {.name = "m", .manifest_sha256 = MANIFEST, .vocab = VOCAB},
        {.name = "adapted",
         .manifest_sha256 = MANIFEST,
         .vocab = VOCAB,
         .adapter_sha256 = ADAPTER,
         .base = 0},
    };
    struct pool_config c = world_config();
    c.models = models;
    c.policy = policy_find("predicted");
    c.prefix_index_bytes = 1 << 20;
    world_init(w, &c);
    for (uint32_t i = 0; i < PROMPT; i++)
        prompt[i] = (i * 31 + 7) % VOCAB;
    for (uint64_t s = 1; s <= 4; s++) {
        char id[] = "w0";
        id[1] = (char)('0' + s);
        event_opened(w, s);
        event_hello(w, (struct hello){.stream = s, .id = id, .epoch = 1, .adapter = ADAPTER});
    }
}

/* The worker tells of the first n blocks of `tokens`. */
static void tell_cached(struct world *w, uint64_t stream, const char *root, const uint8_t *salt,
                        const uint32_t *tokens, uint32_t n, bool evicted)
{
    uint64_t hashes[PROMPT / PAGE];
    uint64_t h = blockhash_root(root, salt);
    for (uint32_t i = 0; i < n; i++)
        hashes[i] = h = blockhash_next(h, tokens + (size_t)i * PAGE, PAGE);
    Argosy__CacheEvents events = ARGOSY__CACHE_EVENTS__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    if (evicted) {
        events.evicted = hashes;
        events.n_evicted = n;
    } else {
        events.stored = hashes;
        events.n_stored = n;
    }
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS;
    f.cache_events = &events;
    event_frame(w, stream, &f);
}

/* How many of 40 requests go to `stream`, each ended before the next. */
static int runs_at(struct world *w, const char *model, const uint8_t *salt, uint64_t stream)
{
    struct err e = {0};
    int n = 0;
    for (int i = 0; i < 40; i++) {
        struct client c = client_of(8);
        c.request.model = model;
        c.request.prompt = prompt;
        c.request.n_prompt = PROMPT;
        memcpy(c.request.cache_salt, salt, sizeof(c.request.cache_salt));
        assert_true(client_start(w, &c, &e));
        n += last_sent(w, SENT_START, 0)->stream == stream;
        pool_cancel(c.gen);
    }
    return n;
}

static void test_a_prompt_goes_to_who_has_it(void **state)
{
    (void)state;
    struct world w;
    open_world(&w);
    assert_in_range(runs_at(&w, "m", no_salt, 3), 1, 30); /* by lot */
    tell_cached(&w, 3, MANIFEST, no_salt, prompt, 40, false);
    assert_int_equal(runs_at(&w, "m", no_salt, 3), 40);
    /* More is better. */
    tell_cached(&w, 2, MANIFEST, no_salt, prompt, 60, false);
    assert_int_equal(runs_at(&w, "m", no_salt, 2), 40);
    tell_cached(&w, 2, MANIFEST, no_salt, prompt, 60, true);
    assert_int_equal(runs_at(&w, "m", no_salt, 3), 40);
    event_closed(&w, 3);
    assert_in_range(runs_at(&w, "m", no_salt, 2), 1, 39);
    world_release(&w);
}

static void test_salt_and_adapter_are_apart(void **state)
{
    (void)state;
    static const uint8_t salt[BLOCKHASH_SALT_BYTES] = {1, 2, 3};
    struct world w;
    open_world(&w);
    tell_cached(&w, 1, MANIFEST, no_salt, prompt, 60, false);
    tell_cached(&w, 2, MANIFEST, salt, prompt, 60, false);
    tell_cached(&w, 3, MANIFEST ":" ADAPTER, no_salt, prompt, 60, false);
    assert_int_equal(runs_at(&w, "m", no_salt, 1), 40);
    assert_int_equal(runs_at(&w, "m", salt, 2), 40);
    assert_int_equal(runs_at(&w, "adapted", no_salt, 3), 40);
    assert_in_range(runs_at(&w, "adapted", salt, 3), 1, 30);
    world_release(&w);
}

/* A worker may have as many blocks as it has pages, on its GPU and on the host. */
static void test_blocks_on_the_host_count(void **state)
{
    (void)state;
    for (uint32_t host_pages = 0; host_pages <= 40; host_pages += 40) {
        struct world w;
        Argosy__ModelLoad model = ARGOSY__MODEL_LOAD__INIT, *models = &model;
        Argosy__Load load = ARGOSY__LOAD__INIT;
        Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
        open_world(&w);
        model.kv_pages = 30;
        model.kv_host_pages = host_pages;
        load.models = &models;
        load.n_models = 1;
        f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
        f.load = &load;
        event_frame(&w, 3, &f);
        tell_cached(&w, 3, MANIFEST, no_salt, prompt, 60, false);
        tell_cached(&w, 2, MANIFEST, no_salt, prompt, 40, false);
        assert_int_equal(runs_at(&w, "m", no_salt, host_pages > 0 ? 3 : 2), 40);
        world_release(&w);
    }
}

/* A stream that moves is looked up with the tokens that are out. */
static void test_what_is_out_counts_too(void **state)
{
    (void)state;
    struct world w;
    struct err e = {0};
    uint32_t whole[PROMPT + 8];
    open_world(&w);
    struct client c = client_of(200);
    c.request.prompt = prompt;
    c.request.n_prompt = PROMPT;
    tell_cached(&w, 1, MANIFEST, no_salt, prompt, 62, false);
    assert_true(client_start(&w, &c, &e));
    assert_int_equal(last_sent(&w, SENT_START, 0)->stream, 1);
    event_tokens(&w, 1, last_sent(&w, SENT_START, 0)->request, 0, 100, ARGOSY__FINISH__FINISH_NONE);
    /* 1000 = 62 * 16 + 8: block 63 begins in the prompt and ends in the output. */
    memcpy(whole, prompt, sizeof(prompt));
    for (uint32_t i = 0; i < 8; i++)
        whole[PROMPT + i] = token_at(i);
    for (uint64_t s = 2; s <= 4; s++)
        tell_cached(&w, s, MANIFEST, no_salt, prompt, 62, false);
    uint64_t last = blockhash_root(MANIFEST, no_salt);
    for (uint32_t i = 0; i < 63; i++)
        last = blockhash_next(last, whole + (size_t)i * PAGE, PAGE);
    Argosy__CacheEvents events = ARGOSY__CACHE_EVENTS__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    events.stored = &last;
    events.n_stored = 1;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS;
    f.cache_events = &events;
    event_frame(&w, 4, &f);
    event_closed(&w, 1);
    assert_int_equal(last_sent(&w, SENT_START, 0)->stream, 4);
    assert_int_equal(last_sent(&w, SENT_START, 0)->n_output, 100);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_prompt_goes_to_who_has_it),
        cmocka_unit_test(test_salt_and_adapter_are_apart),
        cmocka_unit_test(test_blocks_on_the_host_count),
        cmocka_unit_test(test_what_is_out_counts_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
