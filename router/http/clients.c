#include "router/http/clients.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/rng.h"

#define NETWORK_BYTES 8 /* of an IPv6 address: a site has as many of the rest as it likes */

int clients_init(struct clients *c, uint32_t connections_max, struct err *e)
{
    *c = (struct clients){.n_buckets = 64};
    while (c->n_buckets < connections_max && c->n_buckets < 1u << 16)
        c->n_buckets *= 2;
    rng_entropy(&c->seed, sizeof(c->seed));
    c->buckets = calloc(c->n_buckets, sizeof(struct client *));
    return c->buckets ? 0 : err_set(e, ERR_NOMEM, "no memory for the clients");
}

void clients_release(struct clients *c)
{
    for (uint32_t i = 0; c->buckets && i < c->n_buckets; i++)
        ASSERT(!c->buckets[i]);
    free(c->buckets);
    *c = (struct clients){0};
}

/* IPv4 as IPv6 writes it; others (unix sockets) are one. */
static void address_of(const struct sockaddr *sa, uint8_t out[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    memset(out, 0, 16);
    if (sa->sa_family == AF_INET) {
        memcpy(out, mapped, sizeof(mapped));
        memcpy(out + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    } else if (sa->sa_family == AF_INET6) {
        const uint8_t *v6 = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr;
        memcpy(out, v6, memcmp(v6, mapped, sizeof(mapped)) == 0 ? 16 : NETWORK_BYTES);
    }
}

static uint64_t hash_of(const struct clients *c, const uint8_t address[16])
{
    struct rng rng;
    uint64_t half[2];
    memcpy(half, address, sizeof(half));
    rng_init(&rng, c->seed ^ half[0]);
    rng_init(&rng, rng_u64(&rng) ^ half[1]);
    return rng_u64(&rng) | 1;
}

struct client *clients_join(struct clients *c, const struct sockaddr *sa, uint32_t max, bool *full)
{
    uint8_t address[16];
    address_of(sa, address);
    uint64_t hash = hash_of(c, address);
    struct client **bucket = &c->buckets[hash >> 8 & (c->n_buckets - 1)];
    struct client *client = *bucket;
    while (client && memcmp(client->address, address, sizeof(address)) != 0)
        client = client->next;
    *full = client && client->conns >= max;
    if (*full)
        return NULL;
    if (!client && (client = calloc(1, sizeof(*client)))) {
        memcpy(client->address, address, sizeof(address));
        client->hash = hash;
        client->next = *bucket;
        *bucket = client;
    }
    if (client)
        client->conns++;
    return client;
}

void clients_leave(struct clients *c, struct client *client)
{
    if (--client->conns > 0)
        return;
    struct client **at = &c->buckets[client->hash >> 8 & (c->n_buckets - 1)];
    while (*at != client)
        at = &(*at)->next;
    *at = client->next;
    free(client);
}
