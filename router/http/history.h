/* history.h: the last minutes of the router and of its workers, for the explorer. Fixed in size: a
 * sample a second for ten minutes, and for each worker one every two seconds for five.
 *
 * Percentiles are those of the last HISTORY_WINDOW_S seconds, so that a curve means something where
 * few requests come.
 *
 * Thread: the event loop.
 */
#ifndef ARGOSY_ROUTER_HTTP_HISTORY_H
#define ARGOSY_ROUTER_HTTP_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "router/http/sketch.h"

#define HISTORY_SAMPLES 600
#define HISTORY_WINDOW_S 10
#define TRACK_SAMPLES 150
#define TRACK_PERIOD_S 2
/* Workers past it have no history of their own. */
#define TRACKS_MAX 256
#define TRACK_ID_BYTES 64

struct pool;

struct history_sample {
    int64_t wall_s;
    uint32_t requests, failed, tokens, prompt_tokens; /* in that second */
    float first_s[3], each_s[3];                      /* 50, 95, 99 %: to the first token, between
                                                         tokens; 0: none came */
    uint32_t running, waiting, workers;
    float kv; /* share of all pages in use */
};

struct track_sample {
    float tokens_per_s, kv;
    uint16_t running, waiting;
};

struct track {
    char id[TRACK_ID_BYTES];
    uint64_t tokens; /* that it had given at the latest sample */
    int64_t seen_s;
    uint32_t next, n; /* of samples: where the next goes, how many there are */
    struct track_sample samples[TRACK_SAMPLES];
};

struct history {
    struct history_sample samples[HISTORY_SAMPLES];
    uint32_t next, n;
    struct history_sample now;             /* counts of the second that runs */
    struct sketch first[HISTORY_WINDOW_S]; /* by second */
    struct sketch each[HISTORY_WINDOW_S];
    struct track *tracks[TRACKS_MAX]; /* (n_tracks) */
    uint32_t n_tracks;
    uint64_t ticks;
};

/* Zeroed is ready. */
void history_release(struct history *h);

void history_first(struct history *h, double seconds);
/* n tokens, so many seconds each behind the one before. */
void history_each(struct history *h, double seconds, uint32_t n);
void history_tokens(struct history *h, uint32_t n);
void history_request(struct history *h, bool failed, uint32_t prompt_tokens);

/* Once a second: closes the sample, and takes what the pool says now. */
void history_tick(struct history *h, const struct pool *pool, uint32_t running, uint32_t waiting,
                  int64_t wall_s);
/* i < h->n, the oldest first. */
const struct history_sample *history_at(const struct history *h, uint32_t i);
/* NULL: not known, or past the limit. */
const struct track *history_track(const struct history *h, const char *id);
const struct track_sample *track_at(const struct track *t, uint32_t i);

#endif
