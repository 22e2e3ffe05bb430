/* redis_link.h: one connection to Redis that comes back by itself, over async hiredis.
 *
 * Nothing here blocks: names are resolved by libevent's resolver, commands are buffered by hiredis.
 * Bounded: at most REDIS_LINK_PENDING_MAX commands are unanswered, redis_cmd_send refuses more; a
 * Redis that owes an answer for longer than timeout_ms, or sends replies without end, is dropped.
 *
 * Thread: the event loop. Callbacks come from the loop or from redis_link_free; they may send, and
 * must not free the link.
 */
#ifndef ARGOSY_ROUTER_POOL_REDIS_LINK_H
#define ARGOSY_ROUTER_POOL_REDIS_LINK_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define REDIS_LINK_PENDING_MAX 8192u

struct event_base;
struct redis_link;

struct redis_link_config {
    const char *url;      /* "redis://HOST[:PORT][/DB]", "unix:PATH"; copied */
    const char *password; /* or NULL; copied */
    uint32_t timeout_ms;
    void (*up)(void *ctx);   /* connected: nothing that was sent before is to be relied on */
    void (*down)(void *ctx); /* was up, and is gone */
    void *ctx;
};

/* reply NULL: the connection was lost. Borrowed for the call. */
typedef void redis_reply_fn(void *ctx, uint32_t tag, const redisReply *reply);

/* ERR_CONFIG: a bad URL. Dials at the first tick. */
int redis_link_open(const struct redis_link_config *config, struct event_base *base,
                    struct redis_link **out, struct err *e);
/* What can be written without waiting is written. NULL is fine. */
void redis_link_free(struct redis_link *l);
/* From the owner's timer: dials when it is time, drops what does not answer. */
void redis_link_tick(struct redis_link *l);
bool redis_link_is_up(const struct redis_link *l);
/* Commands that may be sent now. */
uint32_t redis_link_room(const struct redis_link *l);

/* A command is begun, added to and sent; its words are copied. */
void redis_cmd(struct redis_link *l, const char *name);
void redis_cmd_str(struct redis_link *l, const char *s);
void redis_cmd_fmt(struct redis_link *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* False: not sent, and fn will not be called. */
bool redis_cmd_send(struct redis_link *l, redis_reply_fn *fn, uint32_t tag);

#endif
