#include "router/http/auth.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "router/http/clients.h"
#include "router/http/conn_internal.h"
#include "router/http/http_internal.h"
#include "router/http/route.h"
#include "router/policy/policy.h"
#include "runtime/base/rng.h"

#define SECRET_BYTES_MAX 512

/* ---- who asks -------------------------------------------------------------------------------- */

static bool is_open(const struct request *r)
{
    const struct http_config *c = &r->http->config;
    if (r->method == HTTP_OPTIONS)
        return c->cors_origin != NULL;
    if (!r->route)
        return false;
    return r->route->access == ROUTE_OPEN || (r->route->access == ROUTE_METRICS && c->metrics_open);
}

const char *auth_check(struct request *r, const struct head *h)
{
    static const char scheme[] = "bearer ";
    struct keyring *keys = r->http->config.keys;
    struct slice value = head_find(h, "authorization");
    if (!keys || is_open(r))
        return NULL;
    if (value.n == 0)
        return "An API key is needed: send it as 'Authorization: Bearer KEY'.";
    size_t n = sizeof(scheme) - 1;
    if (value.n <= n || value.n > n + SECRET_BYTES_MAX || strncasecmp(value.p, scheme, n) != 0)
        return "The Authorization header is not 'Bearer KEY'.";
    r->tenant = keyring_find(keys, value.p + n, value.n - n);
    return r->tenant ? NULL : "The API key is not known.";
}

uint64_t auth_tenant(const struct request *r)
{
    return r->tenant ? tenant_hash(r->tenant) : r->conn->client->hash;
}

void auth_salt(const struct request *r, const char *cache_salt, uint8_t *salt)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct buf text;
    if (!r->tenant && !cache_salt)
        return;
    buf_init(&text, 0);
    if (r->tenant)
        buf_add(&text, tenant_key(r->tenant)->hash, KEY_HASH_BYTES);
    if (cache_salt)
        buf_adds(&text, cache_salt);
    if (text.failed || !EVP_Digest(buf_str(&text), text.len, digest, NULL, EVP_sha256(), NULL))
        rng_entropy(digest, 32); /* sharing with nobody is never wrong */
    memcpy(salt, digest, sizeof(((struct gen_request *)0)->cache_salt));
    buf_release(&text);
}

/* ---- what the key lets them have ------------------------------------------------------------- */

/* Go's way to write a duration, as OpenAI sends it: "6m0s", "1.5s", "20ms". */
static void write_duration(uint32_t ms, char *out, size_t n)
{
    if (ms < 1000)
        snprintf(out, n, "%ums", ms);
    else if (ms < 60000)
        snprintf(out, n, "%u.%03us", ms / 1000, ms % 1000);
    else
        snprintf(out, n, "%um%us", ms / 60000, ms / 1000 % 60);
}

static void add_limit(struct request *r, const char *what, uint64_t limit, uint64_t left,
                      uint32_t reset_ms)
{
    char name[64], value[32];
    if (limit == 0)
        return;
    snprintf(name, sizeof(name), "x-ratelimit-limit-%s", what);
    snprintf(value, sizeof(value), "%" PRIu64, limit);
    request_header(r, name, value);
    snprintf(name, sizeof(name), "x-ratelimit-remaining-%s", what);
    snprintf(value, sizeof(value), "%" PRIu64, left);
    request_header(r, name, value);
    snprintf(name, sizeof(name), "x-ratelimit-reset-%s", what);
    write_duration(left < limit ? reset_ms : 0, value, sizeof(value));
    request_header(r, name, value);
}

static void add_limits(struct request *r)
{
    struct tenant_left l = tenant_left_of(r->http->config.keys, r->tenant);
    add_limit(r, "requests", l.requests_limit, l.requests, l.reset_ms);
    add_limit(r, "tokens", l.tokens_limit, l.tokens, l.reset_ms);
}

static void explain(const struct refusal *why, struct api_error *e)
{
    static const char *const of[] = {
        [REFUSAL_REQUESTS] = "requests a minute",
        [REFUSAL_TOKENS] = "tokens a minute",
        [REFUSAL_RUNNING] = "requests at once",
        [REFUSAL_BUDGET] = "tokens in all",
    };
    if (why->kind == REFUSAL_UNSURE)
        api_error_set(e, 503, "quota_unavailable", NULL,
                      "What is left of this key's limits cannot be told now.");
    else if (why->never && why->asked > why->limit)
        api_error_set(e, 429, "rate_limit_exceeded", NULL,
                      "The request may take %" PRIu64 " tokens (prompt and max_tokens), and this "
                      "key's limit is %" PRIu64 " %s. Ask for fewer max_tokens.",
                      why->asked, why->limit, of[why->kind]);
    else if (why->never)
        api_error_set(e, 429, "insufficient_quota", NULL,
                      "This key's budget of %" PRIu64 " tokens has no room for the %" PRIu64
                      " that the request may take.",
                      why->limit, why->asked);
    else
        api_error_set(e, 429, "rate_limit_exceeded", NULL,
                      "This key's limit of %" PRIu64 " %s is reached.", why->limit, of[why->kind]);
    e->never = why->never;
    e->retry_after_ms = why->never ? 0 : why->retry_after_ms;
}

/* ---- the key's pool and priority ------------------------------------------------------------- */

static int check_priority(const struct key *k, struct api_request *a, struct api_error *e)
{
    if (a->priority == 0) /* it asks for none */
        a->priority = k->priority;
    if (a->priority < k->priority)
        return api_error_set(e, 403, "priority_not_allowed", "priority",
                             "This key's requests have priority %d, or a later one.", k->priority);
    return 0;
}

/* The workers of the key's pool, and no other. */
static int want_pool(struct request *r, const struct key *k, struct api_request *a,
                     struct api_error *e)
{
    const char *eq = strchr(k->pool, '=');
    if (!eq)
        return 0;
    size_t n = (size_t)(eq - k->pool);
    for (uint32_t i = 0; i < a->n_wants; i++) {
        if (strlen(a->wants[i].key) != n || memcmp(a->wants[i].key, k->pool, n) != 0)
            continue;
        if (strcmp(a->wants[i].value, eq + 1) == 0)
            return 0;
        return api_error_set(e, 403, "pool_not_allowed", "argosy.wants",
                             "This key's requests run where %s only.", k->pool);
    }
    struct policy_label *wants = arena_calloc(&r->arena, a->n_wants + 1, sizeof(*wants));
    char *pool = arena_strndup(&r->arena, k->pool, strlen(k->pool));
    if (!wants || !pool)
        return api_error_set(e, 503, NULL, NULL, "There is no memory for the request now.");
    for (uint32_t i = 0; i < a->n_wants; i++)
        wants[i] = a->wants[i];
    pool[n] = 0;
    wants[a->n_wants++] = (struct policy_label){.key = pool, .value = pool + n + 1};
    a->wants = wants;
    return 0;
}

/* ---- admission ------------------------------------------------------------------------------- */

struct applicant {
    struct request *request;
    struct api_request *api; /* NULL: no worker will see it */
    void (*run)(struct request *r, struct api_request *a);
    void (*run_here)(struct request *r); /* in place of run, without `api` */
};

static void finish(struct applicant *a, const struct refusal *why)
{
    struct request *r = a->request;
    struct api_error e;
    r->gone = NULL;
    r->ctx = NULL;
    add_limits(r);
    if (!why) {
        if (a->api)
            a->run(r, a->api);
        else
            a->run_here(r);
        return;
    }
    explain(why, &e);
    request_fail(r, &e);
}

static void on_decided(void *ctx, const struct refusal *why)
{
    finish(ctx, why);
}

/* Asks for `tokens` in the name of *by, which need not outlive the call. */
static void apply(const struct applicant *by, uint64_t tokens)
{
    struct request *r = by->request;
    struct refusal why;
    struct applicant *a = arena_alloc(&r->arena, sizeof(*a));
    if (!a) {
        struct api_error e;
        api_error_set(&e, 503, NULL, NULL, "There is no memory for the request now.");
        request_fail(r, &e);
        return;
    }
    *a = *by;
    switch (
        keyring_admit(r->http->config.keys, r->tenant, tokens, &r->grant, on_decided, a, &why)) {
    case ADMITTED:
        finish(a, NULL);
        return;
    case REFUSED:
        finish(a, &why);
        return;
    case UNDECIDED:
        return; /* a client that goes away settles it with its request */
    }
}

void auth_admit(struct request *r, struct api_request *api, uint64_t tokens,
                void (*run)(struct request *r, struct api_request *a))
{
    struct api_error e;
    if (!r->tenant) {
        run(r, api);
        return;
    }
    const struct key *k = tenant_key(r->tenant);
    if (check_priority(k, api, &e) || want_pool(r, k, api, &e)) {
        request_fail(r, &e);
        return;
    }
    apply(&(struct applicant){.request = r, .api = api, .run = run}, tokens);
}

void auth_count(struct request *r, void (*run)(struct request *r))
{
    if (r->tenant)
        apply(&(struct applicant){.request = r, .run_here = run}, 0);
    else
        run(r);
}
