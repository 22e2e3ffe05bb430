/* use_checkpoint.h: everything that is done with a model file: its weights are loaded and compute a
 * few tokens, its tokenizer encodes, its template is read, its manifest is made. */
#ifndef ARGOSY_FUZZ_USE_CHECKPOINT_H
#define ARGOSY_FUZZ_USE_CHECKPOINT_H

#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "runtime/text/checkpoint_text.h"
#include "runtime/text/tokenizer.h"

#define USE_ROWS 3u
#define USE_WEIGHT_BYTES_MAX (4u << 20) /* what computes in no time */

/* What came of it. */
enum used { USED_LOADED = 1, USED_TOKENIZER = 2 };

static inline void use_compute(const struct model *m, struct threads *threads)
{
    const uint32_t ids[USE_ROWS] = {0, m->h.vocab - 1, m->h.vocab / 2}, page = 0;
    const struct backend_limits limits = {
        .rows_max = USE_ROWS, .picks_max = 1, .context = USE_ROWS, .kv_pages = 1};
    const struct kn_span span = {.page_table = &page, .pos = 0, .rows = USE_ROWS};
    struct pick pick = {.row = USE_ROWS - 1};
    struct batch batch = {
        .ids = ids, .n_rows = USE_ROWS, .spans = &span, .n_spans = 1, .picks = &pick, .n_picks = 1};
    struct backend *b = NULL;
    if (backend_page_bytes(m, KN_KV_F16) > USE_WEIGHT_BYTES_MAX ||
        backend_cpu_create(m, threads, NULL, &limits, &b, NULL) < 0)
        return;
    backend_run(b, &batch);
    backend_free(b);
}

static inline void use_text(const struct checkpoint *c, const uint8_t *bytes, size_t n, int *used)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    struct buf text;
    struct tokenvec ids;
    buf_init(&text, 0);
    tokenvec_init(&ids, 0);
    chat_template_read(c, &text, NULL);
    if (tokenizer_open(c, &t, &e) < 0) {
        ASSERT(!t && e.code < 0 && e.msg[0]);
    } else {
        *used |= USED_TOKENIZER;
        tokenizer_encode(t, (const char *)bytes, n < 64 ? n : 64, TOKENIZER_PARSE_SPECIAL, &ids,
                         &e);
        for (size_t i = 0; i < ids.n; i++)
            ASSERT(ids.ids[i] < tokenizer_vocab_size(t));
    }
    tokenizer_free(t);
    tokenvec_release(&ids);
    buf_release(&text);
}

/* bytes: some text to encode. */
static inline int use_checkpoint(const struct checkpoint *c, const uint8_t *bytes, size_t n)
{
    static struct threads *threads;
    struct model m;
    struct err e = {0};
    int used = 0;
    if (!threads)
        ASSERT(threads_create(1, &threads, NULL) == 0);
    if (model_load(&m, c, KN_ISA_REF, threads, &e) < 0) {
        ASSERT(e.code < 0 && e.msg[0]);
    } else {
        used |= USED_LOADED;
        /* For some: it takes as long as all the rest. */
        if (n % 8 == 0 && m.weight_bytes <= USE_WEIGHT_BYTES_MAX && m.h.context >= USE_ROWS)
            use_compute(&m, threads);
        model_release(&m);
    }
    use_text(c, bytes, n, &used);
    return used;
}

#endif
