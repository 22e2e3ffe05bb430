/* Workers that attach and leave, requests that are picked, refused, cancelled, and frames that are
 * not what they should be. */
#include <math.h>

#include "tests/unit/router/pool/pool_world.h"

static uint32_t ready(const struct world *w)
{
    return pool_workers_ready(w->pool, "m");
}

static void test_workers_join_and_leave(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    assert_int_equal(ready(&w), 0);
    assert_int_equal(pool_context_tokens(w.pool, "m"), 0);
    join(&w, 1, "a", 1);
    join(&w, 2, "b", 1);
    assert_int_equal(ready(&w), 2);
    assert_int_equal(pool_workers_ready(w.pool, "other"), 0);
    assert_int_equal(pool_context_tokens(w.pool, "m"), CONTEXT);
    assert_string_equal(last_sent(&w, SENT_WELCOME, 1)->refused, "");
    event_closed(&w, 1);
    assert_int_equal(ready(&w), 1);
    event_closed(&w, 1);
    event_closed(&w, 77);
    assert_int_equal(ready(&w), 1);
    assert_int_equal(pool_totals(w.pool).workers, 1);
    world_release(&w);
}

static void assert_refused(struct hello h, const char *words)
{
    struct world w;
    world_init(&w, NULL);
    h.stream = 1;
    h.id = h.id ? h.id : "a";
    event_opened(&w, 1);
    event_hello(&w, h);
    assert_int_equal(ready(&w), 0);
    const struct sent *welcome = last_sent(&w, SENT_WELCOME, 1);
    if (!welcome || !strstr(welcome->refused, words))
        fail_msg("'%s' is not in '%s'", words, welcome ? welcome->refused : "(nothing)");
    assert_non_null(last_sent(&w, SENT_CLOSE, 1));
    world_release(&w);
}

static void test_hello_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    assert_refused((struct hello){.protocol = 99}, "protocol");
    assert_refused((struct hello){.id = "a b"}, "worker id");
    assert_refused((struct hello){.id = ""}, "worker id");
    assert_refused((struct hello){.id = "../../etc"}, "worker id");
    assert_refused((struct hello){.manifest = "bbbb"}, "manifest");
    assert_refused((struct hello){.model = "unknown"}, "none of its models");
    assert_refused((struct hello){.sequences_max = 1000000}, "sequences_max");
}

static void test_first_frame_must_be_hello(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    event_opened(&w, 1);
    event_load(&w, 1, false);
    assert_non_null(last_sent(&w, SENT_CLOSE, 1));
    event_hello(&w, (struct hello){.stream = 1, .id = "a", .epoch = 1});
    assert_int_equal(ready(&w), 0);
    /* And it must come within ten seconds. */
    event_opened(&w, 2);
    pass_ms(&w, 9999);
    assert_null(last_sent(&w, SENT_CLOSE, 2));
    pass_ms(&w, 2);
    assert_non_null(last_sent(&w, SENT_CLOSE, 2));
    world_release(&w);
}

static void test_hello_twice_closes(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    event_hello(&w, (struct hello){.stream = 1, .id = "b", .epoch = 2});
    assert_int_equal(ready(&w), 0);
    assert_non_null(last_sent(&w, SENT_CLOSE, 1));
    world_release(&w);
}

static void test_pool_refuses_when_full_of_workers(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    for (uint64_t s = 1; s <= 8; s++)
        event_opened(&w, s);
    assert_int_equal(count_sent(&w, SENT_CLOSE, 0), 0);
    event_opened(&w, 9);
    assert_int_equal(count_sent(&w, SENT_CLOSE, 9), 1);
    event_closed(&w, 3);
    join(&w, 10, "a", 1);
    assert_int_equal(ready(&w), 1);
    world_release(&w);
}

static void test_higher_epoch_wins(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    join(&w, 1, "a", 5);
    join(&w, 2, "a", 5);
    assert_true(strstr(last_sent(&w, SENT_WELCOME, 2)->refused, "epoch") != NULL);
    assert_non_null(last_sent(&w, SENT_CLOSE, 2));
    join(&w, 3, "a", 4);
    assert_non_null(last_sent(&w, SENT_CLOSE, 3));
    assert_null(last_sent(&w, SENT_CLOSE, 1));
    join(&w, 4, "a", 6);
    assert_string_equal(last_sent(&w, SENT_WELCOME, 4)->refused, "");
    assert_non_null(last_sent(&w, SENT_CLOSE, 1));
    assert_int_equal(ready(&w), 1);
    world_release(&w);
}

static void test_tokens_reach_the_client_in_order(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    assert_string_equal(gen_worker_id(c.gen), "a");
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    struct delta first = {.request = request, .index = 0, .n = 1, .cached = 8};
    event_step(&w, 1, &first, 1);
    event_tokens(&w, 1, request, 1, 3, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 4);
    /* Again, and overlapping: dropped where it is known. */
    event_tokens(&w, 1, request, 1, 3, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 4);
    event_tokens(&w, 1, request, 2, 4, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 6);
    event_tokens(&w, 1, request, 6, 1, ARGOSY__FINISH__FINISH_STOP);
    assert_int_equal(c.finished, 1);
    assert_int_equal(c.why, GEN_STOP);
    assert_int_equal(c.usage.output_tokens, 7);
    assert_int_equal(c.usage.prompt_tokens, 16);
    assert_int_equal(c.usage.cached_tokens, 8);
    /* It is over: whatever comes is ignored. */
    event_tokens(&w, 1, request, 7, 1, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 7);
    assert_int_equal(ready(&w), 1);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

/* The worker is closed, and the generation goes on at the other one as if nothing had been. */
static void assert_fault(struct delta d)
{
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    c.request.logprobs = d.n_logprobs > 0;
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    d.request = last_sent(&w, SENT_START, 1)->request;
    if (!c.request.logprobs)
        event_tokens(&w, 1, d.request, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    event_step(&w, 1, &d, 1);
    assert_int_equal(c.n, c.request.logprobs ? 0 : 3);
    assert_int_equal(count_sent(&w, SENT_CLOSE, 1), 1);
    assert_int_equal(ready(&w), 1);
    struct sent *again = last_sent(&w, SENT_START, 2);
    assert_non_null(again);
    assert_int_equal(again->n_output, c.n);
    world_release(&w);
}

static void test_step_that_does_not_fit_is_the_workers_fault(void **state)
{
    (void)state;
    static const uint32_t beyond[] = {VOCAB};
    static const uint32_t changed[] = {7};
    assert_fault((struct delta){.index = 4, .n = 1});
    assert_fault((struct delta){.index = UINT32_MAX, .n = 2});
    assert_fault((struct delta){.index = 3, .n = 8});
    assert_fault((struct delta){.index = 3, .n = 1, .tokens = beyond});
    assert_fault((struct delta){.index = 2, .n = 1, .tokens = changed});
    assert_fault((struct delta){.index = 3, .n = 0});
    assert_fault((struct delta){.index = 0, .n = 2, .n_logprobs = 1});
}

static void test_requests_of_others_are_ignored(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    event_tokens(&w, 2, request, 0, 3, ARGOSY__FINISH__FINISH_STOP);
    event_tokens(&w, 1, request + (1u << 20), 0, 3, ARGOSY__FINISH__FINISH_NONE);
    event_tokens(&w, 1, UINT64_MAX, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    event_tokens(&w, 1, 0, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    event_refused(&w, 2, request, ARGOSY__REFUSED_REASON__REFUSED_INVALID, 0);
    assert_int_equal(c.n + c.finished + c.failed, 0);
    assert_int_equal(ready(&w), 2);
    world_release(&w);
}

static void test_logprobs_are_handed_on(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    c.request.logprobs = true;
    c.request.top_logprobs = 1;
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    struct delta d = {.request = last_sent(&w, SENT_START, 1)->request, .n = 4, .n_logprobs = 4};
    event_step(&w, 1, &d, 1);
    assert_int_equal(c.n, 4);
    assert_int_equal(c.n_logprobs, 4);
    world_release(&w);
}

static void test_inflight_counts_at_once_and_goes_back(void **state)
{
    (void)state;
    struct world w;
    struct client c[4] = {client_of(10), client_of(10), client_of(10), client_of(10)};
    struct pool_config config = world_config();
    config.policy = policy_find("least_load");
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    join(&w, 2, "b", 1);
    for (int i = 0; i < 4; i++)
        assert_true(client_start(&w, &c[i], NULL));
    assert_int_equal(count_sent(&w, SENT_START, 1), 2);
    assert_int_equal(count_sent(&w, SENT_START, 2), 2);
    assert_int_equal(pool_totals(w.pool).inflight, 4);
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    event_tokens(&w, 1, request, 0, 1, ARGOSY__FINISH__FINISH_STOP);
    assert_int_equal(pool_totals(w.pool).inflight, 3);
    for (int i = 0; i < 4; i++)
        if (!c[i].finished)
            pool_cancel(c[i].gen);
    assert_int_equal(pool_totals(w.pool).inflight, 0);
    assert_int_equal(count_sent(&w, SENT_CANCEL, 0), 3);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

static void test_full_worker_gets_no_more(void **state)
{
    (void)state;
    struct world w;
    struct err e;
    struct client c[13];
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    /* 8 that run and 4 that queue there. */
    for (int i = 0; i < 13; i++) {
        c[i] = client_of(10);
        assert_int_equal(client_start(&w, &c[i], &e), i < 12);
    }
    assert_int_equal(c[12].fault, GEN_FAULT_BUSY);
    pool_cancel(c[0].gen);
    assert_true(client_start(&w, &c[12], &e));
    world_release(&w);
}

static void test_pool_refuses_when_full_of_generations(void **state)
{
    (void)state;
    struct world w;
    struct err e;
    struct client c[3] = {client_of(4), client_of(4), client_of(4)};
    struct pool_config config = world_config();
    config.gens_max = 2;
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c[0], &e));
    assert_true(client_start(&w, &c[1], &e));
    assert_false(client_start(&w, &c[2], &e));
    assert_int_equal(c[2].fault, GEN_FAULT_BUSY);
    world_release(&w);
}

static void test_request_that_cannot_be_sent_is_refused(void **state)
{
    (void)state;
    struct world w;
    struct err e;
    struct client c = client_of(CONTEXT);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_false(client_start(&w, &c, &e));
    assert_int_equal(c.fault, GEN_FAULT_INVALID);
    c = client_of(10);
    c.request.n_stop = 65;
    assert_false(client_start(&w, &c, &e));
    assert_int_equal(c.fault, GEN_FAULT_INVALID);
    c = client_of(10);
    c.request.sampling.temperature = NAN;
    assert_false(client_start(&w, &c, &e));
    assert_int_equal(c.fault, GEN_FAULT_INVALID);
    c = client_of(10);
    c.request.model = "nobody's";
    assert_false(client_start(&w, &c, &e));
    assert_int_equal(c.fault, GEN_FAULT_NO_WORKER);
    world_release(&w);
}

static void test_refused_is_tried_elsewhere(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    join(&w, 2, "b", 1);
    assert_true(client_start(&w, &c, NULL));
    struct sent *first = last_sent(&w, SENT_START, 0);
    event_refused(&w, first->stream, first->request, ARGOSY__REFUSED_REASON__REFUSED_FULL, 700);
    struct sent *second = last_sent(&w, SENT_START, 0);
    assert_int_equal(count_sent(&w, SENT_START, 0), 2);
    assert_int_not_equal(first->stream, second->stream);
    /* The old number is void. */
    event_tokens(&w, first->stream, first->request, 0, 1, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 0);
    event_refused(&w, second->stream, second->request, ARGOSY__REFUSED_REASON__REFUSED_FULL, 900);
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.fault, GEN_FAULT_BUSY);
    assert_int_equal(c.retry_after_ms, 700);
    assert_int_equal(pool_totals(w.pool).refused, 2);
    world_release(&w);
}

static void test_invalid_is_not_tried_elsewhere(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    join(&w, 2, "b", 1);
    assert_true(client_start(&w, &c, NULL));
    struct sent *s = last_sent(&w, SENT_START, 0);
    event_refused(&w, s->stream, s->request, ARGOSY__REFUSED_REASON__REFUSED_INVALID, 0);
    assert_int_equal(c.fault, GEN_FAULT_INVALID);
    assert_int_equal(count_sent(&w, SENT_START, 0), 1);
    world_release(&w);
}

static void test_cancel_in_a_callback(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    struct client other = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    assert_true(client_start(&w, &other, NULL));
    uint64_t request_of_other = last_sent(&w, SENT_START, 1)->request;
    c.cancel_at = 2;
    c.cancel_other = &other;
    struct delta d[] = {{.request = request, .n = 2, .finish = ARGOSY__FINISH__FINISH_LENGTH},
                        {.request = request_of_other, .n = 1}};
    event_step(&w, 1, d, 2);
    assert_int_equal(c.n, 2);
    assert_int_equal(c.finished, 0);
    assert_int_equal(other.n, 0);
    assert_int_equal(count_sent(&w, SENT_CANCEL, 1), 2);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

static void test_cancel_in_the_last_callback_is_nothing(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    struct client d = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    c.cancel_when_over = d.cancel_when_over = true;
    assert_true(client_start(&w, &c, NULL));
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 1, ARGOSY__FINISH__FINISH_STOP);
    assert_true(client_start(&w, &d, NULL));
    event_refused(&w, 1, last_sent(&w, SENT_START, 1)->request,
                  ARGOSY__REFUSED_REASON__REFUSED_INVALID, 0);
    assert_int_equal(c.finished + d.failed, 2);
    assert_int_equal(count_sent(&w, SENT_CANCEL, 1), 0);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

/* The next generation gets the place of the last one, but never its number. */
static void test_late_frames_reach_nobody_else(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    struct client next = client_of(10);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    pool_cancel(c.gen);
    assert_true(client_start(&w, &next, NULL));
    event_tokens(&w, 1, request, 0, 2, ARGOSY__FINISH__FINISH_STOP);
    assert_int_equal(next.n + next.finished, 0);
    world_release(&w);
}

static void test_start_in_a_callback(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    struct client next = client_of(5);
    struct client last = client_of(5);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    c.start_other = &next;
    next.start_other = &last;
    assert_true(client_start(&w, &c, NULL));
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 1, ARGOSY__FINISH__FINISH_STOP);
    assert_int_equal(c.finished, 1);
    event_refused(&w, 1, last_sent(&w, SENT_START, 1)->request,
                  ARGOSY__REFUSED_REASON__REFUSED_INVALID, 0);
    assert_int_equal(next.failed, 1);
    assert_int_equal(count_sent(&w, SENT_START, 1), 3);
    world_release(&w);
}

static void test_deadline_cancels_and_fails(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    struct client waits = client_of(10);
    struct pool_config config = world_config();
    config.lease_ms = 1000000;
    world_init(&w, &config);
    c.request.deadline_ms = 3000;
    waits.request.deadline_ms = 2000;
    waits.request.model = "other";
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    assert_true(client_start(&w, &waits, NULL));
    assert_int_equal(last_sent(&w, SENT_START, 1)->deadline_ms, 3000);
    pass_ms(&w, 2001);
    assert_int_equal(waits.fault, GEN_FAULT_DEADLINE);
    assert_int_equal(waits.failed, 1);
    assert_int_equal(c.failed, 0);
    pass_ms(&w, 1000);
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.fault, GEN_FAULT_DEADLINE);
    assert_int_equal(count_sent(&w, SENT_CANCEL, 1), 1);
    world_release(&w);
}

/* ---- embeddings ----------------------------------------------------------------------------- */

static const float vector[3] = {1, -2, 0.5f};

static void start_embedding(struct world *w, struct client *c, enum gen_pooling pooling)
{
    world_init(w, NULL);
    join(w, 1, "a", 1);
    *c = client_of(1);
    c->request.pooling = pooling;
    assert_true(client_start(w, c, NULL));
}

/* A worker that goes takes nothing with it: the next one starts over. */
static void test_embedding_comes_from_the_next_worker(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    start_embedding(&w, &c, GEN_MEAN);
    assert_int_equal(last_sent(&w, SENT_START, 1)->pooling, ARGOSY__POOLING__POOLING_MEAN);
    join(&w, 2, "b", 1);
    event_closed(&w, 1);
    const struct sent *again = last_sent(&w, SENT_START, 2);
    assert_non_null(again);
    assert_int_equal(again->pooling, ARGOSY__POOLING__POOLING_MEAN);
    assert_int_equal(again->n_output, 0);
    struct delta d = {.request = again->request,
                      .finish = ARGOSY__FINISH__FINISH_STOP,
                      .embedding = vector,
                      .n_embedding = 3};
    event_step(&w, 2, &d, 1);
    assert_int_equal(c.finished, 1);
    assert_int_equal(c.n_embedding, 3);
    assert_memory_equal(c.embedding, vector, sizeof(vector));
    assert_string_equal(c.embedded_by, "b");
    assert_int_equal(c.usage.prompt_tokens, 16);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

static void expect_embedding_fault(struct delta d)
{
    struct world w;
    struct client c;
    start_embedding(&w, &c, GEN_LAST);
    d.request = last_sent(&w, SENT_START, 1)->request;
    event_step(&w, 1, &d, 1);
    assert_int_equal(count_sent(&w, SENT_CLOSE, 1), 1);
    assert_int_equal(c.finished, 0);
    world_release(&w);
}

static void test_worker_that_gives_no_embedding_is_closed(void **state)
{
    (void)state;
    expect_embedding_fault((struct delta){.finish = ARGOSY__FINISH__FINISH_STOP});
    expect_embedding_fault((struct delta){.finish = ARGOSY__FINISH__FINISH_LENGTH});
    expect_embedding_fault((struct delta){.n = 1, .finish = ARGOSY__FINISH__FINISH_LENGTH});
    expect_embedding_fault((struct delta){.n = 1, .embedding = vector, .n_embedding = 3});
}

/* ---- adapters ------------------------------------------------------------------------------- */

static void attach_with(struct world *w, uint64_t stream, const char *id, const char *adapter)
{
    event_opened(w, stream);
    event_hello(w, (struct hello){.stream = stream, .id = id, .epoch = 1, .adapter = adapter});
}

/* Only workers with the very same files serve it, whatever they call it. */
static void test_adapter_runs_where_it_is(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10), plain = client_of(10);
    const struct pool_model models[] = {
        {.name = "m", .manifest_sha256 = MANIFEST, .vocab = VOCAB},
        {.name = "tuned", .manifest_sha256 = MANIFEST, .vocab = VOCAB, .adapter_sha256 = "ad1"}};
    struct pool_config config = world_config();
    config.models = models;
    world_init(&w, &config);
    attach_with(&w, 1, "none", NULL);
    attach_with(&w, 2, "another", "ad2");
    assert_int_equal(ready(&w), 2);
    assert_int_equal(pool_workers_ready(w.pool, "tuned"), 0);
    attach_with(&w, 3, "it", "ad1");
    attach_with(&w, 4, "it-too", "AD1");
    assert_int_equal(pool_workers_ready(w.pool, "tuned"), 2);
    assert_int_equal(pool_context_tokens(w.pool, "tuned"), CONTEXT);
    c.request.model = "tuned";
    assert_true(client_start(&w, &c, NULL));
    const char *first = gen_worker_id(c.gen);
    uint64_t at = strcmp(first, "it") == 0 ? 3 : 4;
    assert_true(at == 3 || strcmp(first, "it-too") == 0);
    const struct sent *s = last_sent(&w, SENT_START, at);
    assert_string_equal(s->model, "m");
    assert_string_equal(s->adapter, "ad1");
    /* It moves to the other one that has it, past those that have not. */
    event_closed(&w, at);
    s = last_sent(&w, SENT_START, 7 - at);
    assert_non_null(s);
    assert_string_equal(s->adapter, "ad1");
    assert_true(client_start(&w, &plain, NULL));
    uint64_t of_plain = strcmp(gen_worker_id(plain.gen), "none") == 0      ? 1
                        : strcmp(gen_worker_id(plain.gen), "another") == 0 ? 2
                                                                           : 7 - at;
    assert_string_equal(last_sent(&w, SENT_START, of_plain)->adapter, "");
    pool_cancel(c.gen);
    pool_cancel(plain.gen);
    world_release(&w);
}

/* A worker cannot offer an adapter of ours under its name as if it were a model. */
static void test_adapter_is_no_model_of_a_worker(void **state)
{
    (void)state;
    struct world w;
    const struct pool_model models[] = {
        {.name = "m", .manifest_sha256 = MANIFEST, .vocab = VOCAB},
        {.name = "tuned", .manifest_sha256 = MANIFEST, .vocab = VOCAB, .adapter_sha256 = "ad1"}};
    struct pool_config config = world_config();
    config.models = models;
    world_init(&w, &config);
    event_opened(&w, 1);
    event_hello(&w, (struct hello){.stream = 1, .id = "a", .epoch = 1, .model = "tuned"});
    assert_non_null(strstr(last_sent(&w, SENT_WELCOME, 1)->refused, "none of its models"));
    world_release(&w);
}

/* ---- workers with several models --------------------------------------------------------------
 */

struct offered {
    const char *name, *manifest;
    Argosy__ModelState state;
};

static void attach_models(struct world *w, uint64_t stream, const char *id,
                          const struct offered *models, size_t n)
{
    Argosy__ModelOffer offers[4], *list[4];
    Argosy__Hello hello = ARGOSY__HELLO__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    for (size_t i = 0; i < n; i++) {
        argosy__model_offer__init(&offers[i]);
        offers[i].name = (char *)models[i].name;
        offers[i].manifest_sha256 = (char *)(models[i].manifest ? models[i].manifest : MANIFEST);
        offers[i].context_tokens = CONTEXT;
        offers[i].state = models[i].state;
        offers[i].kv_pages = 50;
        list[i] = &offers[i];
    }
    hello.worker_id = (char *)id;
    hello.epoch = 1;
    hello.protocol = RPC_PROTOCOL_VERSION;
    hello.models = list;
    hello.n_models = n;
    hello.kv_pages = 50;
    hello.page_tokens = 16;
    hello.sequences_max = 8;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_HELLO;
    f.hello = &hello;
    event_opened(w, stream);
    event_frame(w, stream, &f);
}

static void event_states(struct world *w, uint64_t stream, const Argosy__ModelState *states,
                         size_t n)
{
    Argosy__ModelLoad loads[4], *list[4];
    Argosy__Load load = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    for (size_t i = 0; i < n; i++) {
        argosy__model_load__init(&loads[i]);
        loads[i].state = states[i];
        loads[i].kv_pages = states[i] == ARGOSY__MODEL_STATE__MODEL_LOADED ? 50 : 0;
        loads[i].kv_pages_used = loads[i].kv_pages / 2;
        load.kv_pages_used += loads[i].kv_pages_used;
        list[i] = &loads[i];
    }
    load.models = list;
    load.n_models = n;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &load;
    event_frame(w, stream, &f);
}

static void start_at(struct world *w, struct client *c, const char *model, const char *worker)
{
    c->request.model = model;
    assert_true(client_start(w, c, NULL));
    assert_string_equal(gen_worker_id(c->gen), worker);
}

#define LOADED ARGOSY__MODEL_STATE__MODEL_LOADED
#define UNLOADED ARGOSY__MODEL_STATE__MODEL_UNLOADED
#define GONE ARGOSY__MODEL_STATE__MODEL_GONE

static void count_pages(void *ctx, const struct pool_worker_view *v)
{
    uint32_t *sum = ctx;
    sum[0] += v->kv_pages;
    sum[1] += v->kv_pages_used;
}

static void test_request_goes_where_its_model_is_loaded(void **state)
{
    (void)state;
    static const struct offered of_a[] = {{"m", NULL, LOADED}, {"other", NULL, UNLOADED}};
    static const struct offered of_b[] = {{"other", NULL, LOADED}, {"m", NULL, UNLOADED}};
    struct world w;
    struct client c[6];
    uint32_t pages[2] = {0};
    world_init(&w, NULL);
    attach_models(&w, 1, "a", of_a, 2);
    attach_models(&w, 2, "b", of_b, 2);
    for (int i = 0; i < 6; i++)
        c[i] = client_of(10);
    for (int i = 0; i < 2; i++) {
        start_at(&w, &c[i], "m", "a");
        start_at(&w, &c[2 + i], "other", "b");
    }
    /* They change places. */
    event_states(&w, 1, (const Argosy__ModelState[]){UNLOADED, LOADED}, 2);
    event_states(&w, 2, (const Argosy__ModelState[]){UNLOADED, LOADED}, 2);
    start_at(&w, &c[4], "m", "b");
    start_at(&w, &c[5], "other", "a");
    pool_each_worker(w.pool, count_pages, pages);
    assert_int_equal(pages[0], 100);
    assert_int_equal(pages[1], 50);
    for (int i = 0; i < 6; i++)
        pool_cancel(c[i].gen);
    world_release(&w);
}

static void test_model_that_is_gone_is_offered_no_more(void **state)
{
    (void)state;
    static const struct offered both[] = {{"m", NULL, LOADED}, {"other", NULL, UNLOADED}};
    struct world w;
    struct client c = client_of(10), late = client_of(10);
    world_init(&w, NULL);
    attach_models(&w, 1, "a", both, 2);
    attach_models(&w, 2, "b", both, 2);
    assert_int_equal(pool_workers_ready(w.pool, "other"), 2);
    c.request.model = "other";
    assert_true(client_start(&w, &c, NULL));
    uint64_t at = strcmp(gen_worker_id(c.gen), "a") == 0 ? 1 : 2;
    /* Its worker finds out that it can't: the other one gets it. */
    event_refused(&w, at, last_sent(&w, SENT_START, at)->request,
                  ARGOSY__REFUSED_REASON__REFUSED_MODEL, 0);
    event_states(&w, at, (const Argosy__ModelState[]){LOADED, GONE}, 2);
    assert_int_equal(pool_workers_ready(w.pool, "other"), 1);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 2);
    assert_int_equal(last_sent(&w, SENT_START, 0)->stream, 3 - at);
    event_states(&w, 3 - at, (const Argosy__ModelState[]){LOADED, GONE}, 2);
    assert_int_equal(pool_workers_ready(w.pool, "other"), 0);
    assert_int_equal(pool_context_tokens(w.pool, "other"), 0);
    late.request.model = "m";
    assert_true(client_start(&w, &late, NULL));
    pool_cancel(c.gen);
    pool_cancel(late.gen);
    world_release(&w);
}

/* It loses a rank or its memory while it answers: tokens that came stand, the rest comes from
 * another worker. */
static void test_model_that_is_lost_moves_its_streams(void **state)
{
    (void)state;
    static const struct offered both[] = {{"m", NULL, LOADED}, {"other", NULL, LOADED}};
    struct world w;
    struct client c = client_of(10);
    world_init(&w, NULL);
    attach_models(&w, 1, "a", both, 2);
    start_at(&w, &c, "other", "a");
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    attach_models(&w, 2, "b", both, 2);
    event_states(&w, 1, (const Argosy__ModelState[]){LOADED, GONE}, 2);
    event_refused(&w, 1, last_sent(&w, SENT_START, 1)->request,
                  ARGOSY__REFUSED_REASON__REFUSED_MODEL, 0);
    const struct sent *s = last_sent(&w, SENT_START, 2);
    assert_non_null(s);
    assert_int_equal(s->n_output, 3);
    event_tokens(&w, 2, s->request, 3, 7, ARGOSY__FINISH__FINISH_LENGTH);
    assert_int_equal(c.n, 10);
    assert_int_equal(c.finished, 1);
    world_release(&w);
}

static struct policy_worker seen;

static uint32_t pick_and_see(void *state, const struct policy_snapshot *s,
                             const struct policy_request *r, struct rng *rng)
{
    (void)state, (void)r, (void)rng;
    seen = *s->workers[0];
    return 0;
}

/* A step of one model says nothing of the other's speed. */
static void test_policies_see_the_models_own_numbers(void **state)
{
    (void)state;
    static const struct policy seeing = {.name = "seeing", .pick = pick_and_see};
    static const struct offered both[] = {{"m", NULL, LOADED}, {"other", NULL, UNLOADED}};
    struct pool_config config = world_config();
    struct world w;
    struct client quick = client_of(100), slow = client_of(100), late = client_of(10);
    config.policy = &seeing;
    world_init(&w, &config);
    attach_models(&w, 1, "a", both, 2);
    start_at(&w, &quick, "m", "a");
    assert_true(seen.loaded);
    assert_int_equal(seen.kv_pages, 50);
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    for (uint32_t i = 0; i < 50; i++) /* of 1 ms */
        event_tokens(&w, 1, request, i, 1, ARGOSY__FINISH__FINISH_NONE);
    start_at(&w, &slow, "other", "a");
    assert_false(seen.loaded);
    assert_true(seen.rates.decode_tokens_per_s == 0);
    event_states(&w, 1, (const Argosy__ModelState[]){LOADED, LOADED}, 2);
    start_at(&w, &late, "m", "a");
    assert_true(seen.rates.decode_tokens_per_s > 900 && seen.rates.decode_tokens_per_s < 1100);
    assert_int_equal(seen.kv_pages_used, 25);
    pool_cancel(quick.gen);
    pool_cancel(slow.gen);
    pool_cancel(late.gen);
    world_release(&w);
}

/* One model's file differs from the router's: the others are as good as ever. */
static void test_one_other_manifest_keeps_the_rest(void **state)
{
    (void)state;
    static const struct offered models[] = {{"m", "bbbb", LOADED}, {"other", NULL, LOADED}};
    struct world w;
    world_init(&w, NULL);
    attach_models(&w, 1, "a", models, 2);
    assert_string_equal(last_sent(&w, SENT_WELCOME, 1)->refused, "");
    assert_int_equal(pool_workers_ready(w.pool, "m"), 0);
    assert_int_equal(pool_workers_ready(w.pool, "other"), 1);
    world_release(&w);
}

/* A model twice, gone or not, is taken once. */
static void test_models_offered_twice_are_taken_once(void **state)
{
    (void)state;
    static const struct offered models[] = {
        {"m", NULL, GONE}, {"m", NULL, LOADED}, {"m", NULL, LOADED}, {"m", NULL, LOADED}};
    struct world w;
    world_init(&w, NULL);
    attach_models(&w, 1, "a", models, 4);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 0);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_join_and_leave),
        cmocka_unit_test(test_hello_that_does_not_fit_is_refused),
        cmocka_unit_test(test_first_frame_must_be_hello),
        cmocka_unit_test(test_hello_twice_closes),
        cmocka_unit_test(test_pool_refuses_when_full_of_workers),
        cmocka_unit_test(test_higher_epoch_wins),
        cmocka_unit_test(test_tokens_reach_the_client_in_order),
        cmocka_unit_test(test_step_that_does_not_fit_is_the_workers_fault),
        cmocka_unit_test(test_requests_of_others_are_ignored),
        cmocka_unit_test(test_logprobs_are_handed_on),
        cmocka_unit_test(test_inflight_counts_at_once_and_goes_back),
        cmocka_unit_test(test_full_worker_gets_no_more),
        cmocka_unit_test(test_pool_refuses_when_full_of_generations),
        cmocka_unit_test(test_request_that_cannot_be_sent_is_refused),
        cmocka_unit_test(test_refused_is_tried_elsewhere),
        cmocka_unit_test(test_invalid_is_not_tried_elsewhere),
        cmocka_unit_test(test_cancel_in_a_callback),
        cmocka_unit_test(test_cancel_in_the_last_callback_is_nothing),
        cmocka_unit_test(test_late_frames_reach_nobody_else),
        cmocka_unit_test(test_start_in_a_callback),
        cmocka_unit_test(test_deadline_cancels_and_fails),
        cmocka_unit_test(test_embedding_comes_from_the_next_worker),
        cmocka_unit_test(test_worker_that_gives_no_embedding_is_closed),
        cmocka_unit_test(test_adapter_runs_where_it_is),
        cmocka_unit_test(test_adapter_is_no_model_of_a_worker),
        cmocka_unit_test(test_request_goes_where_its_model_is_loaded),
        cmocka_unit_test(test_model_that_is_gone_is_offered_no_more),
        cmocka_unit_test(test_model_that_is_lost_moves_its_streams),
        cmocka_unit_test(test_policies_see_the_models_own_numbers),
        cmocka_unit_test(test_one_other_manifest_keeps_the_rest),
        cmocka_unit_test(test_models_offered_twice_are_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
