/* tokenize.c: POST /tokenize and /detokenize, in vLLM's shapes. */
#include "router/http/tokenize.h"

#include "router/http/http_internal.h"
#include "router/http/route.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/text/utf8.h"

static void write_token(struct json *w, const struct tokenizer *t, uint32_t id)
{
    size_t n;
    struct buf text;
    const char *bytes = tokenizer_token_bytes(t, id, true, &n);
    buf_init(&text, 0);
    utf8_add_lossy(&text, bytes, n);
    json_strn(w, buf_str(&text), text.len);
    buf_release(&text);
}

static void reply_tokens(struct request *r, const struct model_text *m, const struct api_prompt *p,
                         bool strings)
{
    struct buf body;
    struct json w;
    buf_init(&body, 0);
    json_init(&w, &body);
    json_obj(&w);
    json_key(&w, "count");
    json_uint(&w, p->n);
    json_key(&w, "max_model_len");
    json_uint(&w, m->context_tokens);
    json_key(&w, "tokens");
    json_arr(&w);
    for (uint32_t i = 0; i < p->n; i++)
        json_uint(&w, p->ids[i]);
    json_arr_end(&w);
    json_key(&w, "token_strs");
    if (strings) {
        json_arr(&w);
        for (uint32_t i = 0; i < p->n; i++)
            write_token(&w, m->tokenizer, p->ids[i]);
        json_arr_end(&w);
    } else {
        json_null(&w);
    }
    json_obj_end(&w);
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

void tokenize_handle(struct request *r)
{
    struct api_error e;
    struct tokenize_call c;
    struct api_context ctx = {&r->http->config, r->http->texts, &r->arena, clock_wall_s(), false};
    if (tokenize_read(&c, buf_str(&r->body), r->body.len, &ctx, &e))
        request_fail(r, &e);
    else
        reply_tokens(r, c.model, &c.prompt, c.strings);
}

static void reply_text(struct request *r, const struct buf *text)
{
    struct buf body;
    struct json w;
    buf_init(&body, 0);
    json_init(&w, &body);
    json_obj(&w);
    json_key(&w, "prompt");
    json_strn(&w, buf_str(text), text->len);
    json_obj_end(&w);
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

void detokenize_handle(struct request *r)
{
    struct api_error e;
    struct buf text;
    struct api_context ctx = {&r->http->config, r->http->texts, &r->arena, clock_wall_s(), false};
    buf_init(&text, 0);
    if (detokenize_read(buf_str(&r->body), r->body.len, &ctx, &text, &e))
        request_fail(r, &e);
    else
        reply_text(r, &text);
    buf_release(&text);
}
