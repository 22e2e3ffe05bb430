/* What a peer sends, both ways: the first byte picks the direction, and whether it is a message of
 * frames or one frame. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/rpc/frame.h"

/* What the rest of the program takes for granted after frame_unpack_*. */
static void trust_step(const Argosy__Step *s)
{
    for (size_t i = 0; i < s->n_deltas; i++) {
        const Argosy__Delta *d = s->deltas[i];
        ASSERT(d->error && (d->n_logprobs == 0 || d->n_logprobs == d->n_tokens));
        ASSERT(d->finish >= 0 && d->finish <= ARGOSY__FINISH__FINISH_ERROR);
        for (size_t t = 0; t < d->n_logprobs; t++) {
            ASSERT(d->logprobs[t]->n_top_ids == d->logprobs[t]->n_top_logprobs);
            ASSERT(d->logprobs[t]->n_top_ids <= FRAME_TOP_LOGPROBS_MAX);
            ASSERT(isfinite(d->logprobs[t]->logprob));
        }
    }
}

static void trust_start(const Argosy__Start *s)
{
    ASSERT(s->sampling && s->model && s->cache_salt.len <= FRAME_SALT_BYTES_MAX);
    ASSERT(s->n_prompt <= FRAME_TOKENS_MAX && s->n_output <= FRAME_TOKENS_MAX);
    ASSERT(s->n_stop <= FRAME_STOPS_MAX && s->sampling->n_bias_ids == s->sampling->n_bias_values);
    for (size_t i = 0; i < s->n_stop; i++)
        ASSERT(strlen(s->stop[i]) <= FRAME_STOP_BYTES_MAX);
    ASSERT(isfinite(s->sampling->temperature) && isfinite(s->sampling->top_p));
}

static void from_worker(const uint8_t *data, size_t n)
{
    Argosy__FromWorker *f;
    struct err e = {0};
    struct arena memory;
    if (frame_unpack_from_worker(data, n, &memory, &f, &e) < 0) {
        ASSERT(!f && e.code < 0 && e.msg[0]);
        arena_release(&memory);
        return;
    }
    ASSERT(memory.used_bytes <= frame_budget(n));
    if (f && f->frame_case == ARGOSY__FROM_WORKER__FRAME_STEP)
        trust_step(f->step);
    arena_release(&memory);
}

static void to_worker(const uint8_t *data, size_t n)
{
    Argosy__ToWorker *f;
    struct err e = {0};
    struct arena memory;
    if (frame_unpack_to_worker(data, n, &memory, &f, &e) < 0) {
        ASSERT(!f && e.code < 0 && e.msg[0]);
        arena_release(&memory);
        return;
    }
    ASSERT(memory.used_bytes <= frame_budget(n));
    if (f && f->frame_case == ARGOSY__TO_WORKER__FRAME_START)
        trust_start(f->start);
    arena_release(&memory);
}

static void message(const uint8_t *data, size_t n, void (*take)(const uint8_t *, size_t))
{
    struct frame_list l = {.data = data, .n = n};
    const uint8_t *frame;
    size_t len;
    struct err e = {0};
    int rc;
    while ((rc = frame_next(&l, &frame, &len, &e)) > 0) {
        ASSERT(frame >= data && len <= n && frame + len <= data + n && l.frames <= FRAME_LIST_MAX);
        take(frame, len);
    }
    ASSERT(rc == 0 ? l.frames > 0 : e.code < 0 && e.msg[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n == 0)
        return 0;
    void (*take)(const uint8_t *, size_t) = data[0] & 1 ? from_worker : to_worker;
    if (data[0] & 2)
        message(data + 1, n - 1, take);
    else
        take(data + 1, n - 1);
    return 0;
}
