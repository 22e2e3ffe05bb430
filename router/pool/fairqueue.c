#include "router/pool/fairqueue.h"

#include <stdlib.h>

#include "runtime/base/check.h"

struct fairqueue_tenant {
    struct fairqueue_tenant *next; /* in its bucket */
    struct fairqueue_tenant *wait_prev, *wait_next;
    uint64_t id;
    double counter;
    uint32_t refs; /* items that entered */
    uint32_t n;    /* of them, those that wait */
    struct fairqueue_item *head, *tail;
};

int fairqueue_init(struct fairqueue *q, uint32_t items_max, uint32_t tenants_max, uint64_t age_ms,
                   struct err *e)
{
    *q = (struct fairqueue){.max = items_max, .tenants_max = tenants_max, .age_ms = age_ms};
    q->round = 1;
    q->n_buckets = 16;
    while (q->n_buckets < tenants_max)
        q->n_buckets *= 2;
    q->buckets = calloc(q->n_buckets, sizeof(*q->buckets));
    return q->buckets ? 0 : err_set(e, ERR_NOMEM, "no memory for %u tenants", tenants_max);
}

void fairqueue_release(struct fairqueue *q)
{
    for (uint32_t i = 0; q->buckets && i < q->n_buckets; i++)
        for (struct fairqueue_tenant *t = q->buckets[i], *next; t; t = next) {
            next = t->next;
            free(t);
        }
    free(q->buckets);
    *q = (struct fairqueue){0};
}

/* ---- tenants --------------------------------------------------------------------------------- */

static struct fairqueue_tenant **bucket_of(const struct fairqueue *q, uint64_t id)
{
    return &q->buckets[(id * 0x9e3779b97f4a7c15u >> 32) & (q->n_buckets - 1)];
}

static struct fairqueue_tenant *find(const struct fairqueue *q, uint64_t id)
{
    struct fairqueue_tenant *t = *bucket_of(q, id);
    while (t && t->id != id)
        t = t->next;
    return t;
}

/* Of the tenants that have nothing here, the one that is owed least attention: who comes back
 * begins at the lowest counter anyway. */
static void forget_one(struct fairqueue *q)
{
    struct fairqueue_tenant **lowest = NULL;
    for (uint32_t i = 0; i < q->n_buckets; i++)
        for (struct fairqueue_tenant **at = &q->buckets[i]; *at; at = &(*at)->next)
            if ((*at)->refs == 0 && (!lowest || (*at)->counter < (*lowest)->counter))
                lowest = at;
    if (!lowest)
        return; /* there are no more than items */
    struct fairqueue_tenant *t = *lowest;
    *lowest = t->next;
    free(t);
    q->n_tenants--;
}

int fairqueue_enter(struct fairqueue *q, struct fairqueue_item *i, uint64_t tenant)
{
    struct fairqueue_tenant *t = find(q, tenant);
    ASSERT(!i->tenant);
    if (!t) {
        if (q->n_tenants >= q->tenants_max)
            forget_one(q);
        t = calloc(1, sizeof(*t));
        if (!t)
            return -1;
        t->id = tenant;
        t->next = *bucket_of(q, tenant);
        *bucket_of(q, tenant) = t;
        q->n_tenants++;
    }
    t->refs++;
    i->tenant = t;
    return 0;
}

void fairqueue_leave(struct fairqueue *q, struct fairqueue_item *i)
{
    if (!i->tenant)
        return;
    if (i->waits)
        fairqueue_remove(q, i);
    i->tenant->refs--;
    i->tenant = NULL;
}

static double lowest_waiting(const struct fairqueue *q)
{
    double lowest = q->last;
    for (const struct fairqueue_tenant *t = q->waiting; t; t = t->wait_next)
        if (t == q->waiting || t->counter < lowest)
            lowest = t->counter;
    return lowest;
}

void fairqueue_charge(struct fairqueue *q, struct fairqueue_item *i, int64_t cost)
{
    struct fairqueue_tenant *t = i->tenant;
    if (!t)
        return;
    t->counter += (double)cost;
    i->charged += cost;
    if (q->n == 0 && t->counter > q->last)
        q->last = t->counter; /* nobody waited: it took nothing from anybody */
}

/* ---- items ----------------------------------------------------------------------------------- */

/* As if it had come earlier by its priority: what does not change while both wait. */
static bool goes_before(const struct fairqueue *q, const struct fairqueue_item *a,
                        const struct fairqueue_item *b)
{
    int64_t bonus = (int64_t)(a->priority - b->priority) * (int64_t)q->age_ms;
    return (int64_t)b->since_ms - (int64_t)a->since_ms + bonus > 0;
}

static void begin_to_wait(struct fairqueue *q, struct fairqueue_tenant *t)
{
    double lowest = lowest_waiting(q);
    if (t->counter < lowest)
        t->counter = lowest;
    t->wait_prev = NULL;
    t->wait_next = q->waiting;
    if (q->waiting)
        q->waiting->wait_prev = t;
    q->waiting = t;
    q->n_waiting_tenants++;
}

static void end_wait(struct fairqueue *q, struct fairqueue_tenant *t)
{
    *(t->wait_prev ? &t->wait_prev->wait_next : &q->waiting) = t->wait_next;
    if (t->wait_next)
        t->wait_next->wait_prev = t->wait_prev;
    q->n_waiting_tenants--;
    q->last = t->counter;
}

bool fairqueue_add(struct fairqueue *q, struct fairqueue_item *i)
{
    struct fairqueue_tenant *t = i->tenant;
    ASSERT(t && !i->waits && i->kind < 64);
    if (q->n == q->max)
        return false;
    if (t->n == 0)
        begin_to_wait(q, t);
    struct fairqueue_item *before = t->tail;
    while (before && goes_before(q, i, before))
        before = before->prev;
    i->prev = before;
    i->next = before ? before->next : t->head;
    *(before ? &before->next : &t->head) = i;
    *(i->next ? &i->next->prev : &t->tail) = i;
    i->waits = true;
    i->passed = 0;
    t->n++;
    q->n++;
    q->n_of_kind[i->kind]++;
    return true;
}

void fairqueue_remove(struct fairqueue *q, struct fairqueue_item *i)
{
    struct fairqueue_tenant *t = i->tenant;
    ASSERT(i->waits);
    *(i->prev ? &i->prev->next : &t->head) = i->next;
    *(i->next ? &i->next->prev : &t->tail) = i->prev;
    i->prev = i->next = NULL;
    i->waits = false;
    t->n--;
    q->n--;
    q->n_of_kind[i->kind]--;
    if (t->n == 0)
        end_wait(q, t);
}

static struct fairqueue_item *best_of(const struct fairqueue *q, const struct fairqueue_tenant *t,
                                      uint64_t without)
{
    struct fairqueue_item *i = t->head;
    while (i && (i->passed == q->round || (without & 1ull << i->kind)))
        i = i->next;
    return i;
}

/* What its priority has grown to, but for the bound. */
static int64_t aged(const struct fairqueue *q, const struct fairqueue_item *i, uint64_t now_ms)
{
    uint64_t waited_ms = now_ms > i->since_ms ? now_ms - i->since_ms : 0;
    return i->priority + (q->age_ms ? (int64_t)(waited_ms / q->age_ms) : 0);
}

struct fairqueue_item *fairqueue_first(const struct fairqueue *q, uint64_t without, uint64_t now_ms)
{
    struct fairqueue_item *first = NULL;
    int64_t highest = INT64_MIN;
    for (const struct fairqueue_tenant *t = q->waiting; t; t = t->wait_next) {
        const struct fairqueue_item *i = best_of(q, t, without);
        if (i && i->priority > highest)
            highest = i->priority;
    }
    for (const struct fairqueue_tenant *t = q->waiting; t; t = t->wait_next) {
        struct fairqueue_item *i = best_of(q, t, without);
        if (!i || aged(q, i, now_ms) < highest)
            continue;
        if (!first || t->counter < first->tenant->counter ||
            (t->counter <= first->tenant->counter && i->since_ms < first->since_ms))
            first = i;
    }
    return first;
}

void fairqueue_pass(struct fairqueue *q, struct fairqueue_item *i)
{
    i->passed = q->round;
}

void fairqueue_begin_round(struct fairqueue *q)
{
    q->round++;
}

uint32_t fairqueue_ahead(const struct fairqueue *q, uint64_t tenant, uint32_t kind,
                         int32_t priority)
{
    const struct fairqueue_tenant *own = find(q, tenant);
    uint32_t mine = own ? own->n : 0, ahead = 0;
    for (const struct fairqueue_tenant *t = q->waiting; t; t = t->wait_next) {
        uint32_t n = 0, turns = t->id == tenant ? UINT32_MAX : mine + 1;
        for (const struct fairqueue_item *i = t->head; i && n < turns; i = i->next)
            n += i->kind == kind && i->priority >= priority;
        ahead += n;
    }
    return ahead;
}
