/* breaker.h: whether a worker is trusted with requests, by its id.
 *
 *   CLOSED ──faults──► OPEN ──its time is over──► TRYING (one generation) ──a token──► CLOSED
 *                       ▲                              │ a fault
 *                       └────────twice as long─────────┘
 *
 * A fault is the worker's own: it died or fell silent with generations under way, broke the
 * protocol, failed one, or gave no token for too long. What a client sends or cancels is none, nor
 * is a full worker. Faults are weighed against generations that ended well.
 *
 * Where no worker is trusted, each is tried a second after it opened, and streams that clients read
 * already go on there as they come: they have moves_max and the budget as their bounds.
 *
 * What is known of an id outlives its attachment: a worker that crashes and comes back does not
 * start anew. The table is bounded: the id that has been away for longest makes room.
 */
#ifndef ARGOSY_ROUTER_POOL_BREAKER_H
#define ARGOSY_ROUTER_POOL_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define BREAKER_ID_BYTES 64
/* A fault weighs as much as so many good ends make up for. */
#define BREAKER_FAULT 5
/* It opens at three faults, less what was made up for. */
#define BREAKER_OPENS_AT 15
#define BREAKER_OPEN_MS_MIN 1000
#define BREAKER_OPEN_MS_MAX 60000
/* While one generation is tried, others ask again so often. */
#define BREAKER_TRYING_MS 100

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_TRYING };

struct breaker {
    char id[BREAKER_ID_BYTES];
    uint64_t key; /* hash of the id */
    enum breaker_state state;
    uint32_t score;
    uint32_t openings;            /* without a good end in between */
    uint64_t opened_ms, until_ms; /* OPEN */
    uint32_t attached;            /* attachments of this id: it stays in the table */
    uint64_t left_ms;             /* when the last of them went */
};

struct breakers {
    struct breaker *items; /* (cap), n of them used */
    uint32_t n, cap;
};

/* There must be room for every attachment at once. */
int breakers_init(struct breakers *b, uint32_t cap, struct err *e);
void breakers_release(struct breakers *b);
/* An attachment of this id begins; the breaker stays where it is until breakers_left. */
struct breaker *breakers_joined(struct breakers *b, uint64_t key, const char *id);
void breakers_left(struct breaker *b, uint64_t now_ms);

/* May a generation go there now? */
bool breaker_admits(const struct breaker *b, uint64_t now_ms);
/* Nobody else is there: may one be tried, however often it failed? */
bool breaker_admits_alone(const struct breaker *b, uint64_t now_ms);
/* When to ask that again, after a no. */
uint64_t breaker_again_ms(const struct breaker *b, uint64_t now_ms);
/* A generation goes there. True: it is the one that is tried; breaker_token, breaker_fault or
 * breaker_untried follows. */
bool breaker_sent(struct breaker *b);
/* The tried one ended without telling anything: its client left. */
void breaker_untried(struct breaker *b, uint64_t now_ms);
/* The tried one got a token. */
void breaker_token(struct breaker *b);
/* A generation ended well. */
void breaker_good(struct breaker *b);
/* True: it opened. */
bool breaker_fault(struct breaker *b, uint64_t now_ms);

#endif
