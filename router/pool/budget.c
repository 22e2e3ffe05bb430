#include "router/pool/budget.h"

void budget_init(struct budget *b, double share, uint64_t now_ms)
{
    *b = (struct budget){.left = BUDGET_MAX, .share = share, .at_ms = now_ms};
}

static void add(struct budget *b, double more)
{
    b->left = b->left + more < BUDGET_MAX ? b->left + more : BUDGET_MAX;
}

void budget_request(struct budget *b)
{
    add(b, b->share);
}

bool budget_allows(struct budget *b, uint64_t now_ms)
{
    add(b, (double)(now_ms - b->at_ms) / 1000 * BUDGET_PER_S);
    b->at_ms = now_ms;
    return b->left >= 1;
}

void budget_spend(struct budget *b)
{
    b->left -= 1;
}
