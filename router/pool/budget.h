/* budget.h: how often generations may be started over, in the whole pool.
 *
 * That a stream goes on elsewhere when its worker dies costs nothing here: no request does that to
 * a pool by itself. One that has to move again does: where many do, the pool is dying, or what they
 * ask kills it, and starting all of them again and again would be the rest. So these are at most a
 * share of the requests that come, and a few a second; over it they wait their turn.
 */
#ifndef ARGOSY_ROUTER_POOL_BUDGET_H
#define ARGOSY_ROUTER_POOL_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_PER_S 10
/* Saved up at most: a pool that was well for a while can lose a few workers in a row. */
#define BUDGET_MAX 128
#define BUDGET_WAIT_MS 100

struct budget {
    double left;
    double share; /* of a request */
    uint64_t at_ms;
};

void budget_init(struct budget *b, double share, uint64_t now_ms);
/* A new request came. */
void budget_request(struct budget *b);
bool budget_allows(struct budget *b, uint64_t now_ms);
/* After a yes. */
void budget_spend(struct budget *b);

#endif
