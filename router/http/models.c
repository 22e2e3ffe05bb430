/* models.c: GET /v1/models, /v1/models/{id}, /health, /ready. */
#include <stdio.h>
#include <string.h>

#include "router/http/http_internal.h"
#include "router/http/route.h"
#include "router/model_text.h"
#include "runtime/base/json.h"

static void write_model(const struct model_texts *texts, const struct model_text *m, struct json *w)
{
    json_obj(w);
    json_key(w, "id");
    json_str(w, m->name);
    json_key(w, "object");
    json_str(w, "model");
    json_key(w, "created");
    json_int(w, m->created_s);
    json_key(w, "owned_by");
    json_str(w, "argosy");
    json_key(w, "max_model_len");
    json_uint(w, m->context_tokens);
    json_key(w, "manifest_sha256");
    json_str(w, m->manifest_sha256);
    json_key(w, "parent");
    if (!m->adapter_sha256[0]) {
        json_null(w);
    } else {
        json_str(w, texts->items[m->base].name);
        json_key(w, "adapter_sha256");
        json_str(w, m->adapter_sha256);
    }
    json_obj_end(w);
}

void models_list_handle(struct request *r)
{
    const struct model_texts *texts = r->http->texts;
    struct buf body;
    struct json w;
    buf_init(&body, 0);
    json_init(&w, &body);
    json_obj(&w);
    json_key(&w, "object");
    json_str(&w, "list");
    json_key(&w, "data");
    json_arr(&w);
    for (size_t i = 0; i < texts->n; i++)
        write_model(texts, &texts->items[i], &w);
    json_arr_end(&w);
    json_obj_end(&w);
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

void models_one_handle(struct request *r)
{
    const struct model_text *m = r->rest ? model_texts_find(r->http->texts, r->rest) : NULL;
    if (!m) {
        struct api_error e;
        api_error_set(&e, 404, "model_not_found", "model", "The model `%.100s` does not exist.",
                      r->rest ? r->rest : "");
        request_fail(r, &e);
        return;
    }
    struct buf body;
    struct json w;
    buf_init(&body, 0);
    json_init(&w, &body);
    write_model(r->http->texts, m, &w);
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

void health_handle(struct request *r)
{
    struct buf body;
    buf_init(&body, 0);
    buf_adds(&body, "{\"status\":\"ok\"}");
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

static bool is_ready(const struct http *h)
{
    for (size_t i = 0; i < h->texts->n && !h->stopping; i++)
        if (pool_workers_ready(h->pool, h->texts->items[i].name) > 0)
            return true;
    return false;
}

void ready_handle(struct request *r)
{
    struct http *h = r->http;
    struct buf body;
    struct json w;
    bool ready = is_ready(h);
    buf_init(&body, 0);
    json_init(&w, &body);
    json_obj(&w);
    json_key(&w, "status");
    json_str(&w, ready ? "ready" : "not ready");
    if (!ready) {
        json_key(&w, "reason");
        json_str(&w, h->stopping ? "the router is draining" : "no worker is ready for any model");
        request_header(r, "Retry-After", "1");
    }
    json_key(&w, "models");
    json_obj(&w);
    for (size_t i = 0; i < h->texts->n; i++) {
        json_key(&w, h->texts->items[i].name);
        json_uint(&w, pool_workers_ready(h->pool, h->texts->items[i].name));
    }
    json_obj_end(&w);
    json_obj_end(&w);
    request_reply_json(r, ready ? 200 : 503, &body);
    buf_release(&body);
}
