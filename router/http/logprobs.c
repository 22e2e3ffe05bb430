#include "router/http/logprobs.h"

#include <math.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/text/utf8.h"

/* OpenAI's number for 'very unlikely': JSON has no infinity. */
#define LOGPROB_MIN (-9999.0f)

void logprobs_init(struct logprobs *l, const struct tokenizer *t, bool chat, uint32_t n_top)
{
    memset(l, 0, sizeof(*l));
    l->tokenizer = t;
    l->chat = chat;
    l->n_top = n_top;
    for (size_t i = 0; i < 4; i++)
        buf_init(&l->parts[i], 0);
}

void logprobs_release(struct logprobs *l)
{
    for (size_t i = 0; i < 4; i++)
        buf_release(&l->parts[i]);
}

void logprobs_clear(struct logprobs *l)
{
    for (size_t i = 0; i < 4; i++)
        buf_clear(&l->parts[i]);
}

bool logprobs_empty(const struct logprobs *l)
{
    return l->parts[0].len == 0;
}

size_t logprobs_bytes(const struct logprobs *l)
{
    size_t n = 0;
    for (size_t i = 0; i < 4; i++)
        n += l->parts[i].len;
    return n;
}

static float shown(float logprob)
{
    return isfinite(logprob) && logprob > LOGPROB_MIN ? logprob : LOGPROB_MIN;
}

/* The members that a token and each of its alternatives have. */
static void chat_members(struct json *w, const struct tokenizer *t, uint32_t id, float logprob)
{
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, id, true, &n);
    struct buf text;
    buf_init(&text, 0);
    utf8_add_lossy(&text, bytes, n);
    json_key(w, "token");
    json_strn(w, buf_str(&text), text.len);
    buf_release(&text);
    json_key(w, "logprob");
    json_float(w, shown(logprob));
    json_key(w, "bytes");
    json_arr(w);
    for (size_t i = 0; i < n; i++)
        json_uint(w, (unsigned char)bytes[i]);
    json_arr_end(w);
}

static void chat_add(struct logprobs *l, uint32_t id, const struct gen_logprob *p)
{
    struct json w;
    if (l->parts[0].len)
        buf_addc(&l->parts[0], ',');
    json_init(&w, &l->parts[0]);
    json_obj(&w);
    chat_members(&w, l->tokenizer, id, p->logprob);
    json_key(&w, "top_logprobs");
    json_arr(&w);
    for (uint32_t i = 0; i < p->n_top && i < l->n_top; i++) {
        json_obj(&w);
        chat_members(&w, l->tokenizer, p->top_ids[i], p->top_logprobs[i]);
        json_obj_end(&w);
    }
    json_arr_end(&w);
    json_obj_end(&w);
}

/* A token's text as a completion shows it: half a character is "bytes:\xe2\x82". */
static void token_text(const struct tokenizer *t, uint32_t id, struct buf *out)
{
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, id, true, &n);
    if (utf8_valid_bytes(bytes, n) == n) {
        buf_add(out, bytes, n);
        return;
    }
    buf_adds(out, "bytes:");
    for (size_t i = 0; i < n; i++)
        buf_addf(out, "\\x%02x", (unsigned char)bytes[i]);
}

static void text_add(struct logprobs *l, uint32_t id, const struct gen_logprob *p)
{
    struct json w[4];
    struct buf key;
    bool has_own = false;
    for (size_t i = 0; i < 4; i++) {
        if (l->parts[i].len)
            buf_addc(&l->parts[i], ',');
        json_init(&w[i], &l->parts[i]);
    }
    buf_init(&key, 0);
    token_text(l->tokenizer, id, &key);
    json_strn(&w[0], buf_str(&key), key.len);
    json_float(&w[1], shown(p->logprob));
    json_obj(&w[2]);
    for (uint32_t i = 0; i < p->n_top && i < l->n_top; i++) {
        buf_clear(&key);
        token_text(l->tokenizer, p->top_ids[i], &key);
        json_key(&w[2], buf_str(&key));
        json_float(&w[2], shown(p->top_logprobs[i]));
        has_own = has_own || p->top_ids[i] == id;
    }
    if (!has_own) { /* as OpenAI: the token itself is always among them */
        buf_clear(&key);
        token_text(l->tokenizer, id, &key);
        json_key(&w[2], buf_str(&key));
        json_float(&w[2], shown(p->logprob));
    }
    json_obj_end(&w[2]);
    buf_release(&key);
    json_uint(&w[3], l->chars);
}

/* Characters that begin in the token: what its place in the text moves by. */
static uint32_t count_chars(const struct tokenizer *t, uint32_t id)
{
    size_t n;
    uint32_t chars = 0;
    const char *bytes = tokenizer_token_bytes(t, id, false, &n);
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)bytes[i] & 0xc0) != 0x80;
    return chars;
}

void logprobs_add(struct logprobs *l, uint32_t id, const struct gen_logprob *p)
{
    if (l->chat) {
        chat_add(l, id, p);
        return;
    }
    text_add(l, id, p);
    l->chars += count_chars(l->tokenizer, id);
}

void logprobs_write(const struct logprobs *l, struct buf *out)
{
    static const char *const names[] = {"{\"tokens\":[", "],\"token_logprobs\":[",
                                        "],\"top_logprobs\":[", "],\"text_offset\":["};
    if (l->chat) {
        buf_adds(out, "{\"content\":[");
        buf_add(out, l->parts[0].data, l->parts[0].len);
        buf_adds(out, "],\"refusal\":null}");
        return;
    }
    for (size_t i = 0; i < 4; i++) {
        buf_adds(out, names[i]);
        buf_add(out, l->parts[i].data, l->parts[i].len);
    }
    buf_adds(out, "]}");
}
