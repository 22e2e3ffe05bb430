#include "router/keys/pot.h"

/* A router keeps this part of a limit at hand, so that most requests wait for nobody. */
#define SLICE_PARTS 16

static bool of_a_minute(const struct pot *p)
{
    return p->kind == POT_REQUESTS || p->kind == POT_TOKENS;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void pot_init(struct pot *p, enum pot_kind kind, uint64_t limit)
{
    *p = (struct pot){.kind = kind, .limit = limit};
}

bool pot_set_limit(struct pot *p, uint64_t limit)
{
    if (p->limit == limit)
        return false;
    p->limit = limit;
    p->reserved = 0;
    return true;
}

void pot_turn(struct pot *p, uint64_t minute, uint64_t now_ms)
{
    if (of_a_minute(p) && p->minute != minute) {
        p->minute = minute;
        p->used = p->reserved = p->charged = p->spent = 0;
        p->free = p->limit;
    }
    if (now_ms >= p->lease_until_ms)
        p->reserved = 0;
}

/* While Redis is away: at least one, or a key whose limit is below the number of routers has
 * nothing. */
static uint64_t share(const struct pot *p)
{
    uint64_t each = p->limit / (p->routers ? p->routers : 1);
    return each ? each : 1;
}

enum pot_answer pot_may(const struct pot *p, uint64_t n, enum pot_mode mode, bool asked)
{
    if (p->limit == 0 || n == 0)
        return POT_YES;
    if (n > p->limit)
        return POT_NO;
    if (mode == POT_ALONE)
        return p->used + n <= p->limit ? POT_YES : POT_NO;
    if (n <= p->reserved)
        return POT_YES;
    if (mode == POT_AWAY && p->kind == POT_BUDGET)
        return POT_UNSURE;
    if (mode == POT_AWAY)
        return p->used + n <= share(p) ? POT_YES : POT_NO;
    if (!asked)
        return POT_ASK;
    return p->charged + n <= p->limit ? POT_LATER : POT_NO;
}

void pot_take(struct pot *p, uint64_t n)
{
    if (p->limit == 0)
        return;
    p->used += n;
    p->reserved -= min_u64(n, p->reserved);
}

void pot_give_back(struct pot *p, uint64_t n, uint64_t minute)
{
    if (p->limit == 0 || (of_a_minute(p) && p->minute != minute))
        return;
    n = min_u64(n, p->used);
    p->used -= n;
    p->reserved += n;
}

uint64_t pot_left(const struct pot *p, enum pot_mode mode)
{
    uint64_t all = mode == POT_AWAY && p->kind != POT_BUDGET ? share(p) : p->limit;
    if (mode == POT_SHARED && p->routers)
        return min_u64(p->reserved + p->free, p->limit);
    return p->used < all ? all - p->used : 0;
}

uint64_t pot_claim(struct pot *p, uint64_t need, bool idle, uint64_t now_ms)
{
    uint64_t slice = idle ? 0 : p->limit / SLICE_PARTS;
    uint64_t want = need > slice ? need : slice;
    p->sent_minute = p->minute;
    p->sent_used = p->used;
    p->sent_ms = now_ms;
    /* From here on Redis may hand the rest to others. */
    p->reserved = min_u64(p->reserved, want);
    return want;
}

bool pot_granted(struct pot *p, uint64_t grant, uint64_t lease_ms)
{
    uint64_t ours = p->sent_used + grant;
    if (p->sent_minute != p->minute)
        return false;
    p->reserved = ours > p->used ? ours - p->used : 0;
    p->lease_until_ms = p->sent_ms + lease_ms;
    return true;
}
