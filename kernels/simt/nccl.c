/* nccl.c: NCCL's calls between emulated devices: a ring of bytes from each rank to each other, in
 * memory that the ranks share.
 *
 * A group's operations are one task of the stream, which goes on with each as far as its rings let
 * it: nobody waits in here but ncclCommInitRank. */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/simt/internal.h"
#include "kernels/simt/nccl_api.h"

#define RANKS_MAX 16
#define RING_BYTES 16384u
#define OPS_MAX 256 /* of a group */

struct ring {
    _Atomic uint64_t written, read;
    char bytes[RING_BYTES];
};

struct region {
    _Atomic int joined;
    _Atomic bool aborted;
    struct ring rings[]; /* (ranks, ranks): from, to */
};

struct simt_comm {
    struct region *region;
    size_t bytes;
    int ranks, rank;
    unsigned users; /* the caller, and each group that is queued or recorded */
    bool dead;      /* aborted here */
};

/* From `from` here to rank `peer`, or from it to `to` here; a broadcast is one for each peer. */
struct op {
    struct simt_comm *comm;
    cudaStream_t stream;
    const char *from;
    char *to;
    size_t n, done;
    int peer;
};

/* A group that is queued or recorded. */
struct group {
    int n;
    struct op ops[];
};

static size_t group_bytes(int n)
{
    return sizeof(struct group) + (size_t)n * sizeof(struct op);
}

static struct op open_ops[OPS_MAX];
static int n_open, depth;

const char *nccl_library(void)
{
    return NULL;
}

const char *ncclGetErrorString(ncclResult_t r)
{
    switch (r) {
    case ncclSuccess:
        return "no error";
    case ncclUnhandledCudaError:
        return "unhandled cuda error";
    case ncclSystemError:
        return "unhandled system error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    }
    return "unknown result code";
}

/* ---- communicators --------------------------------------------------------------------------- */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    uint64_t r[2];

    if (getrandom(r, sizeof r, 0) != sizeof r) {
        return ncclSystemError;
    }
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/argosy-nccl-%016llx%016llx",
             (unsigned long long)r[0], (unsigned long long)r[1]);
    return ncclSuccess;
}

static size_t region_bytes(int ranks)
{
    return sizeof(struct region) + (size_t)(ranks * ranks) * sizeof(struct ring);
}

/* Zeros, for whoever comes first. */
static struct region *map_region(const char *name, size_t bytes)
{
    int fd = shm_open(name, O_RDWR | O_CREAT, 0600);
    void *p = MAP_FAILED;

    if (fd < 0) {
        return NULL;
    }
    if (ftruncate(fd, (off_t)bytes) == 0) {
        p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    struct simt_comm *c;

    if (ranks < 1 || ranks > RANKS_MAX || rank < 0 || rank >= ranks) {
        return ncclInvalidArgument;
    }
    id.internal[sizeof id.internal - 1] = 0;
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        return ncclSystemError;
    }
    *c = (struct simt_comm){.ranks = ranks, .rank = rank, .bytes = region_bytes(ranks), .users = 1};
    c->region = map_region(id.internal, c->bytes);
    if (c->region == NULL) {
        free(c);
        return ncclSystemError;
    }
    atomic_fetch_add(&c->region->joined, 1);
    while (atomic_load(&c->region->joined) < ranks) {
        sched_yield();
    }
    shm_unlink(id.internal); /* the first takes the name away; the memory stays */
    *comm = c;
    return ncclSuccess;
}

static void leave(struct simt_comm *c)
{
    if (--c->users == 0) {
        munmap(c->region, c->bytes);
        free(c);
    }
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    leave(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    atomic_store(&comm->region->aborted, true);
    comm->dead = true; /* its operations end undone; memory stays for them */
    leave(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    *error = atomic_load(&comm->region->aborted) ? ncclRemoteError : ncclSuccess;
    return ncclSuccess;
}

/* ---- operations ------------------------------------------------------------------------------ */

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Device memory to or from the ring's bytes [at, at + n), which lie in one piece. */
static void put(const struct op *o, char *ring, size_t n)
{
    (void)simt_download(ring, o->from + o->done, n);
    simt_fault_clear(); /* what nobody wrote may be sent */
}

static struct ring *ring_of(const struct op *o)
{
    const struct simt_comm *c = o->comm;
    bool sends = o->from != NULL;

    return &c->region->rings[sends ? c->rank * c->ranks + o->peer : o->peer * c->ranks + c->rank];
}

/* Whether it is done. */
static bool advance(struct op *o)
{
    struct ring *r = ring_of(o);

    while (o->done < o->n) {
        uint64_t written = atomic_load(&r->written), read = atomic_load(&r->read);
        uint64_t at = (o->from != NULL ? written : read) % RING_BYTES;
        size_t ready = o->from != NULL ? RING_BYTES - (written - read) : written - read;
        size_t n = least(least(ready, RING_BYTES - at), o->n - o->done);
        if (n == 0) {
            return false;
        }
        if (o->from != NULL) {
            put(o, r->bytes + at, n);
            atomic_store(&r->written, written + n);
        } else {
            simt_upload(o->to + o->done, r->bytes + at, n);
            atomic_store(&r->read, read + n);
        }
        o->done += n;
    }
    return true;
}

/* Of an aborted communicator: what should have come is anything, for kernels that are queued
 * behind. */
static void give_up(struct op *o)
{
    if (o->to != NULL && o->done < o->n) {
        simt_fill(o->to + o->done, 0xee, o->n - o->done);
    }
    o->done = o->n;
}

/* All go on side by side, but those over one ring in order. */
static bool advance_group(void *arg)
{
    struct group *g = arg;
    bool done = true;

    for (int i = 0; i < g->n; i++) {
        const struct op *o = &g->ops[i];
        bool waits = false; /* for one before it */
        if (o->comm->dead || atomic_load(&o->comm->region->aborted)) {
            give_up(&g->ops[i]);
            continue;
        }
        for (int k = 0; k < i; k++) {
            waits = waits || (g->ops[k].done < g->ops[k].n && ring_of(&g->ops[k]) == ring_of(o));
        }
        done = !waits && advance(&g->ops[i]) && done;
    }
    return done;
}

/* Another one of the same operations, for a graph or for a launch of it. */
static void *copy_group(const void *arg)
{
    const struct group *g = arg;
    struct group *copy = malloc(group_bytes(g->n));

    if (copy == NULL) {
        perror("simt: no memory");
        abort();
    }
    memcpy(copy, g, group_bytes(g->n));
    for (int i = 0; i < copy->n; i++) {
        copy->ops[i].comm->users++;
    }
    return copy;
}

static void free_group(void *arg)
{
    struct group *g = arg;

    for (int i = 0; i < g->n; i++) {
        leave(g->ops[i].comm);
    }
    free(g);
}

static const struct simt_call group_call = {advance_group, copy_group, free_group};

static ncclResult_t add(struct simt_comm *c, cudaStream_t s, const void *from, void *to, size_t n,
                        int peer)
{
    if (n_open == OPS_MAX) {
        return ncclInvalidUsage;
    }
    open_ops[n_open++] =
        (struct op){.comm = c, .stream = s, .from = from, .to = to, .n = n, .peer = peer};
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    struct group *g;

    if (depth == 0) {
        return ncclInvalidUsage;
    }
    if (--depth > 0 || n_open == 0) {
        return ncclSuccess;
    }
    for (int i = 1; i < n_open; i++) {
        if (open_ops[i].stream != open_ops[0].stream) { /* NCCL takes it; nothing here does it */
            n_open = 0;
            return ncclInvalidUsage;
        }
    }
    g = malloc(group_bytes(n_open));
    if (g == NULL) {
        return ncclSystemError;
    }
    g->n = n_open;
    memcpy(g->ops, open_ops, (size_t)n_open * sizeof *g->ops);
    for (int i = 0; i < n_open; i++) {
        g->ops[i].comm->users++;
    }
    n_open = 0;
    return simt_stream_call(g->ops[0].stream, &group_call, g) == 0 ? ncclSuccess
                                                                   : ncclUnhandledCudaError;
}

static bool is_there(const void *p, size_t n)
{
    return n == 0 || simt_on_device(p, n);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    ncclResult_t rc = ncclSuccess;

    if (type != ncclChar || root < 0 || root >= comm->ranks || !is_there(to, n) ||
        (comm->rank == root && (from != to || !is_there(from, n)))) { /* elsewhere: not served */
        return ncclInvalidArgument;
    }
    ncclGroupStart();
    if (comm->rank != root) {
        rc = add(comm, stream, NULL, to, n, root);
    }
    for (int r = 0; comm->rank == root && r < comm->ranks && rc == ncclSuccess; r++) {
        rc = r != root ? add(comm, stream, from, NULL, n, r) : ncclSuccess;
    }
    ncclResult_t end = ncclGroupEnd();
    return rc != ncclSuccess ? rc : end;
}

static ncclResult_t add_alone(const void *from, void *to, size_t n, ncclDataType_t type, int peer,
                              ncclComm_t comm, cudaStream_t stream)
{
    if (type != ncclChar || peer < 0 || peer >= comm->ranks || peer == comm->rank ||
        !is_there(from != NULL ? from : to, n)) {
        return ncclInvalidArgument;
    }
    ncclGroupStart();
    ncclResult_t rc = add(comm, stream, from, to, n, peer), end = ncclGroupEnd();
    return rc != ncclSuccess ? rc : end;
}

ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add_alone(from, NULL, n, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return add_alone(NULL, to, n, type, peer, comm, stream);
}
