#include "runtime/cli/top_view.h"

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 8

/* ---- reading ----------------------------------------------------------------------------------
 */

/* Printable ASCII, a '?' for each other character. */
static void take_text(struct json_object *from, const char *key, char *out, size_t n)
{
    struct json_object *v = NULL;
    size_t len = 0;
    if (json_object_object_get_ex(from, key, &v) && json_object_is_type(v, json_type_string))
        for (const unsigned char *p = (const unsigned char *)json_object_get_string(v);
             *p && len + 1 < n; p++) {
            if (*p >= 0x20 && *p < 0x7f)
                out[len++] = (char)*p;
            else if (*p < 0x80 || *p >= 0xc0)
                out[len++] = '?';
        }
    out[len] = 0;
}

static double number(struct json_object *from, const char *key)
{
    struct json_object *v = NULL;
    double x = json_object_object_get_ex(from, key, &v) ? json_object_get_double(v) : 0;
    return x >= 0 && x < 1e15 ? x : 0; /* not NaN either */
}

static uint32_t count(struct json_object *from, const char *key)
{
    double x = number(from, key);
    return x < 4e9 ? (uint32_t)x : 0;
}

static void take_worker(struct json_object *o, struct top_worker *w)
{
    struct json_object *labels = NULL;
    double pages = number(o, "kv_pages");
    take_text(o, "id", w->id, sizeof(w->id));
    take_text(o, "device", w->device, sizeof(w->device));
    take_text(o, "state", w->state, sizeof(w->state));
    if (json_object_object_get_ex(o, "labels", &labels))
        take_text(labels, "region", w->region, sizeof(w->region));
    w->running = count(o, "running");
    w->waiting = count(o, "waiting");
    w->sequences_max = count(o, "sequences_max");
    w->kv = pages > 0 ? number(o, "kv_pages_used") / pages : 0;
    w->tokens_per_s = number(o, "tokens_per_s");
    w->price = number(o, "price");
    w->attached_s = (uint64_t)number(o, "attached_s");
}

/* A number of the sample by the name of its column; -1: none, or null. */
static double sampled(struct json_object *root, const char *name)
{
    struct json_object *columns = NULL, *sample = NULL, *v;
    if (!json_object_object_get_ex(root, "columns", &columns) ||
        !json_object_object_get_ex(root, "sample", &sample) ||
        !json_object_is_type(columns, json_type_array) ||
        !json_object_is_type(sample, json_type_array))
        return -1;
    for (size_t i = 0; i < json_object_array_length(columns); i++) {
        const char *key = json_object_get_string(json_object_array_get_idx(columns, i));
        if (!key || strcmp(key, name) != 0)
            continue;
        v = json_object_array_get_idx(sample, i);
        double x = v ? json_object_get_double(v) : -1;
        return x >= 0 && x < 1e15 ? x : -1;
    }
    return -1;
}

static double rate(struct json_object *root, const char *name)
{
    double x = sampled(root, name);
    return x > 0 ? x : 0;
}

static int take_root(struct top_view *v, struct json_object *root, struct err *e)
{
    struct json_object *router = NULL, *workers = NULL;
    if (!json_object_object_get_ex(root, "router", &router) ||
        !json_object_object_get_ex(root, "workers", &workers) ||
        !json_object_is_type(workers, json_type_array))
        return err_set(e, ERR_FORMAT, "the endpoint's snapshot has no router and workers");
    take_text(router, "version", v->version, sizeof(v->version));
    take_text(router, "state", v->state, sizeof(v->state));
    v->up_s = (uint64_t)number(router, "up_s");
    v->moves = (uint64_t)number(router, "moves");
    v->n_attached = count(router, "workers");
    v->running = (uint32_t)rate(root, "running");
    v->waiting = (uint32_t)rate(root, "waiting");
    v->requests_per_s = rate(root, "requests");
    v->failed_per_s = rate(root, "failed");
    v->tokens_per_s = rate(root, "tokens");
    v->prompt_tokens_per_s = rate(root, "prompt_tokens");
    v->first_ms[0] = sampled(root, "ttft_p50_ms");
    v->first_ms[1] = sampled(root, "ttft_p95_ms");
    v->each_ms[0] = sampled(root, "itl_p50_ms");
    v->each_ms[1] = sampled(root, "itl_p95_ms");
    size_t n = json_object_array_length(workers);
    n = n < TOP_WORKERS_MAX ? n : TOP_WORKERS_MAX;
    v->workers = calloc(n ? n : 1, sizeof(*v->workers));
    if (!v->workers)
        return err_set(e, ERR_NOMEM, "no memory for %zu workers", n);
    for (size_t i = 0; i < n; i++)
        take_worker(json_object_array_get_idx(workers, i), &v->workers[v->n++]);
    return 0;
}

int top_view_read(struct top_view *v, const char *json, size_t n, struct err *e)
{
    struct json_tokener *t = json_tokener_new_ex(DEPTH_MAX);
    top_view_release(v);
    if (!t)
        return err_set(e, ERR_NOMEM, "no memory for a reader of JSON");
    struct json_object *root = n < INT32_MAX ? json_tokener_parse_ex(t, json, (int)n) : NULL;
    int rc = json_object_is_type(root, json_type_object)
                 ? take_root(v, root, e)
                 : err_set(e, ERR_FORMAT, "the endpoint's snapshot is no JSON object");
    if (root)
        json_object_put(root);
    json_tokener_free(t);
    if (rc < 0)
        top_view_release(v);
    return rc;
}

void top_view_release(struct top_view *v)
{
    free(v->workers);
    memset(v, 0, sizeof(*v));
}

/* ---- order ------------------------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    return strverscmp(((const struct top_worker *)a)->id, ((const struct top_worker *)b)->id);
}

static int by_tokens(const void *a, const void *b)
{
    double x = ((const struct top_worker *)a)->tokens_per_s;
    double y = ((const struct top_worker *)b)->tokens_per_s;
    return x != y ? (x < y) - (x > y) : by_name(a, b);
}

static double use_of(const struct top_worker *w)
{
    return w->sequences_max ? (double)w->running / w->sequences_max : 0;
}

static int by_use(const void *a, const void *b)
{
    double x = use_of(a), y = use_of(b);
    return x != y ? (x < y) - (x > y) : by_name(a, b);
}

void top_view_sort(struct top_view *v, enum top_order order)
{
    static int (*const compare[])(const void *, const void *) = {by_name, by_tokens, by_use};
    if (v->n)
        qsort(v->workers, v->n, sizeof(*v->workers), compare[order]);
}
