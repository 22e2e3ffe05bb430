#include "runtime/engine/hostcache.h"

#include <stdlib.h>

#include "runtime/base/check.h"
#include "runtime/engine/backend.h"

#define NONE HOSTCACHE_NONE

int hostcache_init(struct hostcache *h, uint32_t n_slots, struct backend *backend, struct err *e)
{
    *h = (struct hostcache){
        .backend = backend, .n_slots = n_slots, .oldest = NONE, .newest = NONE, .free = NONE};
    h->slots = calloc(n_slots ? n_slots : 1, sizeof(*h->slots));
    if (!h->slots)
        return err_set(e, ERR_NOMEM, "hostcache: no memory for %u slots", n_slots);
    /* Low slots first: memory that was never used stays untouched. */
    for (uint32_t i = n_slots; i-- > 0; h->free = i)
        h->slots[i] = (struct hostcache_slot){.block = NONE, .newer = h->free};
    return 0;
}

void hostcache_release(struct hostcache *h)
{
    free(h->slots);
    *h = (struct hostcache){0};
}

static void unlink_slot(struct hostcache *h, uint32_t slot)
{
    const struct hostcache_slot *s = &h->slots[slot];
    *(s->older != NONE ? &h->slots[s->older].newer : &h->oldest) = s->newer;
    *(s->newer != NONE ? &h->slots[s->newer].older : &h->newest) = s->older;
}

/* Just older than `next`; NONE: the newest. */
static void link_slot(struct hostcache *h, uint32_t slot, uint32_t next)
{
    struct hostcache_slot *s = &h->slots[slot];
    s->newer = next;
    s->older = next != NONE ? h->slots[next].older : h->newest;
    *(s->older != NONE ? &h->slots[s->older].newer : &h->oldest) = slot;
    *(next != NONE ? &h->slots[next].older : &h->newest) = slot;
}

uint32_t hostcache_take(struct hostcache *h, uint32_t block, uint32_t *lost)
{
    uint32_t slot = h->free;
    ASSERT(h->n_slots > 0);
    if (slot != NONE) {
        h->free = h->slots[slot].newer;
        h->n_used++;
    } else {
        slot = h->oldest;
        unlink_slot(h, slot);
    }
    *lost = h->slots[slot].block;
    h->slots[slot].block = block;
    link_slot(h, slot, NONE);
    return slot;
}

void hostcache_touch(struct hostcache *h, uint32_t slot, uint32_t next)
{
    ASSERT(h->slots[slot].block != NONE && slot != next);
    unlink_slot(h, slot);
    link_slot(h, slot, next);
}

void hostcache_copy_out(struct hostcache *h, uint32_t page, uint32_t slot)
{
    backend_page_out(h->backend, page, slot);
    h->n_out++;
}

void hostcache_copy_in(struct hostcache *h, uint32_t slot, uint32_t page)
{
    backend_page_in(h->backend, slot, page);
    h->n_in++;
}

bool hostcache_consistent(const struct hostcache *h)
{
    uint32_t n = 0, n_free = 0, older = NONE;
    for (uint32_t i = h->n_used ? h->oldest : NONE; i != NONE; i = h->slots[i].newer) {
        if (++n > h->n_used || h->slots[i].block == NONE || h->slots[i].older != older)
            return false;
        older = i;
    }
    for (uint32_t i = h->free; i != NONE; i = h->slots[i].newer)
        if (++n_free > h->n_slots || h->slots[i].block != NONE)
            return false;
    return n == h->n_used && older == h->newest && n + n_free == h->n_slots;
}
