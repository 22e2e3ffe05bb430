/* auth.h: who asks, and what their key lets them have.
 *
 * With http_config.keys every path wants a key but those that route.h calls open, and, if
 * cors_origin is set, OPTIONS, since browsers ask that without one. It is looked at when the head
 * is there: nothing is read of a body that nobody may send.
 *
 * A key is a tenant: its prompts share no cache and no session with those of another key.
 */
#ifndef ARGOSY_ROUTER_HTTP_AUTH_H
#define ARGOSY_ROUTER_HTTP_AUTH_H

#include "router/http/api_request.h"
#include "router/http/request.h"

/* Sets r->tenant. NULL: fine; else why it is a 401 (a constant). */
const char *auth_check(struct request *r, const struct head *h);
/* Goes on with `run` when the key has `tokens` left, at once or when Redis has answered; else the
 * request is refused. Priority and pool of the key become the request's. `a` lies in the request's
 * arena. */
void auth_admit(struct request *r, struct api_request *a, uint64_t tokens,
                void (*run)(struct request *r, struct api_request *a));
/* The same for a request that no worker sees: it counts for the key's requests a minute alone. */
void auth_count(struct request *r, void (*run)(struct request *r));
/* Who the pool is to be fair to: the key, or, where none is asked for, the client's address. */
uint64_t auth_tenant(const struct request *r);
/* The salt of the prefix cache, 16 bytes: of the key and what the client calls cache_salt (or
 * NULL); left alone when there is neither. */
void auth_salt(const struct request *r, const char *cache_salt, uint8_t *salt);

#endif
