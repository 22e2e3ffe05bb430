#include "router/http/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool.h"

/* A worker that is gone for longer is forgotten. */
#define TRACK_KEEP_S 60

void history_release(struct history *h)
{
    while (h->n_tracks > 0)
        free(h->tracks[--h->n_tracks]);
}

static struct sketch *this_second(struct history *h, struct sketch *sketches)
{
    return &sketches[h->ticks % HISTORY_WINDOW_S];
}

void history_first(struct history *h, double seconds)
{
    sketch_add(this_second(h, h->first), seconds, 1);
}

void history_each(struct history *h, double seconds, uint32_t n)
{
    sketch_add(this_second(h, h->each), seconds, n);
}

void history_tokens(struct history *h, uint32_t n)
{
    h->now.tokens += n;
}

void history_request(struct history *h, bool failed, uint32_t prompt_tokens)
{
    h->now.requests++;
    h->now.failed += failed;
    h->now.prompt_tokens += prompt_tokens;
}

/* ---- workers ----------------------------------------------------------------------------------
 */

struct walk {
    struct history *history;
    int64_t wall_s;
    uint32_t workers;
    uint64_t kv_pages, kv_pages_used;
    bool sample; /* the workers' turn */
};

static uint16_t clipped(uint32_t n)
{
    return n < UINT16_MAX ? (uint16_t)n : UINT16_MAX;
}

/* Workers mostly stand in the order of the last time: that place is looked at first. */
static struct track *find_track(struct history *h, const char *id, uint32_t place)
{
    if (place < h->n_tracks && strcmp(h->tracks[place]->id, id) == 0)
        return h->tracks[place];
    for (uint32_t i = 0; i < h->n_tracks; i++)
        if (strcmp(h->tracks[i]->id, id) == 0)
            return h->tracks[i];
    return NULL;
}

static struct track *new_track(struct history *h, const struct pool_worker_view *w)
{
    struct track *t = h->n_tracks < TRACKS_MAX ? calloc(1, sizeof(*t)) : NULL;
    if (!t)
        return NULL;
    snprintf(t->id, sizeof(t->id), "%s", w->id);
    t->tokens = w->tokens;
    h->tracks[h->n_tracks++] = t;
    return t;
}

static void add_worker(void *ctx, const struct pool_worker_view *w)
{
    struct walk *walk = ctx;
    uint32_t place = walk->workers++;
    walk->kv_pages += w->kv_pages;
    walk->kv_pages_used += w->kv_pages_used;
    if (!walk->sample)
        return;
    struct track *t = find_track(walk->history, w->id, place);
    if (!t && !(t = new_track(walk->history, w)))
        return;
    /* It attached anew when it has given less than before. */
    uint64_t tokens = w->tokens >= t->tokens ? w->tokens - t->tokens : w->tokens;
    t->tokens = w->tokens;
    t->seen_s = walk->wall_s;
    t->samples[t->next] = (struct track_sample){
        .tokens_per_s = (float)tokens / TRACK_PERIOD_S,
        .kv = w->kv_pages ? (float)w->kv_pages_used / (float)w->kv_pages : 0,
        .running = clipped(w->running),
        .waiting = clipped(w->waiting),
    };
    t->next = (t->next + 1) % TRACK_SAMPLES;
    t->n += t->n < TRACK_SAMPLES;
}

static void forget_the_gone(struct history *h, int64_t wall_s)
{
    for (uint32_t i = 0; i < h->n_tracks;) {
        if (wall_s - h->tracks[i]->seen_s <= TRACK_KEEP_S) {
            i++;
            continue;
        }
        free(h->tracks[i]);
        h->tracks[i] = h->tracks[--h->n_tracks];
    }
}

/* ---- the second that ends ---------------------------------------------------------------------
 */

static void percentiles(const struct sketch *sketches, float out[3])
{
    struct sketch all = {{0}, 0};
    for (int i = 0; i < HISTORY_WINDOW_S; i++)
        sketch_merge(&all, &sketches[i]);
    out[0] = (float)sketch_percentile(&all, 0.50);
    out[1] = (float)sketch_percentile(&all, 0.95);
    out[2] = (float)sketch_percentile(&all, 0.99);
}

void history_tick(struct history *h, const struct pool *pool, uint32_t running, uint32_t waiting,
                  int64_t wall_s)
{
    struct walk walk = {.history = h, .wall_s = wall_s, .sample = h->ticks % TRACK_PERIOD_S == 0};
    pool_each_worker(pool, add_worker, &walk);
    if (walk.sample)
        forget_the_gone(h, wall_s);
    struct history_sample *s = &h->samples[h->next];
    *s = h->now;
    s->wall_s = wall_s;
    s->running = running;
    s->waiting = waiting;
    s->workers = walk.workers;
    s->kv = walk.kv_pages ? (float)walk.kv_pages_used / (float)walk.kv_pages : 0;
    percentiles(h->first, s->first_s);
    percentiles(h->each, s->each_s);
    h->next = (h->next + 1) % HISTORY_SAMPLES;
    h->n += h->n < HISTORY_SAMPLES;
    memset(&h->now, 0, sizeof(h->now));
    h->ticks++;
    memset(this_second(h, h->first), 0, sizeof(struct sketch));
    memset(this_second(h, h->each), 0, sizeof(struct sketch));
}

const struct history_sample *history_at(const struct history *h, uint32_t i)
{
    return &h->samples[(h->next + HISTORY_SAMPLES - h->n + i) % HISTORY_SAMPLES];
}

const struct track *history_track(const struct history *h, const char *id)
{
    for (uint32_t i = 0; i < h->n_tracks; i++)
        if (strcmp(h->tracks[i]->id, id) == 0)
            return h->tracks[i];
    return NULL;
}

const struct track_sample *track_at(const struct track *t, uint32_t i)
{
    return &t->samples[(t->next + TRACK_SAMPLES - t->n + i) % TRACK_SAMPLES];
}
