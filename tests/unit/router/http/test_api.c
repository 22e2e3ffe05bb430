/* OpenAI's API over a fake pool: answers, streams, every refusal. */
#include "tests/unit/router/http/harness.h"

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define HI "\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define SAY "\"model\":\"tiny\",\"prompt\":\"hi\""

/* ---- streams ----------------------------------------------------------------------------------
 */

#define STREAM_CHOICES_MAX 16

struct stream {
    struct buf text[STREAM_CHOICES_MAX];
    char finish[STREAM_CHOICES_MAX][16];
    uint32_t n_chunks, n_roles;
    bool done;                 /* [DONE] was the last event */
    struct json_object *usage; /* of the usage chunk */
    struct json_object *error;
};

static void stream_chunk(struct stream *s, struct json_object *o)
{
    struct json_object *usage = json_at(o, "usage");
    assert_false(s->done);
    if (json_at(o, "error")) {
        s->error = json_object_get(json_at(o, "error"));
        return;
    }
    if (usage) {
        assert_int_equal(json_object_array_length(json_at(o, "choices")), 0);
        s->usage = json_object_get(usage);
        return;
    }
    int64_t i = int_at(o, "choices.0.index");
    assert_in_range(i, 0, STREAM_CHOICES_MAX - 1);
    s->n_chunks++;
    struct json_object *text = json_at(o, "choices.0.delta.content");
    if (!text)
        text = json_at(o, "choices.0.text");
    if (json_at(o, "choices.0.delta.role"))
        s->n_roles++;
    if (text)
        buf_add(&s->text[i], json_object_get_string(text),
                (size_t)json_object_get_string_len(text));
    if (json_at(o, "choices.0.finish_reason"))
        snprintf(s->finish[i], 16, "%s", str_at(o, "choices.0.finish_reason"));
}

static void stream_read(const struct reply *r, struct stream *s)
{
    memset(s, 0, sizeof(*s));
    assert_int_equal(r->status, 200);
    assert_true(r->complete && r->chunked);
    assert_string_equal(reply_header(r, "Content-Type"), "text/event-stream");
    const char *p = buf_str(&r->body);
    while (*p) {
        const char *end = strstr(p, "\n\n");
        assert_non_null(end);
        assert_int_equal(strncmp(p, "data: ", 6), 0);
        if (strncmp(p, "data: [DONE]\n\n", 14) == 0) {
            s->done = true;
        } else {
            char *event = strndup(p + 6, (size_t)(end - p - 6));
            struct json_object *o = json_tokener_parse(event);
            assert_non_null(o);
            stream_chunk(s, o);
            json_object_put(o);
            free(event);
        }
        p = end + 2;
    }
}

static void stream_release(struct stream *s)
{
    for (size_t i = 0; i < STREAM_CHOICES_MAX; i++)
        buf_release(&s->text[i]);
    json_object_put(s->usage);
    json_object_put(s->error);
}

/* The text of choice 0, streamed and not: both must be `text`, and end for `finish`. */
static void expect_text(const char *path, const char *fields, const char *text, const char *finish)
{
    char body[2048];
    struct reply r;
    struct stream s;
    snprintf(body, sizeof(body), "{%s}", fields);
    post(path, body, &r);
    assert_int_equal(r.status, 200);
    struct json_object *o = reply_json(&r);
    assert_string_equal(
        str_at(o, strcmp(path, CHAT) == 0 ? "choices.0.message.content" : "choices.0.text"), text);
    assert_string_equal(str_at(o, "choices.0.finish_reason"), finish);
    json_object_put(o);
    reply_release(&r);

    snprintf(body, sizeof(body), "{%s,\"stream\":true}", fields);
    post(path, body, &r);
    stream_read(&r, &s);
    assert_string_equal(buf_str(&s.text[0]), text);
    assert_string_equal(s.finish[0], finish);
    assert_true(s.done);
    stream_release(&s);
    reply_release(&r);
}

static void test_chat_has_openais_shape(void **state)
{
    struct reply r;
    (void)state;
    post(CHAT, "{" HI "}", &r);
    assert_int_equal(r.status, 200);
    struct json_object *o = reply_json(&r);
    assert_int_equal(strncmp(str_at(o, "id"), "chatcmpl-", 9), 0);
    assert_string_equal(str_at(o, "object"), "chat.completion");
    assert_string_equal(str_at(o, "model"), "tiny");
    assert_string_equal(str_at(o, "system_fingerprint"), "fp_aaaaaaaaaa");
    assert_true(int_at(o, "created") > 1700000000);
    assert_string_equal(str_at(o, "choices.0.message.role"), "assistant");
    assert_string_equal(str_at(o, "choices.0.message.content"), "hello");
    assert_string_equal(str_at(o, "choices.0.finish_reason"), "stop");
    /* <|im_start|> user \n h i <|im_end|> \n <|im_start|> assistant \n */
    assert_int_equal(int_at(o, "usage.prompt_tokens"), 1 + 5 + 2 + 1 + 1 + 1 + 10);
    assert_int_equal(int_at(o, "usage.completion_tokens"), 5);
    assert_int_equal(int_at(o, "usage.total_tokens"), 26);
    assert_int_equal(int_at(o, "usage.prompt_tokens_details.cached_tokens"), 2);
    assert_string_equal(reply_header(&r, "X-Argosy-Worker"), "worker-1");
    assert_int_equal(fake.last_prompt[0], TINY_IM_START);
    assert_int_equal(fake.last.max_tokens, TINY_CONTEXT - 21);
    json_object_put(o);
    reply_release(&r);
}

static void test_stream_has_role_usage_and_done(void **state)
{
    struct reply r;
    struct stream s;
    (void)state;
    post(CHAT, "{" HI ",\"stream\":true,\"stream_options\":{\"include_usage\":true}}", &r);
    stream_read(&r, &s);
    assert_int_equal(s.n_roles, 1);
    assert_int_equal(s.n_chunks, 1 + 5 + 1);
    assert_string_equal(buf_str(&s.text[0]), "hello");
    assert_true(s.done);
    assert_non_null(s.usage);
    assert_int_equal(int_at(s.usage, "completion_tokens"), 5);
    assert_non_null(strstr(buf_str(&r.body), "\"usage\":null}"));
    assert_string_equal(reply_header(&r, "X-Argosy-Worker"), "worker-1");
    stream_release(&s);
    reply_release(&r);
}

static void test_usage_goes_along_when_it_is_asked_for(void **state)
{
    struct reply r;
    char wanted[96];
    (void)state;
    post(CHAT,
         "{" HI ",\"stream\":true,\"stream_options\":{\"include_usage\":true,"
         "\"continuous_usage_stats\":true}}",
         &r);
    for (int i = 0; i <= 5; i++) {
        snprintf(wanted, sizeof(wanted),
                 "],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":%d,\"total_tokens\":%d}}",
                 i, 21 + i);
        assert_non_null(strstr(buf_str(&r.body), wanted));
    }
    assert_null(strstr(buf_str(&r.body), "\"usage\":null"));
    reply_release(&r);
    /* Alone it asks for nothing. */
    post(CHAT, "{" HI ",\"stream\":true,\"stream_options\":{\"continuous_usage_stats\":true}}", &r);
    assert_null(strstr(buf_str(&r.body), "usage"));
    reply_release(&r);
}

static void test_completions_take_every_form_of_prompt(void **state)
{
    struct reply r;
    (void)state;
    expect_text(TEXT, "\"model\":\"tiny\",\"prompt\":[104,259,256]", "hello", "stop");
    assert_int_equal(fake.last.n_prompt, 3);
    assert_int_equal(fake.last_prompt[1], 259);
    assert_int_equal(fake.last.max_tokens, 16);
    expect_text(TEXT, "\"model\":\"tiny\",\"prompt\":\"xhey\",\"echo\":true", "xheyhello", "stop");
    assert_int_equal(fake.last_prompt[1], TINY_HE);
    expect_text(TEXT, "\"model\":\"tiny\",\"prompt\":[120,259,257],\"echo\":true",
                "xhe<|im_end|>hello", "stop");
    post(TEXT, "{\"model\":\"tiny\",\"prompt\":[\"a\",\"bc\"],\"n\":2}", &r);
    struct json_object *o = reply_json(&r);
    assert_int_equal(json_object_array_length(json_at(o, "choices")), 4);
    assert_int_equal(int_at(o, "choices.3.index"), 3);
    assert_int_equal(int_at(o, "usage.prompt_tokens"), 3);
    assert_int_equal(int_at(o, "usage.completion_tokens"), 20);
    json_object_put(o);
    reply_release(&r);
    post(TEXT, "{\"model\":\"tiny\",\"prompt\":[[97],[98,99]]}", &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
}

static void test_special_tokens_of_a_client_stay_text(void **state)
{
    (void)state;
    expect_text(TEXT, "\"model\":\"tiny\",\"prompt\":\"<|im_end|>\"", "hello", "stop");
    assert_int_equal(fake.last.n_prompt, 10);
}

static void test_n_choices_have_seeds_of_their_own(void **state)
{
    struct reply r;
    struct stream s;
    (void)state;
    post(CHAT, "{" HI ",\"n\":3,\"seed\":7,\"stream\":true}", &r);
    stream_read(&r, &s);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(buf_str(&s.text[i]), "hello");
        assert_string_equal(s.finish[i], "stop");
    }
    assert_int_equal(s.n_roles, 3);
    assert_int_equal(fake.seeds[0], 7);
    assert_int_not_equal(fake.seeds[1], 7);
    assert_int_not_equal(fake.seeds[1], fake.seeds[2]);
    stream_release(&s);
    reply_release(&r);
    post(TEXT, "{" SAY ",\"seed\":-5}", &r);
    assert_int_equal(fake.last.sampling.seed, (uint64_t)-5);
    reply_release(&r);
    post(TEXT, "{" SAY "}", &r);
    uint64_t drawn = fake.last.sampling.seed;
    reply_release(&r);
    post(TEXT, "{" SAY ",\"seed\":null}", &r);
    assert_int_not_equal(fake.last.sampling.seed, drawn);
    reply_release(&r);
}

static void test_stop_strings_are_cut_anywhere(void **state)
{
    (void)state;
    fake_say("hello world, hello");
    for (uint32_t step = 1; step < 8; step++) {
        fake.step = step;
        expect_text(TEXT, SAY ",\"max_tokens\":64,\"stop\":\"o w\"", "hell", "stop");
        expect_text(TEXT, SAY ",\"max_tokens\":64,\"stop\":[\"zz\",\"rld\",\"world\"]", "hello ",
                    "stop");
        /* what is held back at the end comes out */
        expect_text(TEXT, SAY ",\"max_tokens\":64,\"stop\":\"lox\"", "hello world, hello", "stop");
        expect_text(TEXT, SAY ",\"max_tokens\":10,\"stop\":\"lx\"", "hello worl", "length");
    }
    assert_int_equal(fake.last.n_stop, 1);
}

static void test_stop_before_min_tokens_is_text(void **state)
{
    (void)state;
    fake_say("abcXdefXghi");
    for (uint32_t step = 1; step < 8; step++) {
        fake.step = step;
        /* The token with index 3 completes the first X: passed over; the second ends it. */
        expect_text(TEXT, SAY ",\"max_tokens\":64,\"min_tokens\":4,\"stop\":\"X\"", "abcXdef",
                    "stop");
        expect_text(TEXT, SAY ",\"max_tokens\":64,\"min_tokens\":3,\"stop\":\"X\"", "abc", "stop");
        expect_text(TEXT, SAY ",\"max_tokens\":64,\"min_tokens\":5,\"stop\":\"cXd\"", "abcXdefXghi",
                    "stop");
    }
}

static void test_stop_ids_and_eos_are_not_text(void **state)
{
    (void)state;
    fake_say("abc");
    expect_text(TEXT, SAY ",\"stop_token_ids\":[99]", "ab", "stop");
    fake.script[2] = TINY_IM_END;
    expect_text(TEXT, SAY, "ab", "stop");
    fake.script[3] = 'd';
    fake.n = 4;
    expect_text(TEXT, SAY ",\"ignore_eos\":true", "abd", "stop");
    /* A token that ends the output has no log probability; one that does not has. */
    for (int ignored = 0; ignored < 2; ignored++) {
        struct reply r;
        post(TEXT,
             ignored ? "{" SAY ",\"logprobs\":0,\"ignore_eos\":true}" : "{" SAY ",\"logprobs\":0}",
             &r);
        struct json_object *o = reply_json(&r);
        assert_string_equal(str_at(o, "choices.0.logprobs.tokens.2"), ignored ? "<|im_end|>" : "d");
        json_object_put(o);
        reply_release(&r);
    }
}

static void test_characters_come_whole(void **state)
{
    struct reply r;
    struct stream s;
    (void)state;
    fake_say("\xe2\x82\xac\xf0\x9f\x98\x80!\xe2\x82");
    post(TEXT, "{" SAY ",\"stream\":true}", &r);
    stream_read(&r, &s);
    assert_string_equal(buf_str(&s.text[0]), "\xe2\x82\xac\xf0\x9f\x98\x80!\xef\xbf\xbd");
    /* each chunk is whole: no replacement but the last one, of a character that never ends */
    assert_ptr_equal(strstr(buf_str(&r.body), "\xef\xbf\xbd"), strrchr(buf_str(&r.body), '\xef'));
    stream_release(&s);
    reply_release(&r);
    expect_text(TEXT, SAY, "\xe2\x82\xac\xf0\x9f\x98\x80!\xef\xbf\xbd", "stop");
}

static void test_chat_logprobs(void **state)
{
    struct reply r;
    (void)state;
    fake_say("a\xe2\x82\xac");
    post(CHAT, "{" HI ",\"logprobs\":true,\"top_logprobs\":3}", &r);
    struct json_object *o = reply_json(&r);
    struct json_object *content = json_at(o, "choices.0.logprobs.content");
    assert_int_equal(json_object_array_length(content), 4);
    assert_string_equal(str_at(content, "0.token"), "a");
    assert_int_equal(int_at(content, "0.bytes.0"), 'a');
    assert_true(json_object_get_double(json_at(content, "0.logprob")) == -0.5);
    assert_int_equal(json_object_array_length(json_at(content, "0.top_logprobs")), 3);
    assert_string_equal(str_at(content, "0.top_logprobs.2.token"), "C");
    assert_int_equal(int_at(content, "1.bytes.0"), 0xe2);
    assert_string_equal(str_at(content, "1.token"), "\xef\xbf\xbd");
    json_object_put(o);
    reply_release(&r);
    post(CHAT, "{" HI ",\"logprobs\":true,\"stream\":true}", &r);
    int n = 0;
    for (const char *p = buf_str(&r.body); (p = strstr(p, "\"top_logprobs\":[]")); p++)
        n++;
    assert_int_equal(n, 4);
    reply_release(&r);
}

static void test_completion_logprobs(void **state)
{
    struct reply r;
    (void)state;
    fake_say("a\xe2\x82\xac!");
    post(TEXT, "{" SAY ",\"logprobs\":2}", &r);
    struct json_object *o = reply_json(&r);
    assert_string_equal(str_at(o, "choices.0.logprobs.tokens.0"), "a");
    assert_string_equal(str_at(o, "choices.0.logprobs.tokens.1"), "bytes:\\xe2");
    assert_int_equal(int_at(o, "choices.0.logprobs.text_offset.0"), 0);
    assert_int_equal(int_at(o, "choices.0.logprobs.text_offset.1"), 1);
    assert_int_equal(int_at(o, "choices.0.logprobs.text_offset.4"), 2);
    assert_int_equal(json_object_object_length(json_at(o, "choices.0.logprobs.top_logprobs.0")), 2);
    assert_non_null(json_at(o, "choices.0.logprobs.top_logprobs.0.B"));
    json_object_put(o);
    reply_release(&r);
    post(TEXT, "{" SAY ",\"logprobs\":0}", &r);
    o = reply_json(&r);
    assert_int_equal(json_object_object_length(json_at(o, "choices.0.logprobs.top_logprobs.0")), 1);
    json_object_put(o);
    reply_release(&r);
}

/* vLLM: lower goes first. Ours: higher does. */
static void test_priority_and_timeout_reach_the_pool(void **state)
{
    struct reply r;
    (void)state;
    post(CHAT, "{" HI ",\"priority\":-7,\"timeout\":2.5}", &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(fake.last.priority, 7);
    assert_int_equal(fake.last.deadline_ms, 2500);
    reply_release(&r);
    post(TEXT, "{" SAY ",\"priority\":1000,\"timeout\":0.001}", &r);
    assert_int_equal(fake.last.priority, -1000);
    assert_int_equal(fake.last.deadline_ms, 1);
    reply_release(&r);
    post(CHAT, "{" HI "}", &r);
    assert_int_equal(fake.last.priority, 0);
    uint32_t longest = fake.last.deadline_ms;
    reply_release(&r);
    post(CHAT, "{" HI ",\"timeout\":86400}", &r);
    assert_true(longest == 0 ? fake.last.deadline_ms == 86400000
                             : fake.last.deadline_ms == longest);
    reply_release(&r);
    post(CHAT, "{" HI ",\"priority\":1001}", &r);
    assert_int_equal(r.status, 400);
    reply_release(&r);
    post(CHAT, "{" HI ",\"timeout\":0}", &r);
    assert_int_equal(r.status, 400);
    reply_release(&r);
}

static void test_sampling_reaches_the_pool(void **state)
{
    struct reply r;
    (void)state;
    post(CHAT,
         "{" HI ",\"temperature\":0.5,\"top_p\":0.25,\"top_k\":7,\"min_p\":0.125,"
         "\"presence_penalty\":1,\"frequency_penalty\":-2,\"repetition_penalty\":1.5,"
         "\"logit_bias\":{\"20\":-100,\"3\":5.5},\"max_completion_tokens\":3.0,\"user\":\"u\","
         "\"prompt_cache_key\":\"k\",\"metadata\":{\"a\":\"b\"},\"store\":true,"
         "\"service_tier\":\"auto\",\"response_format\":{\"type\":\"text\"},\"n\":null}",
         &r);
    assert_int_equal(r.status, 200);
    const struct gen_sampling *s = &fake.last.sampling;
    assert_true(s->temperature == 0.5f && s->top_p == 0.25f && s->top_k == 7 && s->min_p == 0.125f);
    assert_true(s->presence_penalty == 1 && s->frequency_penalty == -2);
    assert_true(s->repetition_penalty == 1.5f);
    assert_int_equal(s->n_bias, 2);
    assert_int_equal(fake.last.max_tokens, 3);
    assert_int_not_equal(fake.last.session_hash, 0);
    reply_release(&r);
}

static void expect_grammar(const char *path, const char *fields, enum grammar_kind kind,
                           const char *text)
{
    struct buf body;
    struct reply r;
    buf_init(&body, 0);
    buf_addf(&body, "{%s,%s}", strcmp(path, CHAT) == 0 ? HI : SAY, fields);
    post(path, buf_str(&body), &r);
    assert_int_equal(r.status, 200);
    assert_non_null(fake.last.grammar);
    assert_int_equal(fake_grammar.kind, kind);
    assert_int_equal(fake_grammar.space, GRAMMAR_SPACE_ONE);
    assert_string_equal(fake_grammar_text, text);
    reply_release(&r);
    buf_release(&body);
}

static void test_a_grammar_reaches_the_pool(void **state)
{
    (void)state;
    expect_grammar(CHAT, "\"response_format\":{\"type\":\"json_object\"}", GRAMMAR_JSON_OBJECT, "");
    /* Its members stay in their order; a number stays as it was written. */
    expect_grammar(CHAT,
                   "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
                   "\"strict\":true,\"schema\":{\"type\" : \"number\", \"maximum\":1.50, "
                   "\"minimum\":-1}}}",
                   GRAMMAR_JSON_SCHEMA, "{\"type\":\"number\",\"maximum\":1.50,\"minimum\":-1}");
    expect_grammar(TEXT, "\"guided_choice\":[\"a\\\"b\",\"\\\\\"]", GRAMMAR_GBNF,
                   "root ::= \"a\\x22b\" | \"\\x5C\"");
    expect_grammar(TEXT, "\"structured_outputs\":{\"regex\":\"a+\"}", GRAMMAR_REGEX, "a+");
    expect_grammar(TEXT, "\"grammar\":\"root ::= \\\"x\\\"\"", GRAMMAR_GBNF, "root ::= \"x\"");
}

/* ---- failures of the pool ---------------------------------------------------------------------
 */

static void expect_fault(enum gen_fault fault, int status, const char *retry)
{
    struct reply r;
    fake.fault = fault;
    for (int late = 0; late < 2; late++) { /* by pool_start, and before the first token */
        fake.refuse = !late;
        fake.fail_at = late ? 0 : -1;
        post(CHAT, "{" HI ",\"stream\":true,\"n\":2}", &r);
        assert_int_equal(r.status, status);
        struct json_object *o = reply_json(&r);
        assert_non_null(strstr(str_at(o, "error.message"), "as told"));
        if (retry)
            assert_string_equal(reply_header(&r, "Retry-After"), late ? "2" : retry);
        json_object_put(o);
        reply_release(&r);
        assert_int_equal(fake.live, 0);
    }
}

static void test_failures_before_the_first_token_are_http(void **state)
{
    (void)state;
    expect_fault(GEN_FAULT_NO_WORKER, 503, "1");
    expect_fault(GEN_FAULT_UNWANTED, 503, "1");
    expect_fault(GEN_FAULT_BUSY, 429, "1");
    expect_fault(GEN_FAULT_INVALID, 400, NULL);
    expect_fault(GEN_FAULT_DEADLINE, 504, NULL);
    expect_fault(GEN_FAULT_WORKER, 502, NULL);
}

static void test_failure_mid_stream_is_an_event_and_no_done(void **state)
{
    struct reply r;
    struct stream s;
    (void)state;
    fake.fail_at = 3;
    fake.fault = GEN_FAULT_WORKER;
    post(CHAT, "{" HI ",\"stream\":true,\"n\":2}", &r);
    stream_read(&r, &s);
    assert_string_equal(buf_str(&s.text[0]), "hel");
    assert_false(s.done);
    assert_non_null(s.error);
    assert_string_equal(str_at(s.error, "code"), "worker_failed");
    assert_string_equal(s.finish[0], "");
    stream_release(&s);
    reply_release(&r);
    int fd = dial();
    const char *body = "{" HI ",\"stream\":true}";
    char head[128];
    snprintf(head, sizeof(head), "POST " CHAT " HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    send_text(fd, head);
    send_text(fd, body);
    read_reply(fd, &r, NULL, false);
    assert_true(r.complete && is_closed(fd));
    reply_release(&r);
    close(fd);
    post(CHAT, "{" HI "}", &r); /* not a stream: still a status */
    assert_int_equal(r.status, 502);
    reply_release(&r);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static uint64_t refusal_us_max; /* told, not held: time is the machine's */

static void expect_refusal(const char *path, const char *body, size_t n, int status,
                           const char *param, const char *code)
{
    struct reply r;
    uint64_t from = clock_mono_ns();
    post_bytes(path, body, n, &r);
    uint64_t took_us = (clock_mono_ns() - from) / 1000;
    struct json_object *o = reply_json(&r);
    bool same_param =
        param ? strcmp(str_at(o, "error.param"), param) == 0 : json_at(o, "error.param") == NULL;
    bool same_code = !code || strcmp(str_at(o, "error.code"), code) == 0;
    if (r.status != status || !same_param || !same_code)
        fail_msg("%.100s: wanted %d %s %s, got %d %s", body, status, param ? param : "-",
                 code ? code : "-", r.status, buf_str(&r.body));
    assert_string_equal(str_at(o, "error.type"), "invalid_request_error");
    assert_true(strlen(str_at(o, "error.message")) > 5);
    assert_int_equal(fake.started, 0);
    if (n < 100000 && took_us > refusal_us_max) /* larger ones take their time on the way */
        refusal_us_max = took_us;
    json_object_put(o);
    reply_release(&r);
}

struct refusal {
    const char *path, *body;
    int status;
    const char *param, *code;
};

static const struct refusal refusals[] = {
    {CHAT, "", 400, NULL, NULL},
    {CHAT, "{", 400, NULL, NULL},
    {CHAT, "[]", 400, NULL, NULL},
    {CHAT, "null", 400, NULL, NULL},
    {CHAT, "{} x", 400, NULL, NULL},
    {CHAT, "{" HI ",}", 400, "messages", NULL},
    {CHAT, "{'model':1}", 400, NULL, NULL},
    {CHAT, "{" HI ",\"temperature\":NaN}", 400, "temperature", NULL},
    {CHAT, "{" HI ",\"temperature\":-Infinity}", 400, "temperature", NULL},
    {CHAT, "{" HI ",\"temperature\":1e400}", 400, "temperature", "decimal_above_max_value"},
    {CHAT, "{" HI ",\"temperature\":01}", 400, "temperature", NULL},
    {CHAT, "{" HI ",\"user\":\"\xff\"}", 400, "user", NULL},
    {CHAT, "{" HI ",\"user\":\"\xed\xa0\x80\"}", 400, "user", NULL},
    {CHAT, "{" HI ",\"user\":\"a\nb\"}", 400, "user", NULL},
    {CHAT, "{" HI ",\"us\\u0000er\":1}", 400, "messages", NULL},
    {CHAT, "{}", 400, "model", "missing_required_parameter"},
    {CHAT, "{\"model\":\"tiny\"}", 400, "messages", "missing_required_parameter"},
    {TEXT, "{\"model\":\"tiny\"}", 400, "prompt", "missing_required_parameter"},
    {CHAT, "{\"model\":\"gpt-9\",\"messages\":[]}", 404, "model", "model_not_found"},
    {CHAT, "{\"model\":\"tiny\\u0000\",\"messages\":[]}", 404, "model", "model_not_found"},
    {CHAT, "{\"model\":5,\"messages\":[]}", 400, "model", "invalid_type"},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[]}", 400, "messages", "empty_array"},
    {CHAT, "{\"model\":\"tiny\",\"messages\":\"hi\"}", 400, "messages", "invalid_type"},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[1]}", 400, "messages[0]", "invalid_type"},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[{\"content\":\"x\"}]}", 400, "messages[0].role",
     NULL},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", 400,
     "messages[0].role", "invalid_value"},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\"}]}", 400, "messages[0].content",
     NULL},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":5}]}", 400,
     "messages[0].content", "invalid_type"},
    {CHAT,
     "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]"
     "}",
     400, "messages[0].content[0].type", NULL},
    {CHAT,
     "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]}",
     400, "messages[0].content[0].text", NULL},
    {CHAT, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}", 400,
     "messages[0].tool_call_id", NULL},
    {CHAT, "{" HI ",\"temperature\":-1}", 400, "temperature", "decimal_below_min_value"},
    {CHAT, "{" HI ",\"temperature\":2.1}", 400, "temperature", "decimal_above_max_value"},
    {CHAT, "{" HI ",\"temperature\":\"hot\"}", 400, "temperature", "invalid_type"},
    {CHAT, "{" HI ",\"temperature\":true}", 400, "temperature", "invalid_type"},
    {CHAT, "{" HI ",\"top_p\":1.5}", 400, "top_p", NULL},
    {CHAT, "{" HI ",\"n\":1000000000}", 400, "n", "integer_above_max_value"},
    {CHAT, "{" HI ",\"n\":1e30}", 400, "n", "integer_above_max_value"},
    {CHAT, "{" HI ",\"n\":0}", 400, "n", "integer_below_min_value"},
    {CHAT, "{" HI ",\"n\":1.5}", 400, "n", "invalid_type"},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[\"a\",\"b\"],\"n\":100}", 400, "n", NULL},
    {CHAT, "{" HI ",\"max_tokens\":-1}", 400, "max_tokens", "integer_below_min_value"},
    {CHAT, "{" HI ",\"max_tokens\":0}", 400, "max_tokens", NULL},
    {CHAT, "{" HI ",\"max_tokens\":600}", 400, "max_tokens", "context_length_exceeded"},
    {CHAT, "{" HI ",\"max_tokens\":5,\"max_completion_tokens\":6}", 400, "max_tokens", NULL},
    {CHAT, "{" HI ",\"max_tokens\":5,\"min_tokens\":6}", 400, "min_tokens", NULL},
    {CHAT, "{" HI ",\"seed\":99999999999999999999}", 400, "seed", NULL},
    {CHAT, "{" HI ",\"stop\":\"\"}", 400, "stop", NULL},
    {CHAT, "{" HI ",\"stop\":[\"a\",7]}", 400, "stop[1]", "invalid_type"},
    {CHAT, "{" HI ",\"stop\":\"a\\u0000b\"}", 400, "stop", NULL},
    {CHAT, "{" HI ",\"stop\":{}}", 400, "stop", "invalid_type"},
    {CHAT, "{" HI ",\"stop_token_ids\":[260]}", 400, "stop_token_ids", NULL},
    {CHAT, "{" HI ",\"logit_bias\":{\"260\":1}}", 400, "logit_bias.260", NULL},
    {CHAT, "{" HI ",\"logit_bias\":{\"-1\":1}}", 400, "logit_bias.-1", NULL},
    {CHAT, "{" HI ",\"logit_bias\":{\"01\":1}}", 400, "logit_bias.01", NULL},
    {CHAT, "{" HI ",\"logit_bias\":{\"4294967297\":1}}", 400, "logit_bias.4294967297", NULL},
    {CHAT, "{" HI ",\"logit_bias\":{\"1\":101}}", 400, "logit_bias.1", NULL},
    {CHAT, "{" HI ",\"logit_bias\":{\"1\":\"x\"}}", 400, "logit_bias.1", "invalid_type"},
    {CHAT, "{" HI ",\"logit_bias\":[]}", 400, "logit_bias", "invalid_type"},
    {CHAT, "{" HI ",\"top_logprobs\":2}", 400, "top_logprobs", NULL},
    {CHAT, "{" HI ",\"logprobs\":true,\"top_logprobs\":21}", 400, "top_logprobs", NULL},
    {TEXT, "{" SAY ",\"logprobs\":21}", 400, "logprobs", NULL},
    {TEXT, "{" SAY ",\"logprobs\":true}", 400, "logprobs", "invalid_type"},
    {TEXT, "{" SAY ",\"logprobs\":1,\"echo\":true}", 400, "logprobs", NULL},
    {CHAT, "{" HI ",\"stream_options\":{\"include_usage\":true}}", 400, "stream_options", NULL},
    {CHAT, "{" HI ",\"stream\":true,\"stream_options\":{\"x\":true}}", 400, "stream_options.x",
     NULL},
    {CHAT, "{" HI ",\"stream\":1}", 400, "stream", "invalid_type"},
    {CHAT, "{" HI ",\"wonder\":1}", 400, "wonder", "unknown_parameter"},
    {CHAT, "{" HI ",\"prompt\":\"x\"}", 400, "prompt", "unknown_parameter"},
    {CHAT, "{" HI ",\"chat_template\":\"x\"}", 400, "chat_template", "unsupported_parameter"},
    {CHAT, "{" HI ",\"response_format\":{\"type\":\"xml\"}}", 400, "response_format.type",
     "invalid_value"},
    {CHAT,
     "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\","
     "\"schema\":{\"not\":{}}}}}",
     400, "response_format.json_schema.schema", "invalid_value"},
    {TEXT, "{" SAY ",\"structured_outputs\":{\"regex\":\"a\\u0000\"}}", 400,
     "structured_outputs.regex", "invalid_value"},
    {TEXT, "{" SAY ",\"structured_outputs\":{\"regex\":\"a\",\"json\":{}}}", 400,
     "structured_outputs.json", "invalid_value"},
    {TEXT, "{" SAY ",\"guided_json\":{\"maximum\":18446744073709551616}}", 400, "guided_json",
     "invalid_value"},
    {TEXT, "{" SAY ",\"guided_choice\":[\"a\",1]}", 400, "guided_choice", "invalid_type"},
    {TEXT, "{" SAY ",\"guided_whitespace_pattern\":\" *\"}", 400, "guided_whitespace_pattern",
     "unsupported_parameter"},
    {CHAT, "{" HI ",\"tools\":[{}]}", 400, "tools[0]", "invalid_value"},
    {CHAT, "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}", 400,
     "tools", "unsupported_parameter"},
    {CHAT,
     "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":7}",
     400, "tool_choice", NULL},
    {CHAT, "{" HI ",\"tool_choice\":{\"type\":\"function\"}}", 400, "tool_choice", NULL},
    {CHAT, "{" HI ",\"functions\":[{}]}", 400, "functions", NULL},
    {CHAT, "{" HI ",\"modalities\":[\"text\",\"audio\"]}", 400, "modalities", NULL},
    {CHAT, "{" HI ",\"audio\":{}}", 400, "audio", NULL},
    {CHAT, "{" HI ",\"prediction\":{}}", 400, "prediction", NULL},
    {CHAT, "{" HI ",\"reasoning_effort\":\"low\"}", 400, "reasoning_effort", NULL},
    {CHAT, "{" HI ",\"metadata\":1}", 400, "metadata", "invalid_type"},
    {TEXT, "{" SAY ",\"suffix\":\"x\"}", 400, "suffix", NULL},
    {TEXT, "{" SAY ",\"best_of\":2}", 400, "best_of", NULL},
    {TEXT, "{" SAY ",\"messages\":[]}", 400, "messages", "unknown_parameter"},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":\"\"}", 400, "prompt", NULL},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[]}", 400, "prompt", NULL},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":{}}", 400, "prompt", "invalid_type"},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[1,\"x\"]}", 400, "prompt", NULL},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[-1]}", 400, "prompt", NULL},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[260]}", 400, "prompt", NULL},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[[1],\"x\"]}", 200, NULL, NULL},
    {TEXT, "{\"model\":\"tiny\",\"prompt\":[[1],[]]}", 400, "prompt[1]", NULL},
    {"/tokenize", "{}", 400, "prompt", NULL},
    {"/tokenize", "{\"prompt\":1}", 400, "prompt", "invalid_type"},
    {"/tokenize", "{\"prompt\":\"x\",\"y\":1}", 400, "y", "unknown_parameter"},
    {"/detokenize", "{\"tokens\":[1.5]}", 400, "tokens", NULL},
    {"/detokenize", "{\"tokens\":5}", 400, "tokens", NULL},
};

static void test_bad_input_names_the_parameter(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        if (refusals[i].status != 200)
            expect_refusal(refusals[i].path, refusals[i].body, strlen(refusals[i].body),
                           refusals[i].status, refusals[i].param, refusals[i].code);
}

static void repeat(struct buf *b, const char *before, const char *piece, size_t n,
                   const char *after)
{
    buf_init(b, 0);
    buf_adds(b, before);
    for (size_t i = 0; i < n; i++)
        buf_adds(b, piece);
    buf_adds(b, after);
}

static void test_floods_are_refused(void **state)
{
    struct buf b;
    (void)state;
    repeat(&b, "{" HI ",\"stop\":[\"x\"", ",\"x\"", 1000000, "]}");
    expect_refusal(CHAT, b.data, b.len, 400, "stop", "array_above_max_length");
    buf_release(&b);
    repeat(&b, "{" HI ",\"stop\":[\"x\"", ",\"x\"", 16, "]}");
    expect_refusal(CHAT, b.data, b.len, 400, "stop", "array_above_max_length");
    buf_release(&b);
    repeat(&b, "{" HI ",\"metadata\":", "[", 100000, "");
    expect_refusal(CHAT, b.data, b.len, 400, "metadata", NULL);
    buf_release(&b);
    repeat(&b, "{" HI ",\"user\":", "{\"a\":", 40, "1");
    expect_refusal(CHAT, b.data, b.len, 400, "user", NULL);
    buf_release(&b);
    repeat(&b, "{" HI ",\"metadata\":{\"a\":[[]", ",[]", 1000000, "]}}");
    expect_refusal(CHAT, b.data, b.len, 400, "metadata", NULL);
    buf_release(&b);
    repeat(&b, "{\"model\":\"tiny\",\"prompt\":\"", "word ", 800000, "\"}");
    expect_refusal(TEXT, b.data, b.len, 400, "prompt", "context_length_exceeded");
    buf_release(&b);
    repeat(&b, "{\"model\":\"tiny\",\"prompt\":\"", "w", TINY_CONTEXT, "\"}");
    expect_refusal(TEXT, b.data, b.len, 400, "prompt", "context_length_exceeded");
    buf_release(&b);
    repeat(&b, "{\"model\":\"tiny\",\"prompt\":[1", ",1", TINY_CONTEXT - 1, "]}");
    expect_refusal(TEXT, b.data, b.len, 400, "prompt", "context_length_exceeded");
    buf_release(&b);
    repeat(&b, "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"", "word ",
           400000, "\"}]}");
    expect_refusal(CHAT, b.data, b.len, 400, "messages", "context_length_exceeded");
    buf_release(&b);
    print_message("slowest refusal of a body under 100 kB: %.1f ms\n",
                  (double)refusal_us_max / 1e3);
}

static void test_prompt_that_just_fits_runs(void **state)
{
    struct buf b;
    struct reply r;
    (void)state;
    repeat(&b, "{\"model\":\"tiny\",\"prompt\":\"", "w", TINY_CONTEXT - 1, "\"}");
    post_bytes(TEXT, b.data, b.len, &r);
    assert_int_equal(r.status, 200);
    assert_int_equal(fake.last.max_tokens, 1);
    reply_release(&r);
    buf_release(&b);
}

/* ---- the rest ---------------------------------------------------------------------------------
 */

static void test_models_ready_and_tokenize(void **state)
{
    struct reply r;
    (void)state;
    exchange("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_non_null(strstr(buf_str(&r.body), "{\"id\":\"tiny\",\"object\":\"model\""));
    reply_release(&r);
    exchange("GET /v1/models/t%69ny HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    exchange("GET /v1/models/other HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 404);
    reply_release(&r);
    exchange("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 200);
    reply_release(&r);
    fake.workers = 0;
    exchange("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    assert_int_equal(r.status, 503);
    assert_non_null(strstr(buf_str(&r.body), "no worker"));
    reply_release(&r);
    post("/tokenize", "{\"prompt\":\"hex\",\"return_token_strs\":true}", &r);
    assert_string_equal(buf_str(&r.body), "{\"count\":2,\"max_model_len\":512,\"tokens\":[259,120],"
                                          "\"token_strs\":[\"he\",\"x\"]}");
    reply_release(&r);
    post("/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"model\":\"tiny\"}",
         &r);
    assert_non_null(strstr(buf_str(&r.body), "\"tokens\":[256,117,"));
    reply_release(&r);
    post("/detokenize", "{\"tokens\":[259,120,257]}", &r);
    assert_string_equal(buf_str(&r.body), "{\"prompt\":\"hex<|im_end|>\"}");
    reply_release(&r);
}

static void test_metrics_count(void **state)
{
    struct reply r;
    (void)state;
    post(TEXT, "{" SAY ",\"n\":2}", &r);
    reply_release(&r);
    post(TEXT, "{}", &r);
    reply_release(&r);
    exchange("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", &r);
    const char *text = buf_str(&r.body);
    assert_non_null(strstr(text, "vllm:prompt_tokens_total{model_name=\"tiny\"} 2\n"));
    assert_non_null(strstr(text, "vllm:generation_tokens_total{model_name=\"tiny\"} 10\n"));
    assert_non_null(strstr(
        text, "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"stop\"} 2\n"));
    assert_non_null(strstr(
        text, "vllm:time_to_first_token_seconds_bucket{model_name=\"tiny\",le=\"+Inf\"} 2\n"));
    assert_non_null(
        strstr(text, "vllm:inter_token_latency_seconds_count{model_name=\"tiny\"} 8\n"));
    assert_non_null(strstr(text, "vllm:num_requests_running{model_name=\"tiny\"} 0\n"));
    assert_non_null(strstr(text, "vllm:kv_cache_usage_perc{model_name=\"tiny\"} 0.25\n"));
    assert_non_null(
        strstr(text, "argosy_http_requests_total{path=\"/v1/completions\",code=\"400\"} 1\n"));
    assert_non_null(strstr(text, "argosy_worker_running{worker=\"wor\\\"ker-1\",device=\"cpu\""));
#define OF_WORKER "{worker=\"wor\\\"ker-1\",device=\"cpu\",state=\"ready\"} "
    assert_non_null(strstr(text, "argosy_worker_kv_host_bytes" OF_WORKER "4096\n"));
    assert_non_null(strstr(text, "argosy_worker_kv_pages_out" OF_WORKER "5\n"));
    assert_non_null(strstr(text, "argosy_worker_kv_pages_in" OF_WORKER "3\n"));
    assert_non_null(strstr(text, "argosy_moves_total 3\n"));
    reply_release(&r);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, server_setup, server_teardown)
    const struct CMUnitTest tests[] = {
        T(test_chat_has_openais_shape),
        T(test_stream_has_role_usage_and_done),
        T(test_usage_goes_along_when_it_is_asked_for),
        T(test_completions_take_every_form_of_prompt),
        T(test_special_tokens_of_a_client_stay_text),
        T(test_n_choices_have_seeds_of_their_own),
        T(test_stop_strings_are_cut_anywhere),
        T(test_stop_before_min_tokens_is_text),
        T(test_stop_ids_and_eos_are_not_text),
        T(test_characters_come_whole),
        T(test_chat_logprobs),
        T(test_completion_logprobs),
        T(test_priority_and_timeout_reach_the_pool),
        T(test_sampling_reaches_the_pool),
        T(test_a_grammar_reaches_the_pool),
        T(test_failures_before_the_first_token_are_http),
        T(test_failure_mid_stream_is_an_event_and_no_done),
        T(test_bad_input_names_the_parameter),
        T(test_floods_are_refused),
        T(test_prompt_that_just_fits_runs),
        T(test_models_ready_and_tokenize),
        T(test_metrics_count),
    };
    return cmocka_run_group_tests(tests, NULL, group_teardown);
}
