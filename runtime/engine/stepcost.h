/* stepcost.h: how long a step takes, learned from the steps that were measured.
 *
 * The time of a step is taken as a sum over what it has: a pass over the weights, rows, picks,
 * positions that its rows see, and positions whose KV is read. Five prices, each learned by a
 * Kalman filter: all of them may drift together (the machine gets slower or faster), each a little
 * by itself. The first measurement sets them all; before it the shape of a small model on a CPU is
 * assumed.
 *
 * Pure: time comes in as a measurement, and nothing here changes a token. Not thread-safe.
 */
#ifndef ARGOSY_ENGINE_STEPCOST_H
#define ARGOSY_ENGINE_STEPCOST_H

#include <stdint.h>

#define STEPCOST_PRICES 5

/* What a step computes. */
struct stepcost_work {
    uint32_t rows;
    uint32_t picks; /* rows whose logits are wanted */
    uint64_t seen;  /* positions, over all rows */
    uint64_t read;  /* positions, once for all rows of a sequence */
};

struct stepcost {
    double price[STEPCOST_PRICES]; /* seconds of a unit (stepcost.c) */
    double covariance[STEPCOST_PRICES][STEPCOST_PRICES];
    uint64_t n_learned;
};

void stepcost_init(struct stepcost *c);

/* Adds rows of a sequence from position pos on, so many of them to be picked from. */
void stepcost_add(struct stepcost_work *w, uint32_t pos, uint32_t rows, uint32_t picks);

/* Seconds; only ratios mean something before anything was learned. 0 without rows. */
double stepcost_predict(const struct stepcost *c, const struct stepcost_work *w);

/* A step with that work took so long. Times that no step takes teach nothing. */
void stepcost_learn(struct stepcost *c, const struct stepcost_work *w, double seconds);

/* How many rows from position pos on, of `rest` that the prompt still has and at most rows_max, can
 * join the work so that the step is predicted to take at most `limit` seconds. */
uint32_t stepcost_rows(const struct stepcost *c, const struct stepcost_work *w, uint32_t pos,
                       uint32_t rest, uint32_t rows_max, double limit);

#endif
