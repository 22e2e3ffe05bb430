#include "runtime/worker/cachefeed.h"

#include <stdlib.h>

#include "runtime/rpc/frame.h"

int cachefeed_init(struct cachefeed *f, struct roster *roster, struct err *e)
{
    *f = (struct cachefeed){.roster = roster, .part = calloc(FRAME_BLOCKS_MAX, sizeof(*f->part))};
    return f->part ? 0 : err_set(e, ERR_NOMEM, "no memory for a frame of blocks");
}

void cachefeed_release(struct cachefeed *f)
{
    free(f->part);
    *f = (struct cachefeed){0};
}

void cachefeed_stepped(struct cachefeed *f)
{
    f->stepped = true;
}

/* The arrays are borrowed: the frame is packed when it is sent. */
static void send_blocks(struct attachment *a, const uint64_t *evicted, uint32_t n_evicted,
                        const uint64_t *stored, uint32_t n_stored)
{
    Argosy__CacheEvents m = ARGOSY__CACHE_EVENTS__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    m.evicted = (uint64_t *)evicted;
    m.n_evicted = n_evicted;
    m.stored = (uint64_t *)stored;
    m.n_stored = n_stored;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS;
    f.cache_events = &m;
    attachment_send(a, &f);
}

static uint32_t frame_part(uint32_t n)
{
    return n < FRAME_BLOCKS_MAX ? n : FRAME_BLOCKS_MAX;
}

/* All that is evicted before anything that is stored: a hash may have moved. */
static void send_news(struct attachment *a, struct engine_cache_news news)
{
    while (news.n_evicted > 0 || news.n_stored > 0) {
        uint32_t n = frame_part(news.n_evicted);
        uint32_t k = n == news.n_evicted ? frame_part(news.n_stored) : 0;
        send_blocks(a, news.evicted, n, news.stored, k);
        news.evicted += n;
        news.n_evicted -= n;
        news.stored += k;
        news.n_stored -= k;
    }
}

static void next_offer(struct cachefeed *f, struct attachment *a)
{
    a->cache_offer++;
    a->cache_cursor = 0;
    a->cache_told = a->cache_offer >= f->roster->n;
}

static void send_part(struct cachefeed *f, struct attachment *a)
{
    while (!a->cache_told && f->roster->offers[a->cache_offer].state != OFFER_LOADED)
        next_offer(f, a);
    if (a->cache_told)
        return;
    struct engine *engine = f->roster->offers[a->cache_offer].engine;
    uint32_t n = engine_cache_blocks(engine, &a->cache_cursor, f->part, FRAME_BLOCKS_MAX);
    if (n > 0)
        send_blocks(a, NULL, 0, f->part, n);
    if (n < FRAME_BLOCKS_MAX)
        next_offer(f, a);
}

/* To all that are attached. */
static void send_all(struct engine_cache_news news, struct attachment *attachments, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (attachments[i].state == ATTACHMENT_ATTACHED)
            send_news(&attachments[i], news);
}

static void send_engine_news(struct engine *engine, struct attachment *attachments, size_t n)
{
    struct engine_cache_news news = {0};
    engine_cache_news(engine, &news);
    send_all(news, attachments, n);
}

void cachefeed_leaves(struct cachefeed *f, const struct offer *o, struct attachment *attachments,
                      size_t n)
{
    struct engine_cache_news news = {.evicted = f->part, .n_evicted = FRAME_BLOCKS_MAX};
    uint32_t cursor = 0;
    send_engine_news(o->engine, attachments, n);
    while (news.n_evicted == FRAME_BLOCKS_MAX) {
        news.n_evicted = engine_cache_blocks(o->engine, &cursor, f->part, FRAME_BLOCKS_MAX);
        send_all(news, attachments, n);
    }
    for (size_t i = 0; i < n; i++)
        if (!attachments[i].cache_told && attachments[i].cache_offer == o - f->roster->offers)
            next_offer(f, &attachments[i]);
}

uint64_t cachefeed_tick(struct cachefeed *f, struct attachment *attachments, size_t n,
                        uint64_t now_ms)
{
    bool more = false;
    if (f->stepped && now_ms >= f->sent_at_ms + CACHEFEED_GAP_MS) {
        for (uint32_t i = 0; i < f->roster->n; i++)
            if (f->roster->offers[i].state == OFFER_LOADED)
                send_engine_news(f->roster->offers[i].engine, attachments, n);
        f->sent_at_ms = now_ms;
        f->stepped = false;
    }
    for (size_t i = 0; i < n; i++) {
        struct attachment *a = &attachments[i];
        if (a->state != ATTACHMENT_ATTACHED)
            continue;
        if (!a->cache_told)
            send_part(f, a);
        more |= !a->cache_told;
    }
    if (more)
        return now_ms;
    return f->stepped ? f->sent_at_ms + CACHEFEED_GAP_MS : UINT64_MAX;
}
