/* pot.h: one limit of a key as one router sees it: what it has used, what it may still use.
 *
 *   limit = used here + reserved for here + used and reserved by other routers + free
 *
 * Pure: no I/O and no clock. Alone, a router has the whole limit. With Redis it uses only what was
 * reserved for it there (ledger.h). When Redis is away it goes on with its last known share of the
 * limits that come back (a minute's, those at once); of the one that does not (the budget), with
 * what is reserved for it, while its lease runs.
 *
 * What Redis is told is absolute (used, wanted), so that telling it again changes nothing.
 */
#ifndef ARGOSY_ROUTER_KEYS_POT_H
#define ARGOSY_ROUTER_KEYS_POT_H

#include <stdbool.h>
#include <stdint.h>

enum pot_kind {
    POT_REQUESTS, /* of this minute */
    POT_TOKENS,   /* of this minute */
    POT_RUNNING,  /* requests at once */
    POT_BUDGET,   /* tokens for ever */
    POT_KINDS,
};

/* How a router knows what it may use. */
enum pot_mode { POT_ALONE, POT_SHARED, POT_AWAY };

struct pot {
    enum pot_kind kind;
    uint64_t limit;          /* 0: there is none, and nothing is counted */
    uint64_t minute;         /* since 1970, of a minute's pot; 0 of the others */
    uint64_t used;           /* here */
    uint64_t reserved;       /* beyond it, ours in Redis */
    uint64_t lease_until_ms; /* the reservation is void after it */
    /* When Redis last answered: */
    uint32_t routers; /* that shared it, this one included; 0: it never has */
    uint64_t free;    /* nobody's */
    uint64_t charged; /* used, by everybody */
    uint64_t spent;   /* by routers that are long gone: Redis is reminded of it */
    /* The claim that is on its way: */
    uint64_t sent_minute, sent_used, sent_ms;
};

enum pot_answer {
    POT_YES,
    POT_ASK,    /* Redis has to be asked */
    POT_NO,     /* it is used up */
    POT_LATER,  /* others hold what is missing, and may give it back */
    POT_UNSURE, /* Redis is away, and nothing is known to be left */
};

void pot_init(struct pot *p, enum pot_kind kind, uint64_t limit);
/* The key has another limit now; what was used stays. True: it is another one. */
bool pot_set_limit(struct pot *p, uint64_t limit);
/* Brings it to the time: a new minute, a lease that ran out. */
void pot_turn(struct pot *p, uint64_t minute, uint64_t now_ms);

/* May n be taken? Nothing is taken yet. `asked`: Redis was asked for it and has answered. */
enum pot_answer pot_may(const struct pot *p, uint64_t n, enum pot_mode mode, bool asked);
void pot_take(struct pot *p, uint64_t n);
/* n of what was taken in `minute` were not used after all. */
void pot_give_back(struct pot *p, uint64_t n, uint64_t minute);
/* What is left, as clients are told. */
uint64_t pot_left(const struct pot *p, enum pot_mode mode);

/* A claim is made of `used` and what this returns: how much is wanted beyond it. `need`: what is
 * waited for; `idle`: nothing is to be kept at hand. */
uint64_t pot_claim(struct pot *p, uint64_t need, bool idle, uint64_t now_ms);
/* Redis granted that much beyond what the claim said was used. False: the claim was of a minute
 * that is over, and says nothing. */
bool pot_granted(struct pot *p, uint64_t grant, uint64_t lease_ms);

#endif
