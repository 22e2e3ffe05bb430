/* collective_nccl.c: see collective_nccl.h.
 *
 * Parts are packed, rank by rank, in a staging buffer, broadcast each by its rank in one group
 * (NCCL has no all-gather of parts that differ), and unpacked to their columns: two launches of
 * ours beside NCCL's, however many planes and ranks there are. */
#include "runtime/engine/collective_nccl.h"

#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>

#include "kernels/cuda_kernels.h"
#include "kernels/simt/nccl_api.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/model/shard.h"

/* Between two looks at the others. */
#define SLICE_MS 50u

struct nccl {
    struct collective base;
    ncclComm_t comm;
    cudaStream_t stream;
    char *staging;
    size_t staging_bytes;
    int (*watch)(void *arg, struct err *e);
    void *arg;
    uint64_t patience_ms;
};

static int fail_nccl(struct nccl *c, ncclResult_t r)
{
    return err_set(&c->base.lost, ERR_PEER, "NCCL: %s", ncclGetErrorString(r));
}

static int fail_cuda(struct nccl *c, cudaError_t r)
{
    return err_set(&c->base.lost, ERR_IO, "CUDA: %s", cudaGetErrorString(r));
}

/* ---- gather -----------------------------------------------------------------------------------
 */

/* Rows [row, row + rows[i]) of each plane, and where the parts of each rank lie in staging: of
 * plane i and rank r at at[i][r]. */
struct turn {
    const struct collective_plane *planes;
    int n;
    size_t row[COLLECTIVE_PLANES_MAX], rows[COLLECTIVE_PLANES_MAX];
    size_t at[COLLECTIVE_PLANES_MAX][SHARD_RANKS_MAX];
};

/* As many of the next rows as staging holds. False when none is left. */
static bool next_turn(const struct nccl *c, struct turn *t)
{
    size_t at = 0;
    for (int i = 0; i < t->n; i++) {
        const struct collective_plane *p = &t->planes[i];
        size_t row_bytes = p->begin[c->base.size], left = p->rows - t->row[i] - t->rows[i];
        size_t room = row_bytes ? (c->staging_bytes - at) / row_bytes : 0;
        t->row[i] += t->rows[i];
        t->rows[i] = left < room ? left : room;
        for (uint32_t r = 0; r < c->base.size; r++) {
            t->at[i][r] = at;
            at += t->rows[i] * collective_width(p, r);
        }
    }
    return at > 0;
}

/* What a turn copies between planes and staging, in one launch. */
struct copies {
    struct kn_cuda_copy v[COLLECTIVE_PLANES_MAX * SHARD_RANKS_MAX];
    int n;
};

static void add_copy(struct copies *k, void *to, size_t to_stride, const void *from,
                     size_t from_stride, size_t width, size_t rows)
{
    if (width > 0 && rows > 0)
        k->v[k->n++] = (struct kn_cuda_copy){.from = from,
                                             .to = to,
                                             .from_stride = (int64_t)from_stride,
                                             .to_stride = (int64_t)to_stride,
                                             .width = (int64_t)width,
                                             .rows = (int64_t)rows};
}

static cudaError_t copy_all(const struct nccl *c, const struct copies *k)
{
    return (cudaError_t)kn_cuda_copy_columns(k->v, k->n, c->stream);
}

/* Staging has a rank's columns packed. */
static cudaError_t pack(const struct nccl *c, const struct turn *t)
{
    uint32_t own = c->base.rank;
    struct copies k = {.n = 0};
    for (int i = 0; i < t->n; i++) {
        const struct collective_plane *p = &t->planes[i];
        size_t width = collective_width(p, own);
        add_copy(&k, c->staging + t->at[i][own], width,
                 (const char *)p->src + t->row[i] * p->src_stride, p->src_stride, width,
                 t->rows[i]);
    }
    return copy_all(c, &k);
}

/* Own columns too, unless they lie there already. */
static cudaError_t unpack(const struct nccl *c, const struct turn *t)
{
    struct copies k = {.n = 0};
    for (int i = 0; i < t->n; i++) {
        const struct collective_plane *p = &t->planes[i];
        for (uint32_t r = 0; r < c->base.size; r++) {
            char *dst = (char *)p->dst + p->begin[r];
            size_t width = collective_width(p, r);
            if (r != c->base.rank || dst != p->src)
                add_copy(&k, dst + t->row[i] * p->dst_stride, p->dst_stride,
                         c->staging + t->at[i][r], width, width, t->rows[i]);
        }
    }
    return copy_all(c, &k);
}

/* Rank r's part of plane i, to all or to the root. */
static ncclResult_t exchange_part(const struct nccl *c, char *part, size_t bytes, uint32_t r,
                                  uint32_t root)
{
    uint32_t own = c->base.rank;
    if (bytes == 0)
        return ncclSuccess;
    if (root == COLLECTIVE_ALL)
        return ncclBroadcast(part, part, bytes, ncclChar, (int)r, c->comm, c->stream);
    if (r == own && root != own)
        return ncclSend(part, bytes, ncclChar, (int)root, c->comm, c->stream);
    if (r != own && root == own)
        return ncclRecv(part, bytes, ncclChar, (int)r, c->comm, c->stream);
    return ncclSuccess;
}

static ncclResult_t exchange(const struct nccl *c, const struct turn *t, uint32_t root)
{
    ncclResult_t rc = ncclGroupStart();
    for (int i = 0; i < t->n; i++)
        for (uint32_t r = 0; r < c->base.size && rc == ncclSuccess; r++)
            rc = exchange_part(c, c->staging + t->at[i][r],
                               t->rows[i] * collective_width(&t->planes[i], r), r, root);
    ncclResult_t end = ncclGroupEnd();
    return rc != ncclSuccess ? rc : end;
}

static int take_turn(struct nccl *c, const struct turn *t, uint32_t root)
{
    bool wanted = root == COLLECTIVE_ALL || root == c->base.rank;
    cudaError_t cuda = pack(c, t);
    if (cuda != cudaSuccess)
        return fail_cuda(c, cuda);
    ncclResult_t rc = exchange(c, t, root);
    if (rc != ncclSuccess)
        return fail_nccl(c, rc);
    cuda = wanted ? unpack(c, t) : cudaSuccess;
    return cuda != cudaSuccess ? fail_cuda(c, cuda) : 0;
}

static int nccl_gather(struct collective *base, const struct collective_plane *planes, int n,
                       uint32_t root, struct err *e)
{
    struct nccl *c = (struct nccl *)base;
    ASSERT(n > 0 && n <= COLLECTIVE_PLANES_MAX);
    struct turn t = {.planes = planes, .n = n};
    int rc = c->base.lost.code;
    while (rc == 0 && next_turn(c, &t))
        rc = take_turn(c, &t, root);
    return rc < 0 ? err_set(e, rc, "%s", c->base.lost.msg) : 0;
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

/* Rank 0, every SLICE_MS: whether the others are to be waited for. */
static int judge(struct nccl *c, uint64_t waited_ms)
{
    if (c->watch && c->watch(c->arg, &c->base.lost) < 0)
        return c->base.lost.code;
    if (c->patience_ms == 0 || waited_ms < c->patience_ms)
        return 0;
    return err_set(&c->base.lost, ERR_PEER, "the ranks did not finish a step within %llu ms",
                   (unsigned long long)c->patience_ms);
}

/* Once the group has failed nothing of it is done any more, here or there. */
static int give_up(struct nccl *c)
{
    (void)ncclCommAbort(c->comm); /* which frees it */
    c->comm = NULL;
    (void)cudaStreamSynchronize(c->stream);
    return c->base.lost.code;
}

static int wait_longer(struct nccl *c)
{
    uint64_t begin_ms = clock_mono_ms(), looked_ms = begin_ms;
    for (;;) {
        cudaError_t done = cudaStreamQuery(c->stream);
        ncclResult_t peers = ncclSuccess;
        uint64_t now_ms = clock_mono_ms();
        if (ncclCommGetAsyncError(c->comm, &peers) == ncclSuccess && peers != ncclSuccess) {
            fail_nccl(c, peers);
            return give_up(c);
        }
        if (done == cudaSuccess)
            return 0;
        if (done != cudaErrorNotReady)
            return fail_cuda(c, done);
        if (c->base.rank == 0 && now_ms - looked_ms >= SLICE_MS) {
            looked_ms = now_ms;
            if (judge(c, now_ms - begin_ms) < 0)
                return give_up(c);
        }
        sched_yield();
    }
}

static int nccl_wait(struct collective *base, struct err *e)
{
    struct nccl *c = (struct nccl *)base;
    int rc = c->base.lost.code;
    if (rc == 0)
        rc = wait_longer(c);
    return rc < 0 ? err_set(e, rc, "%s", c->base.lost.msg) : 0;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void nccl_set_patience(struct collective *base, uint64_t ms)
{
    ((struct nccl *)base)->patience_ms = ms;
}

static void nccl_free(struct collective *base)
{
    struct nccl *c = (struct nccl *)base;
    if (c->comm)
        (void)ncclCommDestroy(c->comm);
    if (c->staging)
        (void)cudaFree(c->staging);
    free(c);
}

/* All ranks succeed, or none. */
static int join(struct nccl *c, struct collective *control, struct err *e)
{
    ncclUniqueId id = {0};
    struct err own = {0};
    const char *why = nccl_library();
    int rc = why ? err_set(&own, ERR_CONFIG, "tp: NCCL is not installed here: %.200s", why) : 0;
    ncclResult_t r = rc == 0 && control->rank == 0 ? ncclGetUniqueId(&id) : ncclSuccess;
    if (r != ncclSuccess)
        rc = err_set(&own, ERR_IO, "NCCL: %s", ncclGetErrorString(r));
    cudaError_t cuda = cudaMalloc((void **)&c->staging, c->staging_bytes);
    if (rc == 0 && cuda != cudaSuccess)
        rc = err_set(&own, ERR_NOMEM, "no %zu bytes on the device for exchanges: %s",
                     c->staging_bytes, cudaGetErrorString(cuda));
    rc = collective_agree(control, rc, &own, e);
    if (rc < 0)
        return rc;
    rc = collective_broadcast(control, &id, sizeof(id), e);
    if (rc < 0)
        return rc;
    r = ncclCommInitRank(&c->comm, (int)control->size, id, (int)control->rank);
    rc = r == ncclSuccess ? 0 : err_set(&own, ERR_PEER, "NCCL: %s", ncclGetErrorString(r));
    return collective_agree(control, rc, &own, e);
}

int collective_nccl_open(struct collective *control, cudaStream_t stream, size_t staging_bytes,
                         int (*watch)(void *arg, struct err *e), void *arg, struct collective **out,
                         struct err *e)
{
    struct nccl *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for a rank's exchanges");
    c->base = (struct collective){.rank = control->rank,
                                  .size = control->size,
                                  .gather = nccl_gather,
                                  .wait = nccl_wait,
                                  .set_patience = nccl_set_patience,
                                  .free = nccl_free};
    c->stream = stream;
    c->staging_bytes = staging_bytes;
    c->watch = watch;
    c->arg = arg;
    int rc = join(c, control, e);
    if (rc < 0) {
        nccl_free(&c->base);
        return rc;
    }
    *out = &c->base;
    return 0;
}
