/* What frame_unpack_* lets through and what it refuses. Good frames are packed by protobuf-c and
 * then spoiled in one place; a few are written by hand from the protobuf encoding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/rpc/frame.h"
#include "runtime/rpc/rpc.h"

static struct err last;

static int unpack_from(const Argosy__FromWorker *f)
{
    size_t n = argosy__from_worker__get_packed_size(f);
    uint8_t *data = malloc(n + 1);
    Argosy__FromWorker *out;
    struct arena memory;
    argosy__from_worker__pack(f, data);
    int rc = frame_unpack_from_worker(data, n, &memory, &out, &last);
    free(data);
    arena_release(&memory);
    return rc;
}

static int unpack_to(const Argosy__ToWorker *f)
{
    size_t n = argosy__to_worker__get_packed_size(f);
    uint8_t *data = malloc(n + 1);
    Argosy__ToWorker *out;
    struct arena memory;
    argosy__to_worker__pack(f, data);
    int rc = frame_unpack_to_worker(data, n, &memory, &out, &last);
    free(data);
    arena_release(&memory);
    return rc;
}

static void refused(int rc, const char *words)
{
    if (rc != ERR_RANGE || !strstr(last.msg, words))
        fail_msg("%d '%s' instead of '%s'", rc, rc ? last.msg : "", words);
}

/* ---- hand-written bytes ------------------------------------------------------------------------
 */

static void test_frame_list_reads_the_encoding(void **state)
{
    (void)state;
    /* frames (15) of 1 and 0 bytes among fields that are not known: varint, 64 and 32 bits, bytes
     */
    static const uint8_t bytes[] = {0x08, 0x96, 0x01, 0x7a, 0x01, 0xaa, 0x11, 1,   2,
                                    3,    4,    5,    6,    7,    8,    0x15, 1,   2,
                                    3,    4,    0x1a, 2,    9,    9,    0x7a, 0x00};
    struct frame_list l = {.data = bytes, .n = sizeof(bytes)};
    const uint8_t *frame;
    size_t n;
    assert_int_equal(frame_next(&l, &frame, &n, &last), 1);
    assert_int_equal(n, 1);
    assert_int_equal(frame[0], 0xaa);
    assert_int_equal(frame_next(&l, &frame, &n, &last), 1);
    assert_int_equal(n, 0);
    assert_int_equal(frame_next(&l, &frame, &n, &last), 0);
}

/* The same bytes as protobuf-c's, for short and long frames. */
static void test_frame_heads_make_a_message(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 127, 128, 16383, 16384, RPC_FRAME_BYTES_MAX};
    uint8_t *data = calloc(1, RPC_FRAME_BYTES_MAX + 64);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        uint8_t head[FRAME_HEAD_BYTES_MAX];
        size_t len = frame_head(sizes[i], head);
        struct frame_list l = {.data = data, .n = len + sizes[i]};
        const uint8_t *frame;
        size_t n;
        memcpy(data, head, len);
        assert_int_equal(frame_next(&l, &frame, &n, &last), 1);
        assert_ptr_equal(frame, data + len);
        assert_int_equal(n, sizes[i]);
        assert_int_equal(frame_next(&l, &frame, &n, &last), 0);
    }
    free(data);
    Argosy__Drain drain = ARGOSY__DRAIN__INIT;
    Argosy__ToWorker f = ARGOSY__TO_WORKER__INIT, *two[] = {&f, &f};
    Argosy__ToWorkers list = ARGOSY__TO_WORKERS__INIT;
    char why[201] = {0};
    memset(why, 'y', 200);
    drain.why = why;
    f.frame_case = ARGOSY__TO_WORKER__FRAME_DRAIN;
    f.drain = &drain;
    list.n_frames = 2;
    list.frames = two;
    uint8_t ours[512], theirs[512];
    size_t n = argosy__to_workers__pack(&list, theirs), at = 0;
    for (int i = 0; i < 2; i++) {
        at += frame_head(argosy__to_worker__get_packed_size(&f), ours + at);
        at += argosy__to_worker__pack(&f, ours + at);
    }
    assert_int_equal(at, n);
    assert_memory_equal(ours, theirs, n);
}

static int all_of(const void *data, size_t n)
{
    struct frame_list l = {.data = data, .n = n};
    const uint8_t *frame;
    size_t len;
    int rc;
    while ((rc = frame_next(&l, &frame, &len, &last)) > 0)
        continue;
    return rc;
}

static void test_frame_list_refuses_what_is_none(void **state)
{
    (void)state;
    refused(all_of("", 0), "without frames");
    refused(all_of("\x0a\x01x", 3), "without frames");
    assert_int_equal(all_of("\x7a\x02x", 3), ERR_FORMAT); /* cut */
    assert_int_equal(all_of("\x7a", 1), ERR_FORMAT);      /* no length */
    assert_int_equal(all_of("\x7a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11), ERR_FORMAT);
    assert_int_equal(all_of("\x11\x01\x02", 3), ERR_FORMAT); /* 64 bits, cut */
    assert_int_equal(all_of("\x08\x80", 2), ERR_FORMAT);     /* a number without end */
    assert_int_equal(all_of("\x7b\x7c", 2), ERR_FORMAT);     /* a group */
    uint8_t many[2 * (FRAME_LIST_MAX + 1)];
    for (size_t i = 0; i < sizeof(many); i++)
        many[i] = i % 2 ? 0 : 0x7a;
    assert_int_equal(all_of(many, sizeof(many) - 2), 0);
    refused(all_of(many, sizeof(many)), "more than 1024 frames");
}

static void test_frame_reads_the_encoding(void **state)
{
    (void)state;
    /* step (3) { step (1) = 300, deltas (2) { request (1) = 7, index (2) = 1,
     *   tokens (3) packed = [5, 300], finish (5) = 2 } } */
    static const uint8_t bytes[] = {0x1a, 0x12, 0x08, 0xac, 0x02, 0x12, 0x0d, 0x08, 0x07, 0x10,
                                    0x01, 0x1a, 0x03, 0x05, 0xac, 0x02, 0x28, 0x02, 0x38, 0x00};
    Argosy__FromWorker *f;
    struct arena memory;
    if (frame_unpack_from_worker(bytes, sizeof(bytes), &memory, &f, &last) < 0)
        fail_msg("%s", last.msg);
    assert_int_equal(f->frame_case, ARGOSY__FROM_WORKER__FRAME_STEP);
    assert_int_equal(f->step->step, 300);
    assert_int_equal(f->step->n_deltas, 1);
    const Argosy__Delta *d = f->step->deltas[0];
    assert_int_equal(d->request, 7);
    assert_int_equal(d->index, 1);
    assert_int_equal(d->n_tokens, 2);
    assert_int_equal(d->tokens[0], 5);
    assert_int_equal(d->tokens[1], 300);
    assert_int_equal(d->finish, ARGOSY__FINISH__FINISH_LENGTH);
    assert_true(memory.used_bytes > sizeof(*f));
    arena_release(&memory);
}

static void test_frame_ignores_what_a_later_version_adds(void **state)
{
    (void)state;
    Argosy__ToWorker *f;
    struct arena memory;
    /* Field 15 of the oneof's message, with two bytes: a kind of frame that is not known. */
    static const uint8_t kind[] = {0x7a, 0x02, 0x08, 0x01};
    assert_int_equal(frame_unpack_to_worker(kind, sizeof(kind), &memory, &f, &last), 0);
    assert_null(f);
    arena_release(&memory);
    /* cancel (3) { request (1) = 9, field 14 = 1 } */
    static const uint8_t field[] = {0x1a, 0x04, 0x08, 0x09, 0x70, 0x01};
    assert_int_equal(frame_unpack_to_worker(field, sizeof(field), &memory, &f, &last), 0);
    assert_int_equal(f->cancel->request, 9);
    arena_release(&memory);
}

static void test_frame_refuses_what_is_not_protobuf(void **state)
{
    (void)state;
    static const uint8_t cut[] = {0x1a, 0x7f, 0x08};
    static const uint8_t group[] = {0x0b, 0x0b};
    static const uint8_t endless[] = {0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    Argosy__FromWorker *f;
    struct arena memory;
    assert_int_equal(frame_unpack_from_worker(cut, sizeof(cut), &memory, &f, &last), ERR_FORMAT);
    arena_release(&memory);
    assert_int_equal(frame_unpack_from_worker(group, sizeof(group), &memory, &f, &last),
                     ERR_FORMAT);
    arena_release(&memory);
    assert_int_equal(frame_unpack_from_worker(endless, sizeof(endless), &memory, &f, &last),
                     ERR_FORMAT);
    arena_release(&memory);
    assert_null(f);
    refused(frame_unpack_from_worker(cut, 0, &memory, &f, &last), "an empty frame");
    arena_release(&memory);
}

static void test_frame_refuses_a_frame_that_expands(void **state)
{
    (void)state;
    /* A million deltas of no bytes in 2 MB: over 100 MB as structs. */
    const size_t deltas = 1u << 20, n = 2 * deltas;
    uint8_t *bytes = malloc(n + 5);
    Argosy__FromWorker *f;
    struct arena memory;
    bytes[0] = 0x1a;
    for (int i = 0; i < 4; i++)
        bytes[1 + i] = (uint8_t)((n >> (7 * i) & 0x7f) | (i < 3 ? 0x80 : 0));
    for (size_t i = 0; i < deltas; i++)
        memcpy(bytes + 5 + 2 * i, "\x12\x00", 2);
    assert_int_equal(frame_unpack_from_worker(bytes, n + 5, &memory, &f, &last), ERR_FORMAT);
    assert_non_null(strstr(last.msg, "expand too much"));
    arena_release(&memory);
    free(bytes);
    assert_int_equal(frame_budget(0), 65536);
    assert_int_equal(frame_budget(1000), 97536);
    assert_int_equal(frame_budget(4u << 20), 32u << 20);
    assert_int_equal(frame_budget(SIZE_MAX), 32u << 20);
}

static void test_frame_refuses_one_over_the_limit(void **state)
{
    (void)state;
    Argosy__FromWorker *f;
    struct arena memory;
    uint8_t *bytes = calloc(1, RPC_FRAME_BYTES_MAX + 1);
    refused(frame_unpack_from_worker(bytes, RPC_FRAME_BYTES_MAX + 1, &memory, &f, &last),
            "over the limit");
    arena_release(&memory);
    free(bytes);
}

/* ---- Hello -------------------------------------------------------------------------------------
 */

static char long_text[4096];

static void test_frame_checks_hello(void **state)
{
    (void)state;
    Argosy__Hello h = ARGOSY__HELLO__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    Argosy__ModelOffer offer = ARGOSY__MODEL_OFFER__INIT, *offers[FRAME_MODELS_MAX + 1];
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_HELLO;
    f.hello = &h;
    refused(unpack_from(&f), "worker_id is empty");
    h.worker_id = (char *)"w";
    assert_int_equal(unpack_from(&f), 0);
    h.worker_id = long_text;
    refused(unpack_from(&f), "hello.worker_id has 4095 bytes, at most 256");
    h.worker_id = (char *)"a\xff"
                          "b";
    refused(unpack_from(&f), "hello.worker_id is not UTF-8 at byte 1");
    h.worker_id = (char *)"\xed\xa0\x80"; /* half a surrogate pair */
    refused(unpack_from(&f), "not UTF-8");
    h.worker_id = (char *)"w\xc3\xa4";
    h.price = NAN;
    refused(unpack_from(&f), "hello.price is not a finite number");
    h.price = -1;
    refused(unpack_from(&f), "hello.price is negative");
    h.price = 0;
    h.models = offers;
    for (size_t i = 0; i < ARRAY_LEN(offers); i++)
        offers[i] = &offer;
    h.n_models = FRAME_MODELS_MAX;
    assert_int_equal(unpack_from(&f), 0);
    h.n_models++;
    refused(unpack_from(&f), "hello.models has 65 elements, at most 64");
    static Argosy__AdapterOffer adapter, *adapters[FRAME_ADAPTERS_MAX + 1];
    argosy__adapter_offer__init(&adapter);
    for (size_t i = 0; i < ARRAY_LEN(adapters); i++)
        adapters[i] = &adapter;
    h.n_models = 1;
    offer.adapters = adapters;
    offer.n_adapters = FRAME_ADAPTERS_MAX;
    assert_int_equal(unpack_from(&f), 0);
    offer.n_adapters++;
    refused(unpack_from(&f), "hello.models.adapters has 257 elements, at most 256");
    offer.n_adapters = 1;
    adapter.sha256 = long_text;
    refused(unpack_from(&f), "hello.models.adapters.sha256 has 4095 bytes");
    offer.n_adapters = 0;
    offer.state = ARGOSY__MODEL_STATE__MODEL_GONE;
    assert_int_equal(unpack_from(&f), 0);
    offer.state = (Argosy__ModelState)4;
    refused(unpack_from(&f), "hello.models.state 4 is not known");
}

static void test_frame_checks_load(void **state)
{
    (void)state;
    Argosy__Load l = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    Argosy__ModelLoad model = ARGOSY__MODEL_LOAD__INIT, *models[FRAME_MODELS_MAX + 1];
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &l;
    assert_int_equal(unpack_from(&f), 0);
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        models[i] = &model;
    l.models = models;
    l.n_models = FRAME_MODELS_MAX;
    assert_int_equal(unpack_from(&f), 0);
    l.n_models++;
    refused(unpack_from(&f), "load.models has 65 elements, at most 64");
    l.n_models = 1;
    model.state = (Argosy__ModelState)-1;
    refused(unpack_from(&f), "load.models.state -1 is not known");
}

/* ---- Step --------------------------------------------------------------------------------------
 */

struct step_frame {
    Argosy__FromWorker frame;
    Argosy__Step step;
    Argosy__Delta delta, *deltas[1];
    Argosy__TokenLogprobs lp, *lps[3];
    uint32_t tokens[2], top_ids[FRAME_TOP_LOGPROBS_MAX + 1];
    float top[FRAME_TOP_LOGPROBS_MAX + 1];
};

static void good_step(struct step_frame *s)
{
    memset(s, 0, sizeof(*s));
    argosy__from_worker__init(&s->frame);
    argosy__step__init(&s->step);
    argosy__delta__init(&s->delta);
    argosy__token_logprobs__init(&s->lp);
    s->frame.frame_case = ARGOSY__FROM_WORKER__FRAME_STEP;
    s->frame.step = &s->step;
    s->deltas[0] = &s->delta;
    s->step.deltas = s->deltas;
    s->step.n_deltas = 1;
    s->delta.tokens = s->tokens;
    s->delta.n_tokens = 2;
    s->lps[0] = s->lps[1] = s->lps[2] = &s->lp;
    s->delta.logprobs = s->lps;
    s->delta.n_logprobs = 2;
    s->lp.top_ids = s->top_ids;
    s->lp.top_logprobs = s->top;
    s->lp.n_top_ids = s->lp.n_top_logprobs = FRAME_TOP_LOGPROBS_MAX;
}

static void test_frame_checks_cache_events(void **state)
{
    (void)state;
    static uint64_t hashes[FRAME_BLOCKS_MAX + 1];
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    Argosy__CacheEvents m = ARGOSY__CACHE_EVENTS__INIT;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS;
    f.cache_events = &m;
    m.stored = m.evicted = hashes;
    m.n_stored = m.n_evicted = FRAME_BLOCKS_MAX;
    assert_int_equal(unpack_from(&f), 0);
    m.n_stored++;
    refused(unpack_from(&f), "cache_events.stored has 8193 elements");
    m.n_stored = 0;
    m.n_evicted++;
    refused(unpack_from(&f), "cache_events.evicted has 8193 elements");
}

static void test_frame_checks_step(void **state)
{
    (void)state;
    static float vector[FRAME_EMBEDDING_MAX + 1];
    struct step_frame s;
    good_step(&s);
    assert_int_equal(unpack_from(&s.frame), 0);
    s.delta.n_logprobs = 3;
    refused(unpack_from(&s.frame), "delta has 2 tokens and 3 logprobs");
    good_step(&s);
    s.lp.n_top_ids = 4;
    refused(unpack_from(&s.frame), "4 top_ids and 20 top_logprobs");
    good_step(&s);
    s.lp.n_top_ids = s.lp.n_top_logprobs = 21;
    refused(unpack_from(&s.frame), "logprobs.top_ids has 21 elements");
    good_step(&s);
    s.lp.logprob = INFINITY;
    refused(unpack_from(&s.frame), "not a finite number");
    good_step(&s);
    s.top[3] = NAN;
    refused(unpack_from(&s.frame), "logprobs.top_logprobs[3]");
    good_step(&s);
    s.delta.finish = 17;
    refused(unpack_from(&s.frame), "delta.finish 17");
    good_step(&s);
    s.delta.embedding = vector;
    s.delta.n_embedding = FRAME_EMBEDDING_MAX;
    assert_int_equal(unpack_from(&s.frame), 0);
    s.delta.n_embedding++;
    refused(unpack_from(&s.frame), "delta.embedding has 65537 elements");
    s.delta.n_embedding = 3;
    vector[2] = NAN;
    refused(unpack_from(&s.frame), "delta.embedding[2]");
    good_step(&s);
    s.delta.index = FRAME_TOKENS_MAX + 1;
    refused(unpack_from(&s.frame), "delta.index");
    good_step(&s);
    s.delta.error = long_text;
    refused(unpack_from(&s.frame), "delta.error");
}

static void test_frame_a_full_step_fits_its_budget(void **state)
{
    (void)state;
    /* The densest honest step: one-token deltas without anything else. */
    enum { N = 4096 };
    static Argosy__Delta deltas[N], *list[N];
    static uint32_t token = 5;
    Argosy__Step step = ARGOSY__STEP__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    for (int i = 0; i < N; i++) {
        argosy__delta__init(&deltas[i]);
        deltas[i].request = 1;
        deltas[i].tokens = &token;
        deltas[i].n_tokens = 1;
        list[i] = &deltas[i];
    }
    step.deltas = list;
    step.n_deltas = N;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_STEP;
    f.step = &step;
    if (unpack_from(&f) < 0)
        fail_msg("%s", last.msg);
}

/* ---- Start -------------------------------------------------------------------------------------
 */

struct start_frame {
    Argosy__ToWorker frame;
    Argosy__Start start;
    Argosy__Sampling sampling;
    char *stop[FRAME_STOPS_MAX + 1];
    uint32_t ids[2];
    float values[2];
    uint8_t salt[17];
    Argosy__Grammar grammar;
};

static void good_start(struct start_frame *s)
{
    memset(s, 0, sizeof(*s));
    argosy__to_worker__init(&s->frame);
    argosy__start__init(&s->start);
    argosy__sampling__init(&s->sampling);
    argosy__grammar__init(&s->grammar);
    s->frame.frame_case = ARGOSY__TO_WORKER__FRAME_START;
    s->frame.start = &s->start;
    s->start.sampling = &s->sampling;
    for (size_t i = 0; i < ARRAY_LEN(s->stop); i++)
        s->stop[i] = (char *)"\n";
    s->start.stop = s->stop;
    s->start.n_stop = FRAME_STOPS_MAX;
    s->sampling.bias_ids = s->ids;
    s->sampling.bias_values = s->values;
    s->sampling.n_bias_ids = s->sampling.n_bias_values = 2;
    s->start.cache_salt.data = s->salt;
    s->start.cache_salt.len = FRAME_SALT_BYTES_MAX;
    s->start.top_logprobs = FRAME_TOP_LOGPROBS_MAX;
    s->start.grammar = &s->grammar;
    s->grammar.kind = ARGOSY__GRAMMAR_KIND__GRAMMAR_REGEX;
}

static void test_frame_checks_start(void **state)
{
    (void)state;
    struct start_frame s;
    good_start(&s);
    assert_int_equal(unpack_to(&s.frame), 0);
    s.start.sampling = NULL;
    refused(unpack_to(&s.frame), "start.sampling is missing");
    good_start(&s);
    s.start.n_stop++;
    refused(unpack_to(&s.frame), "start.stop has 65 elements");
    good_start(&s);
    s.stop[63] = long_text;
    refused(unpack_to(&s.frame), "start.stop has 4095 bytes");
    good_start(&s);
    s.sampling.n_bias_values = 1;
    refused(unpack_to(&s.frame), "2 bias_ids and 1 bias_values");
    good_start(&s);
    s.values[1] = INFINITY;
    refused(unpack_to(&s.frame), "bias_values[1]");
    good_start(&s);
    s.sampling.temperature = NAN;
    refused(unpack_to(&s.frame), "start.sampling[0]");
    good_start(&s);
    s.sampling.repetition_penalty = -INFINITY;
    refused(unpack_to(&s.frame), "start.sampling[5]");
    good_start(&s);
    s.start.top_logprobs = 21;
    refused(unpack_to(&s.frame), "top_logprobs 21");
    good_start(&s);
    s.start.max_tokens = FRAME_TOKENS_MAX + 1;
    refused(unpack_to(&s.frame), "start.max_tokens");
    good_start(&s);
    s.start.cache_salt.len = 17;
    refused(unpack_to(&s.frame), "start.cache_salt has 17 bytes");
    good_start(&s);
    s.grammar.kind = (Argosy__GrammarKind)4;
    refused(unpack_to(&s.frame), "start.grammar.kind 4");
    good_start(&s);
    s.grammar.space = (Argosy__GrammarSpace)3;
    refused(unpack_to(&s.frame), "start.grammar.space 3");
    good_start(&s);
    s.grammar.text = (char *)"\x80";
    refused(unpack_to(&s.frame), "start.grammar.text is not UTF-8");
    good_start(&s);
    s.grammar.text = malloc(FRAME_GRAMMAR_BYTES_MAX + 2);
    memset(s.grammar.text, 'x', FRAME_GRAMMAR_BYTES_MAX + 1);
    s.grammar.text[FRAME_GRAMMAR_BYTES_MAX + 1] = 0;
    refused(unpack_to(&s.frame), "start.grammar.text has 262145 bytes");
    s.grammar.text[FRAME_GRAMMAR_BYTES_MAX] = 0;
    assert_int_equal(unpack_to(&s.frame), 0);
    free(s.grammar.text);
    good_start(&s);
    s.start.model = (char *)"\xc0\xaf"; /* an overlong '/' */
    refused(unpack_to(&s.frame), "start.model is not UTF-8");
    good_start(&s);
    s.start.n_prompt = FRAME_TOKENS_MAX + 1;
    s.start.prompt = calloc(s.start.n_prompt, sizeof(uint32_t));
    refused(unpack_to(&s.frame), "start.prompt has 1048577 elements");
    s.start.n_prompt--;
    assert_int_equal(unpack_to(&s.frame), 0);
    free(s.start.prompt);
}

int main(void)
{
    memset(long_text, 'x', sizeof(long_text) - 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_list_reads_the_encoding),
        cmocka_unit_test(test_frame_heads_make_a_message),
        cmocka_unit_test(test_frame_list_refuses_what_is_none),
        cmocka_unit_test(test_frame_reads_the_encoding),
        cmocka_unit_test(test_frame_ignores_what_a_later_version_adds),
        cmocka_unit_test(test_frame_refuses_what_is_not_protobuf),
        cmocka_unit_test(test_frame_refuses_a_frame_that_expands),
        cmocka_unit_test(test_frame_refuses_one_over_the_limit),
        cmocka_unit_test(test_frame_checks_hello),
        cmocka_unit_test(test_frame_checks_load),
        cmocka_unit_test(test_frame_checks_cache_events),
        cmocka_unit_test(test_frame_checks_step),
        cmocka_unit_test(test_frame_a_full_step_fits_its_budget),
        cmocka_unit_test(test_frame_checks_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
