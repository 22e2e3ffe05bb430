/* clients.h: who is connected, by address, so that one client alone can't take every connection. An
 * IPv6 client is its /64 network. Thread: the event loop. Memory: one entry for each address that
 * has a connection. */
#ifndef ARGOSY_ROUTER_HTTP_CLIENTS_H
#define ARGOSY_ROUTER_HTTP_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct sockaddr;

struct client {
    struct client *next; /* in its bucket */
    uint8_t address[16];
    uint64_t hash; /* never 0 */
    uint32_t conns;
};

struct clients {
    struct client **buckets;
    uint32_t n_buckets; /* a power of two */
    uint64_t seed;      /* so that nobody can choose addresses for one bucket */
};

int clients_init(struct clients *c, uint32_t connections_max, struct err *e);
void clients_release(struct clients *c);
/* One more connection from there. NULL: it has `max` already (*full), or there is no memory. */
struct client *clients_join(struct clients *c, const struct sockaddr *sa, uint32_t max, bool *full);
void clients_leave(struct clients *c, struct client *client);

#endif
