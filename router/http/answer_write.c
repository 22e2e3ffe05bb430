/* answer_write.c: the JSON of chat.completion, text_completion and their chunks.
 *
 * In a stream what stays the same is made once (answer.head, answer.tail), so a chunk costs the
 * escape of its text and a few copies.
 */
#include <string.h>

#include "router/http/answer.h"
#include "runtime/base/json.h"

static bool is_chat(const struct answer *a)
{
    return a->api->kind == API_CHAT;
}

/* id to system_fingerprint, of an object that is open. */
static void write_identity(const struct answer *a, const char *object, struct buf *out)
{
    const char *manifest = a->api->model->manifest_sha256;
    buf_adds(out, "\"id\":\"");
    buf_adds(out, a->id); /* ours: nothing in it needs an escape */
    buf_adds(out, "\",\"object\":\"");
    buf_adds(out, object);
    buf_adds(out, "\",\"created\":");
    buf_addint(out, a->created_s);
    buf_adds(out, ",\"model\":\"");
    json_escape(out, a->api->model->name, strlen(a->api->model->name));
    buf_adds(out, "\",\"system_fingerprint\":\"fp_");
    buf_add(out, manifest, strnlen(manifest, 10));
    buf_addc(out, '"');
}

int answer_prepare_chunks(struct answer *a)
{
    struct buf text;
    if (!a->api->stream)
        return 0;
    buf_init(&text, 0);
    buf_adds(&text, "data: {");
    write_identity(a, is_chat(a) ? "chat.completion.chunk" : "text_completion", &text);
    buf_adds(&text, ",\"choices\":[");
    a->head_n = text.len;
    buf_adds(&text, "{\"index\":");
    a->open_n = text.len;
    a->head = text.failed ? NULL : arena_strndup(&a->request->arena, text.data, text.len);
    buf_release(&text);
    a->tail = a->api->include_usage ? "],\"usage\":null}\n\n" : "]}\n\n";
    a->tail_n = strlen(a->tail);
    return a->head ? 0 : -1;
}

static void open_chunk(const struct answer *a, const struct choice *c, struct buf *out)
{
    buf_add(out, a->head, a->open_n);
    if (c->index < 10)
        buf_addc(out, (char)('0' + c->index));
    else
        buf_adduint(out, c->index);
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
    bool plain = !a->api->continuous_usage && (!c->logprobs || logprobs_empty(c->logprobs));
    open_chunk(a, c, out);
    buf_adds(out, is_chat(a) ? ",\"delta\":{\"content\":\"" : ",\"text\":\"");
    json_escape(out, text, n);
    buf_adds(out, is_chat(a) ? "\"}" : "\"");
    if (plain) { /* nearly all chunks: what follows is known */
        buf_adds(out, ",\"logprobs\":null,\"finish_reason\":null}");
        buf_add(out, a->tail, a->tail_n);
        return;
    }
    buf_adds(out, ",\"logprobs\":");
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

static void write_string(struct buf *out, const char *s, size_t n)
{
    buf_addc(out, '"');
    json_escape(out, s, n);
    buf_addc(out, '"');
}

/* Behind "content": of a whole message. */
static void write_said(const struct answer *a, const struct choice *c, struct buf *out)
{
    const struct speech_said *said = &c->speech->said;
    if (said->content.len == 0 && said->n_calls > 0)
        buf_adds(out, "null");
    else
        write_string(out, buf_str(&said->content), said->content.len);
    if (said->reasoning.len > 0) {
        buf_adds(out, ",\"reasoning_content\":");
        write_string(out, buf_str(&said->reasoning), said->reasoning.len);
    }
    for (uint32_t i = 0; i < said->n_calls; i++) {
        const struct speech_call *call = &said->calls[i];
        buf_adds(out, i ? ",{" : ",\"tool_calls\":[{");
        open_call(a, c, i, call, out);
        json_escape(out, buf_str(&call->arguments), call->arguments.len);
        buf_adds(out, "\"}}");
    }
    if (said->n_calls > 0)
        buf_addc(out, ']');
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

static void write_usage(const struct answer *a, struct buf *out)
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
    buf_adds(out, "{\"prompt_tokens\":");
    buf_adduint(out, prompt);
    buf_adds(out, ",\"completion_tokens\":");
    buf_adduint(out, output);
    buf_adds(out, ",\"total_tokens\":");
    buf_adduint(out, prompt + output);
    buf_adds(out, ",\"prompt_tokens_details\":{\"cached_tokens\":");
    buf_adduint(out, cached);
    buf_adds(out, "}}");
}

void answer_write_end(struct answer *a, struct buf *out)
{
    if (a->api->include_usage) {
        buf_add(out, a->head, a->head_n);
        buf_adds(out, "],\"usage\":");
        write_usage(a, out);
        buf_adds(out, "}\n\n");
    }
    buf_adds(out, "data: [DONE]\n\n");
}

static void write_text(const struct answer *a, const struct choice *c, struct buf *out)
{
    if (!is_chat(a)) {
        buf_adds(out, ",\"text\":\"");
        if (a->api->echo)
            json_escape(out, c->prompt->text, c->prompt->text_n);
        json_escape(out, buf_str(&c->text), c->text.len);
        buf_addc(out, '"');
        return;
    }
    buf_adds(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
    if (c->speech)
        write_said(a, c, out);
    else
        write_string(out, buf_str(&c->text), c->text.len);
    buf_adds(out, ",\"refusal\":null}");
}

static void write_choice(const struct answer *a, const struct choice *c, struct buf *out)
{
    buf_adds(out, "{\"index\":");
    buf_adduint(out, c->index);
    write_text(a, c, out);
    buf_adds(out, ",\"logprobs\":");
    if (c->logprobs)
        logprobs_write(c->logprobs, out);
    else
        buf_adds(out, "null");
    buf_adds(out, ",\"finish_reason\":\"");
    buf_adds(out, finish_name(c));
    buf_adds(out, "\"}");
}

void answer_write_whole(struct answer *a, struct buf *out)
{
    buf_addc(out, '{');
    write_identity(a, is_chat(a) ? "chat.completion" : "text_completion", out);
    buf_adds(out, ",\"choices\":[");
    for (uint32_t i = 0; i < a->n; i++) {
        if (i)
            buf_addc(out, ',');
        write_choice(a, &a->choices[i], out);
    }
    buf_adds(out, "],\"usage\":");
    write_usage(a, out);
    buf_addc(out, '}');
}
