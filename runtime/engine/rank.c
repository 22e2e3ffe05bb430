#include "runtime/engine/rank.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/threads.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"

/* A batch on its way: this, then its words: ids, rows of picks, and for each span its position, its
 * rows and its pages. What is pooled is rank 0's, the others know how many alone. */
struct message {
    uint64_t n_words;
    uint32_t n_rows, n_spans, n_picks, n_pools;
};

static uint32_t pages_of(const struct kn_span *s)
{
    return (s->pos + s->rows + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS;
}

/* ---- rank 0 -----------------------------------------------------------------------------------
 */

int rank_send_limits(struct collective *c, const struct backend_limits *limits, struct err *e)
{
    struct backend_limits copy = *limits;
    return collective_broadcast(c, &copy, sizeof(copy), e);
}

static void add_words(struct buf *b, const uint32_t *words, size_t n)
{
    buf_add(b, words, n * sizeof(*words));
}

int rank_send_batch(struct collective *c, const struct batch *batch, struct buf *scratch,
                    struct err *e)
{
    buf_clear(scratch);
    add_words(scratch, batch->ids, batch->n_rows);
    for (uint32_t i = 0; i < batch->n_picks; i++)
        add_words(scratch, &batch->picks[i].row, 1);
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        const struct kn_span *s = &batch->spans[i];
        const uint32_t place[2] = {s->pos, s->rows};
        add_words(scratch, place, 2);
        add_words(scratch, s->page_table, pages_of(s));
    }
    if (scratch->failed)
        return err_set(e, ERR_NOMEM, "no memory to tell the ranks of a batch");
    struct message m = {.n_words = scratch->len / sizeof(uint32_t),
                        .n_rows = batch->n_rows,
                        .n_spans = batch->n_spans,
                        .n_picks = batch->n_picks,
                        .n_pools = batch->n_pools};
    int rc = collective_broadcast(c, &m, sizeof(m), e);
    if (rc == 0)
        rc = collective_broadcast(c, scratch->data, scratch->len, e);
    return rc;
}

/* ---- the others -------------------------------------------------------------------------------
 */

struct rank {
    struct collective *group;
    struct threads *threads;
    struct model model;
    struct backend *backend;
    uint32_t *words;
    uint64_t room;         /* of words */
    struct kn_span *spans; /* (rows_max) */
    struct pick *picks;    /* (picks_max) */
};

static int load(struct rank *r, const struct rank_setup *setup, struct err *e)
{
    int rc = threads_create(setup->threads, &r->threads, e);
    if (rc == 0)
        rc = model_load_rank(&r->model, setup->file, setup->isa, r->group->rank, r->group->size,
                             r->threads, e);
    checkpoint_close(setup->file);
    return rc;
}

static int create_backend(struct rank *r, const struct rank_setup *setup,
                          const struct backend_limits *limits, struct err *e)
{
    const struct gpu_group group = {.control = r->group};
    struct gpu gpu = setup->gpu;
    if (!gpu_computes(&gpu))
        return backend_cpu_create(&r->model, r->threads, r->group, limits, &r->backend, e);
    gpu.index += (int)r->group->rank;
    int rc = backend_cuda_create(&r->model, &gpu, &group, limits, &r->backend, e);
    if (rc == 0)
        model_forget_matrices(&r->model);
    return rc;
}

static int take_memory(struct rank *r, const struct rank_setup *setup,
                       const struct backend_limits *limits, struct err *e)
{
    r->spans = calloc(limits->rows_max, sizeof(*r->spans));
    r->picks = calloc(limits->picks_max, sizeof(*r->picks));
    if (!r->spans || !r->picks)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    return create_backend(r, setup, limits, e);
}

/* Comes up together with the others, or not at all. */
static int come_up(struct rank *r, const struct rank_setup *setup)
{
    struct backend_limits limits;
    struct err e;
    int rc = load(r, setup, &e);
    rc = collective_agree(r->group, rc, &e, &e);
    if (rc == 0)
        rc = collective_broadcast(r->group, &limits, sizeof(limits), NULL);
    if (rc < 0)
        return rc;
    rc = take_memory(r, setup, &limits, &e);
    return collective_agree(r->group, rc, &e, NULL);
}

static int make_room(struct rank *r, uint64_t n_words)
{
    if (n_words <= r->room)
        return 0;
    uint32_t *more = realloc(r->words, n_words * sizeof(*more));
    if (!more)
        return ERR_NOMEM;
    r->words = more;
    r->room = n_words;
    return 0;
}

static void read_words(struct rank *r, const struct message *m, struct batch *batch)
{
    const uint32_t *at = r->words;
    *batch = (struct batch){.ids = at,
                            .n_rows = m->n_rows,
                            .spans = r->spans,
                            .n_spans = m->n_spans,
                            .picks = r->picks,
                            .n_picks = m->n_picks,
                            .n_pools = m->n_pools};
    at += m->n_rows;
    for (uint32_t i = 0; i < m->n_picks; i++)
        r->picks[i] = (struct pick){.row = *at++};
    for (uint32_t i = 0; i < m->n_spans; i++) {
        r->spans[i] = (struct kn_span){.pos = at[0], .rows = at[1], .page_table = at + 2};
        at += 2 + pages_of(&r->spans[i]);
    }
}

static int step(struct rank *r)
{
    struct message m;
    struct batch batch;
    int rc = collective_broadcast(r->group, &m, sizeof(m), NULL);
    if (rc == 0)
        rc = make_room(r, m.n_words);
    if (rc == 0)
        rc = collective_broadcast(r->group, r->words, m.n_words * sizeof(*r->words), NULL);
    if (rc < 0)
        return rc;
    read_words(r, &m, &batch);
    backend_run(r->backend, &batch);
    return backend_check(r->backend, NULL);
}

void rank_serve(struct collective *c, void *setup)
{
    struct rank r = {.group = c};
    if (come_up(&r, setup) == 0)
        while (step(&r) == 0)
            ;
    free(r.words);
    free(r.spans);
    free(r.picks);
    /* The process ends: weights and pages go with it. */
}
