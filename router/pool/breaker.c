#include "router/pool/breaker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

/* ---- the table ------------------------------------------------------------------------------ */

int breakers_init(struct breakers *b, uint32_t cap, struct err *e)
{
    *b = (struct breakers){.items = calloc(cap, sizeof(*b->items)), .cap = cap};
    return b->items ? 0 : err_set(e, ERR_NOMEM, "no memory for %u breakers", cap);
}

void breakers_release(struct breakers *b)
{
    free(b->items);
    b->items = NULL;
}

static struct breaker *away_for_longest(struct breakers *b)
{
    struct breaker *found = NULL;
    for (uint32_t i = 0; i < b->n; i++)
        if (!b->items[i].attached && (!found || b->items[i].left_ms < found->left_ms))
            found = &b->items[i];
    return found;
}

struct breaker *breakers_joined(struct breakers *b, uint64_t key, const char *id)
{
    struct breaker *at = NULL;
    for (uint32_t i = 0; i < b->n && !at; i++)
        if (b->items[i].key == key && strcmp(b->items[i].id, id) == 0)
            at = &b->items[i];
    if (!at) {
        at = b->n < b->cap ? &b->items[b->n++] : away_for_longest(b);
        ASSERT(at);
        *at = (struct breaker){.key = key};
        snprintf(at->id, sizeof(at->id), "%s", id);
    }
    at->attached++;
    return at;
}

void breakers_left(struct breaker *b, uint64_t now_ms)
{
    b->attached--;
    b->left_ms = now_ms;
}

/* ---- one worker's --------------------------------------------------------------------------- */

bool breaker_admits(const struct breaker *b, uint64_t now_ms)
{
    return b->state == BREAKER_CLOSED || (b->state == BREAKER_OPEN && now_ms >= b->until_ms);
}

bool breaker_admits_alone(const struct breaker *b, uint64_t now_ms)
{
    return breaker_admits(b, now_ms) ||
           (b->state == BREAKER_OPEN && now_ms - b->opened_ms >= BREAKER_OPEN_MS_MIN);
}

uint64_t breaker_again_ms(const struct breaker *b, uint64_t now_ms)
{
    return b->state == BREAKER_OPEN ? b->opened_ms + BREAKER_OPEN_MS_MIN
                                    : now_ms + BREAKER_TRYING_MS;
}

bool breaker_sent(struct breaker *b)
{
    if (b->state != BREAKER_OPEN)
        return false;
    b->state = BREAKER_TRYING;
    return true;
}

void breaker_untried(struct breaker *b, uint64_t now_ms)
{
    if (b->state != BREAKER_TRYING)
        return;
    b->state = BREAKER_OPEN;
    b->until_ms = now_ms;
}

/* It is trusted again, but one more fault opens it. */
void breaker_token(struct breaker *b)
{
    if (b->state != BREAKER_TRYING)
        return;
    b->state = BREAKER_CLOSED;
    b->score = BREAKER_OPENS_AT - 1;
}

void breaker_good(struct breaker *b)
{
    if (b->score > 0)
        b->score--;
    if (b->score == 0)
        b->openings = 0;
}

bool breaker_fault(struct breaker *b, uint64_t now_ms)
{
    if (b->state == BREAKER_OPEN)
        return false; /* of what was sent before */
    b->score += BREAKER_FAULT;
    if (b->score < BREAKER_OPENS_AT)
        return false;
    uint64_t ms = BREAKER_OPEN_MS_MIN;
    for (uint32_t i = 0; i < b->openings && ms < BREAKER_OPEN_MS_MAX; i++)
        ms *= 2;
    b->score = BREAKER_OPENS_AT;
    b->openings++;
    b->state = BREAKER_OPEN;
    b->opened_ms = now_ms;
    b->until_ms = now_ms + (ms < BREAKER_OPEN_MS_MAX ? ms : BREAKER_OPEN_MS_MAX);
    return true;
}
