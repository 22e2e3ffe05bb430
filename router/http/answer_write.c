/* answer_write.c: the JSON of chat.completion, text_completion and their chunks.
 *
 * In a stream what stays the same is made once (answer.head, answer.tail), so a chunk costs the
 * escape of its text and a few copies.
 */
#include <stdio.h>
#include <string.h>

#include "router/http/answer.h"
#include "runtime/base/json.h"

static bool is_chat(const struct answer *a)
{
    return a->api->kind == API_CHAT;
}

/* id to system_fingerprint, of an object that is open. */
static void write_identity(const struct answer *a, struct json *w, bool chunk)
{
    char fingerprint[20];
    snprintf(fingerprint, sizeof(fingerprint), "fp_%.10s", a->api->model->manifest_sha256);
    json_key(w, "id");
    json_str(w, a->id);
    json_key(w, "object");
    json_str(w, !is_chat(a) ? "text_completion"
                : chunk     ? "chat.completion.chunk"
                            : "chat.completion");
    json_key(w, "created");
    json_int(w, a->created_s);
    json_key(w, "model");
    json_str(w, a->api->model->name);
    json_key(w, "system_fingerprint");
    json_str(w, fingerprint);
}

int answer_prepare_chunks(struct answer *a)
{
    struct buf text;
    struct json w;
    if (!a->api->stream)
        return 0;
    buf_init(&text, 0);
    buf_adds(&text, "data: ");
    json_init(&w, &text);
    json_obj(&w);
    write_identity(a, &w, true);
    buf_adds(&text, ",\"choices\":[");
    a->head_n = text.len;
    a->head = text.failed ? NULL : arena_strndup(&a->request->arena, text.data, text.len);
    buf_release(&text);
    a->tail = a->api->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n";
    a->tail_n = strlen(a->tail);
    return a->head ? 0 : -1;
}

static void open_chunk(const struct answer *a, const struct choice *c, struct buf *out)
{
    buf_add(out, a->head, a->head_n);
    buf_adds(out, "{\"index\":");
    if (c->index < 10)
        buf_addc(out, (char)('0' + c->index));
    else
        buf_addf(out, "%u", c->index);
}

/* n_tokens: of the output, this chunk's included. */
static void close_chunk(const struct answer *a, const struct choice *c, uint32_t n_tokens,
                        const char *finish, struct buf *out)
{
    if (finish) {
        buf_adds(out, ",\"finish_reason\":\"");
        buf_adds(out, finish);
        buf_adds(out, "\"}");
    } else {
        buf_adds(out, ",\"finish_reason\":null}");
    }
    if (a->api->continuous_usage) /* as vLLM: of this choice, so far */
        buf_addf(out,
                 "],\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,"
                 "\"total_tokens\":%u}}\n\n",
                 c->prompt->n, n_tokens, c->prompt->n + n_tokens);
    else
        buf_add(out, a->tail, a->tail_n);
}

void answer_write_role(struct answer *a, const struct choice *c, struct buf *out)
{
    open_chunk(a, c, out);
    buf_adds(out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null");
    close_chunk(a, c, 0, NULL, out);
}

static void write_logprobs(const struct choice *c, struct buf *out)
{
    if (c->logprobs && !logprobs_empty(c->logprobs))
        logprobs_write(c->logprobs, out);
    else
        buf_adds(out, "null");
}

void answer_write_delta(struct answer *a, const struct choice *c, const char *text, size_t n,
                        struct buf *out)
{
    open_chunk(a, c, out);
    buf_adds(out, is_chat(a) ? ",\"delta\":{\"content\":\"" : ",\"text\":\"");
    json_escape(out, text, n);
    buf_adds(out, is_chat(a) ? "\"},\"logprobs\":" : "\",\"logprobs\":");
    write_logprobs(c, out);
    close_chunk(a, c, c->n_tokens, NULL, out);
}

/* ---- calls of tools and thoughts ---------------------------------------------------------------
 */

static void open_delta(const struct answer *a, const struct choice *c, struct buf *out)
{
    open_chunk(a, c, out);
    buf_adds(out, ",\"delta\":{");
}

static void close_delta(struct answer *a, struct choice *c, struct buf *out)
{
    buf_adds(out, "},\"logprobs\":");
    write_logprobs(c, out);
    if (c->logprobs)
        logprobs_clear(c->logprobs);
    close_chunk(a, c, c->n_tokens, NULL, out);
}

static void write_piece(struct answer *a, struct choice *c, const char *key, struct buf *text,
                        struct buf *out)
{
    if (text->len == 0)
        return;
    open_delta(a, c, out);
    buf_addf(out, "\"%s\":\"", key);
    json_escape(out, text->data, text->len);
    buf_addc(out, '"');
    close_delta(a, c, out);
    buf_clear(text);
}

/* "id" to "function", which is left open. Mistral's templates want ids of nine letters and digits,
 * so all have that. */
static void open_call(const struct answer *a, const struct choice *c, uint32_t i,
                      const struct speech_call *call, struct buf *out)
{
    size_t n = strlen(a->id);
    buf_addf(out, "\"id\":\"%.5s%02x%02x\",\"type\":\"function\",\"function\":{\"name\":\"",
             a->id + (n > 5 ? n - 5 : 0), c->index & 0xffu, i & 0xffu);
    json_escape(out, buf_str(&call->name), call->name.len);
    buf_adds(out, "\",\"arguments\":\"");
}

static void write_call(struct answer *a, struct choice *c, uint32_t i, struct buf *out)
{
    const struct speech_call *call = &c->speech->said.calls[i];
    if (i == c->n_told) {
        open_delta(a, c, out);
        buf_addf(out, "\"tool_calls\":[{\"index\":%u,", i);
        open_call(a, c, i, call, out);
        buf_adds(out, "\"}}]");
        close_delta(a, c, out);
        c->n_told++;
        c->told_bytes = 0;
    }
    if (call->n_ready == c->told_bytes)
        return;
    open_delta(a, c, out);
    buf_addf(out, "\"tool_calls\":[{\"index\":%u,\"function\":{\"arguments\":\"", i);
    json_escape(out, call->arguments.data + c->told_bytes, call->n_ready - c->told_bytes);
    buf_adds(out, "\"}}]");
    close_delta(a, c, out);
    c->told_bytes = call->n_ready;
}

void answer_write_speech(struct answer *a, struct choice *c, struct buf *out)
{
    struct speech_said *said = &c->speech->said;
    write_piece(a, c, "reasoning_content", &said->reasoning, out);
    write_piece(a, c, "content", &said->content, out);
    for (uint32_t i = c->n_told > 0 ? c->n_told - 1 : 0; i < said->n_calls; i++)
        write_call(a, c, i, out);
    if (c->logprobs && !logprobs_empty(c->logprobs)) {
        open_delta(a, c, out);
        close_delta(a, c, out);
    }
}

/* Members of a whole message behind its role. */
static void write_said(const struct answer *a, const struct choice *c, struct json *w)
{
    const struct speech_said *said = &c->speech->said;
    json_key(w, "content");
    if (said->content.len == 0 && said->n_calls > 0)
        json_null(w);
    else
        json_strn(w, buf_str(&said->content), said->content.len);
    if (said->reasoning.len > 0) {
        json_key(w, "reasoning_content");
        json_strn(w, buf_str(&said->reasoning), said->reasoning.len);
    }
    if (said->n_calls == 0)
        return;
    json_key(w, "tool_calls");
    json_arr(w);
    for (uint32_t i = 0; i < said->n_calls; i++) {
        const struct speech_call *call = &said->calls[i];
        json_raw(w, "{", 1);
        open_call(a, c, i, call, w->out);
        json_escape(w->out, buf_str(&call->arguments), call->arguments.len);
        buf_adds(w->out, "\"}}");
    }
    json_arr_end(w);
}

static const char *finish_name(const struct choice *c)
{
    if (c->finish == GEN_LENGTH)
        return "length";
    return c->speech && c->speech->said.n_calls > 0 ? "tool_calls" : "stop";
}

void answer_write_finish(struct answer *a, const struct choice *c, struct buf *out)
{
    open_chunk(a, c, out);
    buf_adds(out,
             is_chat(a) ? ",\"delta\":{},\"logprobs\":null" : ",\"text\":\"\",\"logprobs\":null");
    close_chunk(a, c, c->n_tokens, finish_name(c), out);
}

static void write_usage(const struct answer *a, struct json *w)
{
    uint64_t prompt = 0;
    uint64_t output = 0;
    uint64_t cached = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        const struct choice *c = &a->choices[i];
        bool first = i % (uint32_t)a->api->n == 0;
        prompt += first ? c->prompt->n : 0;
        cached += first ? c->usage.cached_tokens : 0;
        output += c->usage.output_tokens;
    }
    json_obj(w);
    json_key(w, "prompt_tokens");
    json_uint(w, prompt);
    json_key(w, "completion_tokens");
    json_uint(w, output);
    json_key(w, "total_tokens");
    json_uint(w, prompt + output);
    json_key(w, "prompt_tokens_details");
    json_obj(w);
    json_key(w, "cached_tokens");
    json_uint(w, cached);
    json_obj_end(w);
    json_obj_end(w);
}

void answer_write_end(struct answer *a, struct buf *out)
{
    if (a->api->include_usage) {
        struct json w;
        buf_add(out, a->head, a->head_n);
        buf_adds(out, "],\"usage\":");
        json_init(&w, out);
        write_usage(a, &w);
        buf_adds(out, "}\n\n");
    }
    buf_adds(out, "data: [DONE]\n\n");
}

static void write_text(const struct answer *a, const struct choice *c, struct json *w)
{
    if (!is_chat(a)) {
        json_key(w, "text");
        /* One string of two parts: echo and answer. */
        json_raw(w, "\"", 1);
        if (a->api->echo)
            json_escape(w->out, c->prompt->text, c->prompt->text_n);
        json_escape(w->out, buf_str(&c->text), c->text.len);
        buf_addc(w->out, '"');
        return;
    }
    json_key(w, "message");
    json_obj(w);
    json_key(w, "role");
    json_str(w, "assistant");
    if (c->speech) {
        write_said(a, c, w);
    } else {
        json_key(w, "content");
        json_strn(w, buf_str(&c->text), c->text.len);
    }
    json_key(w, "refusal");
    json_null(w);
    json_obj_end(w);
}

static void write_choice(const struct answer *a, const struct choice *c, struct json *w)
{
    json_obj(w);
    json_key(w, "index");
    json_uint(w, c->index);
    write_text(a, c, w);
    json_key(w, "logprobs");
    if (c->logprobs) {
        json_raw(w, "", 0);
        logprobs_write(c->logprobs, w->out);
    } else {
        json_null(w);
    }
    json_key(w, "finish_reason");
    json_str(w, finish_name(c));
    json_obj_end(w);
}

void answer_write_whole(struct answer *a, struct buf *out)
{
    struct json w;
    json_init(&w, out);
    json_obj(&w);
    write_identity(a, &w, false);
    json_key(&w, "choices");
    json_arr(&w);
    for (uint32_t i = 0; i < a->n; i++)
        write_choice(a, &a->choices[i], &w);
    json_arr_end(&w);
    json_key(&w, "usage");
    write_usage(a, &w);
    json_obj_end(&w);
}
