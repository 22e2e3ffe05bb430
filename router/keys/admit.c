/* admit.c: may a request of a key run? And what it used, once it is over. */
#include <string.h>

#include "router/keys/keyring_internal.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"

/* When others hold what is missing, or a place has to become free. */
#define RETRY_SOON_MS 1000u

void grants_add(struct grants *l, struct grant *g)
{
    g->next = NULL;
    *l->end = g;
    l->end = &g->next;
}

static bool grants_remove(struct grants *l, struct grant *g)
{
    struct grant **at = &l->first;
    while (*at && *at != g)
        at = &(*at)->next;
    if (!*at)
        return false;
    *at = g->next;
    if (l->end == &g->next)
        l->end = at;
    g->next = NULL;
    return true;
}

static uint32_t minute_left_ms(void)
{
    return 60000u - (uint32_t)(clock_wall_ns() / 1000000 % 60000);
}

static uint64_t need_of(enum pot_kind kind, uint64_t tokens)
{
    switch (kind) {
    case POT_REQUESTS:
        return 1;
    case POT_RUNNING:
        return tokens > 0; /* nothing runs without */
    default:
        return tokens;
    }
}

static void explain(const struct pot *p, enum pot_answer answer, uint64_t need, struct refusal *why)
{
    static const enum refusal_kind kinds[POT_KINDS] = {
        [POT_REQUESTS] = REFUSAL_REQUESTS,
        [POT_TOKENS] = REFUSAL_TOKENS,
        [POT_RUNNING] = REFUSAL_RUNNING,
        [POT_BUDGET] = REFUSAL_BUDGET,
    };
    bool minute = p->kind == POT_REQUESTS || p->kind == POT_TOKENS;
    *why = (struct refusal){
        .kind = answer == POT_UNSURE ? REFUSAL_UNSURE : kinds[p->kind],
        .never = answer == POT_NO && (need > p->limit || p->kind == POT_BUDGET),
        .limit = p->limit,
        .asked = need,
        .retry_after_ms = answer == POT_NO && minute ? minute_left_ms() : RETRY_SOON_MS,
    };
}

/* YES, ASK, or a refusal with its reason. A limit that says no goes before one that is not known.
 */
static enum pot_answer weigh(const struct tenant *t, uint64_t tokens, enum pot_mode mode,
                             bool asked, struct refusal *why)
{
    bool ask = false;
    for (int i = 0; i < POT_KINDS; i++) {
        const struct pot *p = &t->pots[i];
        uint64_t need = need_of(p->kind, tokens);
        enum pot_answer answer = pot_may(p, need, mode, asked && p->sent_minute == p->minute);
        ask = ask || answer == POT_ASK;
        if (answer != POT_YES && answer != POT_ASK) {
            explain(p, answer, need, why);
            return answer;
        }
    }
    return ask ? POT_ASK : POT_YES;
}

static void take(struct keyring *r, struct tenant *t, struct grant *g)
{
    for (int i = 0; i < POT_KINDS; i++)
        pot_take(&t->pots[i], need_of((enum pot_kind)i, g->tokens));
    g->taken = true;
    g->minute = t->pots[POT_TOKENS].minute;
    tenant_mark(r, t);
}

enum admission keyring_admit(struct keyring *r, struct tenant *t, uint64_t tokens, struct grant *g,
                             void (*decided)(void *ctx, const struct refusal *why), void *ctx,
                             struct refusal *why)
{
    ASSERT(!g->tenant);
    *g = (struct grant){.ring = r, .tokens = tokens, .decided = decided, .ctx = ctx};
    t->used_ms = clock_mono_ms();
    tenant_turn(t);
    switch (weigh(t, tokens, keyring_mode(r), false, why)) {
    case POT_YES:
        g->tenant = tenant_keep(t);
        take(r, t, g);
        return ADMITTED;
    case POT_ASK:
        break;
    default:
        return REFUSED;
    }
    if (r->n_waiting == WAITING_MAX) {
        *why = (struct refusal){.kind = REFUSAL_UNSURE, .retry_after_ms = RETRY_SOON_MS};
        return REFUSED;
    }
    g->tenant = tenant_keep(t);
    g->waits = true;
    g->until_ms = t->used_ms + r->wait_ms;
    r->n_waiting++;
    grants_add(&t->waiting, g);
    tenant_mark(r, t);
    return UNDECIDED;
}

/* It is in no list any more. */
static void decide(struct keyring *r, struct tenant *t, struct grant *g, enum pot_mode mode,
                   bool asked)
{
    struct refusal why;
    tenant_turn(t);
    enum pot_answer answer = weigh(t, g->tokens, mode, asked, &why);
    if (answer == POT_ASK) { /* another minute has begun */
        grants_add(&t->waiting, g);
        tenant_mark(r, t);
        return;
    }
    g->waits = false;
    r->n_waiting--;
    if (answer == POT_YES) {
        take(r, t, g);
        g->decided(g->ctx, NULL);
        return;
    }
    g->tenant = NULL;
    tenant_put(t);
    g->decided(g->ctx, &why);
}

/* The lists may change under a callback: each time the first. */
void admit_decide(struct keyring *r, struct tenant *t, bool asked)
{
    struct grant *g;
    tenant_keep(t);
    while ((g = t->asking.first)) {
        grants_remove(&t->asking, g);
        decide(r, t, g, asked ? POT_SHARED : POT_AWAY, asked);
    }
    tenant_put(t);
}

static void expire(struct keyring *r, struct tenant *t, struct grants *l, uint64_t now_ms)
{
    struct grant *g;
    while ((g = l->first) && now_ms >= g->until_ms) {
        grants_remove(l, g);
        decide(r, t, g, POT_AWAY, false);
    }
}

void admit_expire(struct keyring *r, struct tenant *t, uint64_t now_ms)
{
    tenant_keep(t);
    expire(r, t, &t->asking, now_ms);
    expire(r, t, &t->waiting, now_ms);
    tenant_put(t);
}

void grant_settle(struct grant *g, uint64_t tokens)
{
    struct tenant *t = g->tenant;
    struct keyring *r = g->ring;
    if (!t)
        return;
    g->tenant = NULL;
    if (g->waits) {
        if (!grants_remove(&t->waiting, g))
            grants_remove(&t->asking, g);
        g->waits = false;
        r->n_waiting--;
    } else if (g->taken) {
        uint64_t unused = tokens < g->tokens ? g->tokens - tokens : 0;
        tenant_turn(t);
        pot_give_back(&t->pots[POT_TOKENS], unused, g->minute);
        pot_give_back(&t->pots[POT_BUDGET], unused, 0);
        pot_give_back(&t->pots[POT_RUNNING], need_of(POT_RUNNING, g->tokens), 0);
        t->used_ms = clock_mono_ms();
        tenant_mark(r, t);
    }
    tenant_put(t);
}

struct tenant_left tenant_left_of(struct keyring *r, struct tenant *t)
{
    enum pot_mode mode = keyring_mode(r);
    tenant_turn(t);
    return (struct tenant_left){
        .requests_limit = t->key.requests,
        .tokens_limit = t->key.tokens,
        .requests = pot_left(&t->pots[POT_REQUESTS], mode),
        .tokens = pot_left(&t->pots[POT_TOKENS], mode),
        .reset_ms = minute_left_ms(),
    };
}
