#include "runtime/worker/cachefeed.h"

#include <stdlib.h>

#include "runtime/rpc/frame.h"

int cachefeed_init(struct cachefeed *f, struct engine *engine, struct err *e)
{
    *f = (struct cachefeed){.engine = engine, .part = calloc(FRAME_BLOCKS_MAX, sizeof(*f->part))};
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

static void send_part(struct cachefeed *f, struct attachment *a)
{
    uint32_t n = engine_cache_blocks(f->engine, &a->cache_cursor, f->part, FRAME_BLOCKS_MAX);
    if (n > 0)
        send_blocks(a, NULL, 0, f->part, n);
    a->cache_told = n < FRAME_BLOCKS_MAX;
}

uint64_t cachefeed_tick(struct cachefeed *f, struct attachment *attachments, size_t n,
                        uint64_t now_ms)
{
    struct engine_cache_news news = {0};
    bool more = false;
    if (f->stepped && now_ms >= f->sent_at_ms + CACHEFEED_GAP_MS) {
        engine_cache_news(f->engine, &news);
        f->sent_at_ms = now_ms;
        f->stepped = false;
    }
    for (size_t i = 0; i < n; i++) {
        struct attachment *a = &attachments[i];
        if (a->state != ATTACHMENT_ATTACHED)
            continue;
        send_news(a, news);
        if (!a->cache_told)
            send_part(f, a);
        more |= !a->cache_told;
    }
    if (more)
        return now_ms;
    return f->stepped ? f->sent_at_ms + CACHEFEED_GAP_MS : UINT64_MAX;
}
