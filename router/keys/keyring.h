/* keyring.h: the API keys that this router knows, and what each may still use.
 *
 *   secret ──SHA-256──► tenant ──admit──► yes │ wait for Redis, at most wait_ms │ no, and why
 *                                         └── settle: what was not used goes back
 *
 * Keys come from a file (re-read when it changes), from Redis (a mirror, looked at twice a second),
 * or both. A key that is taken out of them is unknown within two seconds; what it runs goes on.
 *
 * Thread: the event loop. A request never waits for Redis longer than wait_ms.
 */
#ifndef ARGOSY_ROUTER_KEYS_KEYRING_H
#define ARGOSY_ROUTER_KEYS_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/keys/key.h"

struct event_base;
struct keyring;
struct tenant; /* a key in use */

/* Strings are copied. At least one of `file` and `url` is given. */
struct keyring_config {
    const char *file; /* of keys, or NULL */
    const char *url;  /* of Redis, or NULL: limits are this router's alone */
    const char *password;
    const char *cluster;
    const char *router_id;
    uint32_t timeout_ms; /* of Redis */
    uint32_t wait_ms;    /* of a request for Redis */
    uint32_t lease_ms;   /* of what is reserved in Redis for this router */
};

/* ERR_CONFIG: a bad URL or file, or a budget in a file without Redis, which would forget it. */
int keyring_open(const struct keyring_config *config, struct event_base *base, struct keyring **out,
                 struct err *e);
/* No grant is left. What was used is told to Redis, as far as that goes without waiting. */
void keyring_free(struct keyring *r);

/* The tenant of a secret, or NULL. Kept until tenant_put. */
struct tenant *keyring_find(struct keyring *r, const char *secret, size_t n);
struct tenant *tenant_keep(struct tenant *t);
void tenant_put(struct tenant *t);
/* Valid while the tenant is kept; its limits may change. */
const struct key *tenant_key(const struct tenant *t);
/* Never 0; the same in every router. */
uint64_t tenant_hash(const struct tenant *t);

/* ---- admission ------------------------------------------------------------------------------- */

enum refusal_kind {
    REFUSAL_REQUESTS,
    REFUSAL_TOKENS,
    REFUSAL_RUNNING,
    REFUSAL_BUDGET,
    REFUSAL_UNSURE, /* Redis is away, and what is left of the budget is not known */
};

struct refusal {
    enum refusal_kind kind;
    bool never; /* the very same request will not be admitted later either */
    uint64_t limit, asked;
    uint32_t retry_after_ms;
};

/* One request's. Zeroed memory is none. */
struct grant {
    struct keyring *ring;
    struct tenant *tenant; /* NULL: none */
    struct grant *next;    /* among those that wait */
    bool waits;
    bool taken;
    uint64_t tokens;
    uint64_t minute;
    uint64_t until_ms;
    void (*decided)(void *ctx, const struct refusal *why); /* why NULL: admitted */
    void *ctx;
};

enum admission { ADMITTED, REFUSED, UNDECIDED };

/* Asks for one request of `tokens` tokens at most; one of 0 runs nowhere, and counts for requests a
 * minute alone. UNDECIDED: `decided` is called later, unless
 * grant_settle comes before. `why` is filled for REFUSED. */
enum admission keyring_admit(struct keyring *r, struct tenant *t, uint64_t tokens, struct grant *g,
                             void (*decided)(void *ctx, const struct refusal *why), void *ctx,
                             struct refusal *why);
/* The request is over; `tokens` were used. Of a grant that waits or that there is none of, too. */
void grant_settle(struct grant *g, uint64_t tokens);

/* A minute's limits, for the headers of an answer. */
struct tenant_left {
    uint64_t requests_limit, tokens_limit; /* 0: none */
    uint64_t requests, tokens;             /* that are left */
    uint32_t reset_ms;                     /* until all are there again */
};
struct tenant_left tenant_left_of(struct keyring *r, struct tenant *t);

#endif
