#include "runtime/model/model.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/mapping.h"
#include "runtime/base/memory.h"
#include "runtime/base/threads.h"
#include "runtime/format/checkpoint.h"
#include "runtime/format/shown.h"
#include "runtime/model/arch.h"
#include "runtime/model/loader.h"
#include "runtime/model/rows.h"

/* A packing job: large enough to be worth taking, small enough to share out evenly. */
#define JOB_BYTES (1u << 20)

/* What the threads do at the end of a load: rows of matrices to pack. */
struct packing {
    const struct loader *loader;
    struct pack_job {
        const struct loader_matrix *matrix;
        int64_t row_begin, row_end;
    } * jobs;
    size_t n_jobs;
    _Atomic size_t next_job;
    _Atomic int failed;
    struct err err; /* where failed */
};

/* ---- packing ----------------------------------------------------------------------------------
 */

static int pack(const struct loader *l, const struct pack_job *job, bool forget, struct err *e)
{
    const struct loader_matrix *m = job->matrix;
    int rc = rows_pack(m, l->model->block, job->row_begin, job->row_end, e);
    if (forget && m->src.head_dim == 0) /* rows in another order lie in other jobs' pages */
        mapping_forget((const char *)m->src.data +
                           (m->first + (size_t)job->row_begin) * m->src.row_bytes,
                       (size_t)(job->row_end - job->row_begin) * m->src.row_bytes);
    return rc;
}

/* Keeps the first of the threads' errors. */
static void fail(struct packing *p, const struct err *e)
{
    if (atomic_exchange(&p->failed, 1) == 0)
        p->err = *e;
}

static void pack_thread(void *arg, uint32_t thread)
{
    struct packing *p = arg;
    bool mapped = checkpoint_is_mapped(p->loader->file);
    struct err e;
    (void)thread;
    for (;;) {
        size_t i = atomic_fetch_add(&p->next_job, 1);
        if (i >= p->n_jobs || atomic_load(&p->failed))
            return;
        if (pack(p->loader, &p->jobs[i], mapped, &e) < 0)
            fail(p, &e);
    }
}

static int64_t rows_of_job(const struct loader_matrix *m)
{
    int64_t row_bytes = (int64_t)m->src.row_bytes;
    int64_t rows = JOB_BYTES / (row_bytes > 0 ? row_bytes : 1) / KN_ROW_TILE * KN_ROW_TILE;
    return rows < KN_ROW_TILE ? KN_ROW_TILE : rows;
}

static int make_jobs(const struct loader *l, struct packing *p, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < l->n_matrices; i++) {
        int64_t step = rows_of_job(&l->matrices[i]);
        n += (size_t)((l->matrices[i].dst->rows + step - 1) / step);
    }
    p->jobs = calloc(n ? n : 1, sizeof(*p->jobs));
    if (!p->jobs)
        return err_set(e, ERR_NOMEM, "model: no memory to pack");
    for (size_t i = 0; i < l->n_matrices; i++) {
        const struct loader_matrix *m = &l->matrices[i];
        int64_t step = rows_of_job(m), rows = m->dst->rows;
        for (int64_t r = 0; r < rows; r += step)
            p->jobs[p->n_jobs++] = (struct pack_job){m, r, r + step < rows ? r + step : rows};
    }
    return 0;
}

static int pack_all(struct loader *l, struct threads *threads, struct err *e)
{
    struct model *m = l->model;
    struct packing p = {.loader = l};
    m->block_bytes = l->block_bytes;
    m->block = memory_map(m->block_bytes);
    if (!m->block)
        return err_set(e, ERR_NOMEM, "model: no memory for %zu bytes of weights", m->block_bytes);
    for (size_t i = 0; i < l->n_matrices; i++)
        l->matrices[i].dst->data = (char *)m->block + l->matrices[i].offset;
    int rc = make_jobs(l, &p, e);
    if (rc == 0)
        threads_run(threads, pack_thread, &p);
    if (rc == 0 && p.failed)
        rc = err_set(e, p.err.code, "%s", p.err.msg);
    free(p.jobs);
    return rc;
}

/* ---- loading ----------------------------------------------------------------------------------
 */

static int find_arch(struct model *m, const struct gguf *g, struct err *e)
{
    struct gguf_str name;
    int rc = gguf_str(g, "general.architecture", GGUF_REQUIRED, &name, e);
    if (rc < 0)
        return rc;
    m->arch = arch_find(name.s, name.n);
    if (m->arch)
        return 0;
    char shown[65];
    size_t n = 0;
    for (; n < name.n && n < sizeof(shown) - 1; n++)
        shown[n] = name.s[n] >= ' ' && name.s[n] <= '~' ? name.s[n] : '?';
    shown[n] = '\0';
    return err_set(e, ERR_UNSUPPORTED, "model: architecture '%s' is not served (served: %s)", shown,
                   arch_names());
}

static int refuse_unused(const struct loader *l, struct err *e)
{
    for (size_t i = 0; i < checkpoint_tensor_count(l->file); i++)
        if (!l->used[i] && !checkpoint_tensor_is_spare(l->file, i))
            return err_set(e, ERR_UNSUPPORTED,
                           "model: tensor '%s' is not part of architecture '%s' as served here",
                           SHOWN(checkpoint_tensor_name(l->file, i)), l->prefix);
    return 0;
}

int model_load(struct model *m, const struct checkpoint *c, enum kn_isa isa,
               struct threads *threads, struct err *e)
{
    return model_load_rank(m, c, isa, 0, 1, threads, e);
}

/* All but the weights. l's tables are the caller's to free, whatever comes of it. */
static int read_model(struct loader *l, struct err *e)
{
    struct model *m = l->model;
    size_t n = checkpoint_tensor_count(l->file);
    /* Vectors at 2 bytes an element become 4; the rest is the table of layers. */
    arena_init(&m->arena, 2 * (size_t)checkpoint_bytes(l->file) +
                              MODEL_LAYERS_MAX * sizeof(*m->layers) + (1u << 20));
    l->used = calloc(n ? n : 1, sizeof(*l->used));
    if (!l->used)
        return err_set(e, ERR_NOMEM, "model: no memory for %zu tensors", n);
    int rc = find_arch(m, l->meta, e);
    if (rc < 0)
        return rc;
    l->prefix = m->arch->name;
    rc = m->arch->load(l, m, e);
    return rc == 0 ? refuse_unused(l, e) : rc;
}

static int finish(struct loader *l, int rc)
{
    free(l->matrices);
    free(l->used);
    if (rc < 0)
        model_release(l->model);
    return rc;
}

int model_load_rank(struct model *m, const struct checkpoint *c, enum kn_isa isa, uint32_t rank,
                    uint32_t ranks, struct threads *threads, struct err *e)
{
    *m = (struct model){.isa = isa, .shard = {.rank = rank, .ranks = ranks}};
    struct loader l = {.file = c, .meta = checkpoint_meta(c), .model = m};
    int rc = read_model(&l, e);
    /* Before the weights are packed, and nothing of the file stays in memory: side by side with
     * packing, file and weights would both be there. */
    if (rc == 0)
        rc = m->shard.rank == 0 ? checkpoint_manifest(c, m->manifest_sha256, e) : 0;
    if (rc == 0)
        rc = pack_all(&l, threads, e);
    if (rc == 0 && m->head.data == NULL)
        m->head = m->embed;
    m->weight_bytes = m->block_bytes + m->arena.used_bytes;
    return finish(&l, rc);
}

int model_measure(struct model *m, const struct checkpoint *c, enum kn_isa isa, struct err *e)
{
    *m = (struct model){.isa = isa, .shard = {.rank = 0, .ranks = 1}};
    struct loader l = {.file = c, .meta = checkpoint_meta(c), .model = m};
    int rc = read_model(&l, e);
    m->weight_bytes = l.block_bytes + m->arena.used_bytes;
    return finish(&l, rc);
}

void model_forget_matrices(struct model *m)
{
    memory_forget(m->block, m->block_bytes);
}

void model_release(struct model *m)
{
    memory_unmap(m->block, m->block_bytes);
    arena_release(&m->arena);
    *m = (struct model){0};
}
