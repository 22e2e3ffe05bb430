/* drafter_model.c: a smaller model guesses, a token at a time, for all sequences at once.
 *
 * A lane is what it keeps of one sequence: KV pages of its own, and which tokens they hold. A call
 * first takes back the KV of guesses that were wrong, computes what came since (a prompt in as many
 * calls as it takes), and then goes on by its own guesses, a run each.
 *
 *     tokens:  prompt, output          guesses of the last call
 *     KV:      ███████████████ n_sure  ███ right ░░ wrong: computed anew
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/drafter.h"
#include "runtime/engine/kvpool.h"
#include "runtime/engine/sequence.h"
#include "runtime/engine/speculator.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "runtime/text/checkpoint_text.h"
#include "runtime/text/tokenizer.h"

/* More rows than this of one sequence are catching up. */
#define SHORT_ROWS (SPECULATOR_TOKENS_MAX + 2)

struct lane {
    const struct sequence *of; /* NULL: free */
    uint32_t *pages;           /* (pages of the context) */
    uint32_t n_pages;
    uint32_t n_sure;                         /* KV of tokens that have come */
    uint32_t n_computed;                     /* and of guesses behind them */
    uint32_t guesses[SPECULATOR_TOKENS_MAX]; /* those guesses */
};

/* A sequence in a call. */
struct guesser {
    struct sequence *of;
    struct lane *lane;
    uint32_t wanted;
    struct kn_sampling sampling;
};

struct drafter_model {
    struct drafter base;
    struct drafter_host host;
    struct model model;
    struct backend *backend;
    struct kvpool pool;
    uint32_t context;    /* the smaller one of both models */
    uint32_t vocab;      /* ids that both know */
    struct lane *lanes;  /* (sequences_max) */
    uint32_t *all_pages; /* of all lanes */

    /* of a call */
    struct guesser *guessers; /* (sequences_max) */
    uint32_t *ids;            /* (rows_max) */
    struct kn_span *spans;    /* (sequences_max) */
    struct pick *picks;       /* (sequences_max) */
    struct guesser **picked;  /* (sequences_max): whose they are */
    uint32_t rows_max;
};

/* ---- lanes ------------------------------------------------------------------------------------
 */

static void free_lane(struct drafter_model *m, struct lane *l)
{
    while (l->n_pages > 0)
        kvpool_drop(&m->pool, l->pages[--l->n_pages]);
    l->n_sure = l->n_computed = 0;
    l->of = NULL;
}

static void forget(struct drafter *d, const struct sequence *q)
{
    struct drafter_model *m = (struct drafter_model *)d;
    if (q->draft_lane != 0 && m->lanes[q->draft_lane - 1].of == q)
        free_lane(m, &m->lanes[q->draft_lane - 1]);
}

/* The lane of q, a free one, or one whose sequence does not run any more. There are as many as
 * sequences can run. */
static struct lane *lane_of(struct drafter_model *m, struct sequence *q)
{
    struct lane *l = q->draft_lane ? &m->lanes[q->draft_lane - 1] : NULL;
    if (l && l->of == q)
        return l;
    for (l = m->lanes; l->of && l->of->state == SEQUENCE_RUNNING; l++)
        ASSERT(l + 1 < m->lanes + m->host.sequences_max);
    if (l->of)
        free_lane(m, l);
    l->of = q;
    q->draft_lane = (uint32_t)(l - m->lanes) + 1;
    return l;
}

/* KV counts as far as it is of the tokens that came. The last token is always computed: its logits
 * are wanted. */
static void keep_right(struct lane *l, const struct sequence *q)
{
    uint32_t last = q->n_tokens - 1, n = l->n_sure < last ? l->n_sure : last;
    while (n < l->n_computed && n < last && l->guesses[n - l->n_sure] == q->tokens[n])
        n++;
    l->n_sure = l->n_computed = n;
}

static bool take_pages(struct drafter_model *m, struct lane *l, uint32_t n_tokens)
{
    while (l->n_pages < sequence_pages(n_tokens)) {
        if (!kvpool_take(&m->pool, &l->pages[l->n_pages]))
            return false;
        l->n_pages++;
    }
    return true;
}

static bool knows(const struct drafter_model *m, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] >= m->vocab)
            return false;
    return true;
}

/* ---- a call -----------------------------------------------------------------------------------
 */

static bool prepare(struct drafter_model *m, struct sequence *q, struct guesser *g)
{
    struct lane *l = lane_of(m, q);
    uint32_t wanted = q->n_drafts;
    q->n_drafts = 0;
    keep_right(l, q);
    if (q->n_tokens + wanted > m->context ||
        !knows(m, q->tokens + l->n_sure, q->n_tokens - l->n_sure) ||
        !take_pages(m, l, q->n_tokens + wanted - 1))
        return false;
    *g = (struct guesser){.of = q, .lane = l, .wanted = wanted};
    g->sampling = *sampler_params(&q->sampler);
    g->sampling.want_logprobs = false;
    g->sampling.n_top = 0;
    return true;
}

/* Rows for what g's lane has not computed of its tokens and guesses. */
static void add_rows(struct drafter_model *m, struct batch *b, struct guesser *g, uint32_t room)
{
    const struct sequence *q = g->of;
    struct lane *l = g->lane;
    uint32_t end = q->n_tokens + q->n_drafts, rows = end - l->n_computed;
    rows = rows < room ? rows : room;
    memcpy(m->ids + b->n_rows, q->tokens + l->n_computed, rows * sizeof(*m->ids));
    m->spans[b->n_spans++] =
        (struct kn_span){.page_table = l->pages, .pos = l->n_computed, .rows = rows};
    b->n_rows += rows;
    for (uint32_t i = l->n_computed; i < l->n_computed + rows; i++)
        if (i >= q->n_tokens)
            l->guesses[i - q->n_tokens] = q->tokens[i];
    l->n_computed += rows;
    l->n_sure = l->n_computed < q->n_tokens ? l->n_computed : q->n_tokens;
    if (l->n_computed < end)
        return;
    m->picked[b->n_picks] = g;
    m->picks[b->n_picks++] =
        (struct pick){.row = b->n_rows - 1, .position = end, .sampling = &g->sampling};
}

/* A guess more for each of those that were picked for. Returns how many want another; they come
 * first. */
static uint32_t take_guesses(struct drafter_model *m, const struct batch *b)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < b->n_picks; i++) {
        struct guesser *g = m->picked[i];
        struct sequence *q = g->of;
        const struct pick *k = &m->picks[i];
        if (!k->finite || k->sampled.id >= m->vocab)
            continue;
        q->tokens[q->n_tokens + q->n_drafts++] = k->sampled.id;
        g->sampling.mask = NULL; /* it is the next token's; what comes behind is not known */
        if (q->n_drafts < g->wanted)
            m->guessers[n++] = *g; /* n is at most where g is */
    }
    return n;
}

static bool draft(struct drafter *d, struct sequence *const *sequences, uint32_t n_sequences)
{
    struct drafter_model *m = (struct drafter_model *)d;
    uint32_t n = 0;
    bool short_rows = true;
    for (uint32_t i = 0; i < n_sequences; i++) {
        n += prepare(m, sequences[i], &m->guessers[n]);
        short_rows &=
            n == 0 ||
            m->guessers[n - 1].of->n_tokens - m->guessers[n - 1].lane->n_computed <= SHORT_ROWS;
    }
    while (n > 0) {
        struct batch b = {.ids = m->ids, .spans = m->spans, .picks = m->picks};
        for (uint32_t i = 0; i < n && b.n_rows < m->rows_max; i++)
            add_rows(m, &b, &m->guessers[i], m->rows_max - b.n_rows);
        backend_run(m->backend, &b);
        n = take_guesses(m, &b);
    }
    return short_rows;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int check_tokens(const struct tokenizer *ours, const struct tokenizer *its, struct err *e)
{
    uint32_t n = tokenizer_vocab_size(ours);
    if (tokenizer_vocab_size(its) != n)
        return err_set(e, ERR_CONFIG, "it has %u tokens, the model %u", tokenizer_vocab_size(its),
                       n);
    for (uint32_t id = 0; id < n; id++) {
        size_t a_n, b_n;
        const char *a = tokenizer_token_bytes(ours, id, true, &a_n);
        const char *b = tokenizer_token_bytes(its, id, true, &b_n);
        if (a_n != b_n || memcmp(a, b, a_n) != 0)
            return err_set(e, ERR_CONFIG, "its token %u is another one than the model's", id);
    }
    return 0;
}

static int load(struct drafter_model *m, const char *path, struct err *e)
{
    struct checkpoint *file = NULL;
    struct tokenizer *its = NULL;
    int rc = checkpoint_open(path, &file, e);
    if (rc < 0)
        return rc;
    rc = tokenizer_open(file, &its, e);
    if (rc == 0)
        rc = check_tokens(m->host.tokenizer, its, e);
    if (rc == 0)
        rc = model_load(&m->model, file, m->host.isa, m->host.threads, e);
    tokenizer_free(its);
    checkpoint_close(file);
    return rc;
}

static int take_tables(struct drafter_model *m, struct err *e)
{
    uint32_t n = m->host.sequences_max, each = sequence_pages(m->host.context);
    m->lanes = calloc(n, sizeof(*m->lanes));
    m->all_pages = calloc((size_t)n * each, sizeof(*m->all_pages));
    m->guessers = calloc(n, sizeof(*m->guessers));
    m->ids = calloc(m->rows_max, sizeof(*m->ids));
    m->spans = calloc(n, sizeof(*m->spans));
    m->picks = calloc(n, sizeof(*m->picks));
    m->picked = calloc(n, sizeof(struct guesser *));
    if (!m->lanes || !m->all_pages || !m->guessers || !m->ids || !m->spans || !m->picks ||
        !m->picked)
        return err_set(e, ERR_NOMEM, "no memory");
    for (uint32_t i = 0; i < n; i++)
        m->lanes[i].pages = m->all_pages + (size_t)i * each;
    return 0;
}

static void free_model(struct drafter *d)
{
    struct drafter_model *m = (struct drafter_model *)d;
    backend_free(m->backend);
    kvpool_release(&m->pool);
    model_release(&m->model);
    free(m->lanes);
    free(m->all_pages);
    free(m->guessers);
    free(m->ids);
    free(m->spans);
    free(m->picks);
    free(m->picked);
    free(m);
}

static int open_model(struct drafter_model *m, const char *path, struct err *e)
{
    const struct drafter_host *h = &m->host;
    int rc = load(m, path, e);
    if (rc < 0)
        return rc;
    m->vocab = h->vocab < m->model.h.vocab ? h->vocab : m->model.h.vocab;
    m->context = h->context < m->model.h.context ? h->context : m->model.h.context;
    m->rows_max = h->step_tokens_max;
    const struct backend_limits limits = {
        .rows_max = m->rows_max,
        .picks_max = h->sequences_max < m->rows_max ? h->sequences_max : m->rows_max,
        .context = m->context,
        .kv_pages = h->kv_pages,
        .kv_type = h->kv_type};
    rc = backend_cpu_create(&m->model, h->threads, NULL, &limits, &m->backend, e);
    if (rc == 0)
        rc = kvpool_init(&m->pool, h->kv_pages, e);
    return rc == 0 ? take_tables(m, e) : rc;
}

int drafter_model_create(const char *path, const struct drafter_host *host, struct drafter **out,
                         struct err *e)
{
    struct drafter_model *m = calloc(1, sizeof(*m));
    if (!m)
        return err_set(e, ERR_NOMEM, "no memory");
    m->base = (struct drafter){.draft = draft, .forget = forget, .free = free_model};
    m->host = *host;
    int rc = open_model(m, path, e);
    if (rc < 0) {
        free_model(&m->base);
        return err_prefix(e, "draft_model %s", path);
    }
    log_info("draft model loaded", "path=%s weight_bytes=%llu kv_bytes=%llu", path,
             (unsigned long long)m->model.weight_bytes,
             (unsigned long long)(host->kv_pages * backend_page_bytes(&m->model, host->kv_type)));
    *out = &m->base;
    return 0;
}
