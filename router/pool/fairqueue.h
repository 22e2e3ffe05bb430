/* fairqueue.h: who is next when everybody is full: fair between tenants, priorities that age.
 *
 * Each tenant has a counter of the service it got, prompt tokens once and output tokens twice; the
 * tenant with the lowest is next (virtual token counter: Sheng et al., Fairness in Serving Large
 * Language Models, 2024). A tenant that comes back begins where the lowest of those that wait is,
 * so that nobody saves up. An output is charged as guessed when it begins, and corrected as it
 * comes.
 *
 * Before the counters come priorities: only tenants whose best item is of the highest priority that
 * waits are looked at. An item gains one for each `age_ms` that it waits, up to the highest that
 * waits, so that it is only a matter of time until counters decide about it.
 *
 * Within a tenant: the higher priority, where age counts as between tenants; then the earlier.
 *
 * Items are the caller's. Bounded: items by fairqueue_init, tenants by it too; of those that
 * neither wait nor run the one with the lowest counter is forgotten first. Pure: time is passed in.
 */
#ifndef ARGOSY_ROUTER_POOL_FAIRQUEUE_H
#define ARGOSY_ROUTER_POOL_FAIRQUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define FAIRQUEUE_PROMPT_COST 1
#define FAIRQUEUE_OUTPUT_COST 2

struct fairqueue_tenant;

/* Zeroed memory is one outside. */
struct fairqueue_item {
    struct fairqueue_tenant *tenant; /* from fairqueue_enter to fairqueue_leave */
    struct fairqueue_item *prev, *next;
    bool waits;
    int32_t priority; /* higher goes first */
    uint32_t kind;    /* 0 to 63: items of a kind can be left out together */
    uint64_t since_ms;
    uint64_t passed; /* the round in which it was */
    int64_t charged;
};

struct fairqueue {
    struct fairqueue_tenant **buckets;
    uint32_t n_buckets;
    struct fairqueue_tenant *waiting; /* those with items that wait */
    uint32_t n_tenants, tenants_max;
    uint32_t n_waiting_tenants;
    uint32_t n, max;
    uint32_t n_of_kind[64];
    uint64_t age_ms;
    uint64_t round;
    double last; /* the counter of who was served last */
};

int fairqueue_init(struct fairqueue *q, uint32_t items_max, uint32_t tenants_max, uint64_t age_ms,
                   struct err *e);
void fairqueue_release(struct fairqueue *q);

/* The item has a tenant from here on: what it costs is charged to that. -1: no memory. */
int fairqueue_enter(struct fairqueue *q, struct fairqueue_item *i, uint64_t tenant);
/* It is over; a wait ends too. Of one that never entered, too. */
void fairqueue_leave(struct fairqueue *q, struct fairqueue_item *i);
/* What it got. Negative: less than it was charged. */
void fairqueue_charge(struct fairqueue *q, struct fairqueue_item *i, int64_t cost);

/* It waits, since since_ms. False: the queue is full. */
bool fairqueue_add(struct fairqueue *q, struct fairqueue_item *i);
void fairqueue_remove(struct fairqueue *q, struct fairqueue_item *i);
/* Who is next, but for the kinds in `without` (bits) and those passed in this round; it stays in.
 * NULL: nobody. */
struct fairqueue_item *fairqueue_first(const struct fairqueue *q, uint64_t without,
                                       uint64_t now_ms);
void fairqueue_pass(struct fairqueue *q, struct fairqueue_item *i);
/* Those that were passed may come again. */
void fairqueue_begin_round(struct fairqueue *q);
/* How many of its kind are served before one that this tenant would add now; by turns of tenants,
 * so that a tenant with few waits for few. */
uint32_t fairqueue_ahead(const struct fairqueue *q, uint64_t tenant, uint32_t kind,
                         int32_t priority);

#endif
