/* cuda_offload.c: KV pages that go to page-locked memory of the host, and come back.
 *
 *     engine's thread:  plan: out, out, in │ fence │ out, out (ahead) │ run ……… │ plan of the next
 *     copies (stream):    out out in ──────●───── out out ───────────────●──
 *     passes (stream):                     └► wait ► the pass ► end      └► wait ► the pass ►
 *
 * All copies go through one stream of their own, so they happen in the order in which they were
 * asked for: a slot is read before it is written anew, and a page is copied out before something
 * else comes into it. A pass waits, by an event, for the copies up to the fence before it. So no
 * page is written before its copy out is done, nor read before its copy in is. Copies behind the
 * fence go on beside the pass; they are of pages that it has nothing to do with. What they copy was
 * computed by passes that have ended, since a run waits for its own. */
#include "runtime/engine/backend_cuda.h"

static char *slot_at(const struct cuda *c, uint32_t slot)
{
    return (char *)c->offload.slots + slot * c->offload.page_bytes;
}

static char *page_at(const struct cuda *c, uint32_t page)
{
    return (char *)c->kv + page * c->offload.page_bytes;
}

static void copy(struct cuda *c, void *to, const void *from, enum cudaMemcpyKind kind)
{
    if (c->failed.code == 0 && cuda_ok(c, cudaSetDevice(c->gpu.index), "choosing the GPU"))
        cuda_ok(c, cudaMemcpyAsync(to, from, c->offload.page_bytes, kind, c->offload.stream),
                "copying KV pages");
    c->offload.pending = true;
}

static void page_out(struct backend *b, uint32_t page, uint32_t slot)
{
    struct cuda *c = (struct cuda *)b;
    copy(c, slot_at(c, slot), page_at(c, page), cudaMemcpyDeviceToHost);
}

static void page_in(struct backend *b, uint32_t slot, uint32_t page)
{
    struct cuda *c = (struct cuda *)b;
    copy(c, page_at(c, page), slot_at(c, slot), cudaMemcpyHostToDevice);
}

static void page_fence(struct backend *b)
{
    struct cuda *c = (struct cuda *)b;
    struct cuda_offload *o = &c->offload;
    if (!o->pending || c->failed.code < 0)
        return;
    if (cuda_ok(c, cudaEventRecord(o->done, o->stream), "recording an event"))
        cuda_ok(c, cudaStreamWaitEvent(c->stream, o->done, 0), "waiting for KV pages");
    o->pending = false;
}

int cuda_open_offload(struct cuda *c, struct err *e)
{
    struct cuda_offload *o = &c->offload;
    uint32_t n = c->limits.host_slots;
    if (n == 0)
        return 0;
    o->page_bytes = backend_page_bytes(c->model, c->limits.kv_type);
    cudaError_t rc = cudaMallocHost(&o->slots, n * o->page_bytes);
    if (rc != cudaSuccess) {
        o->slots = NULL;
        return err_set(e, ERR_CONFIG,
                       "kv_host_bytes: the host does not give %lluM of page-locked memory for KV "
                       "pages: %.200s",
                       (unsigned long long)((n * o->page_bytes + (1u << 20) - 1) >> 20),
                       cudaGetErrorString(rc));
    }
    if (!cuda_ok(c, cudaStreamCreateWithFlags(&o->stream, cudaStreamNonBlocking), "a stream") ||
        !cuda_ok(c, cudaEventCreateWithFlags(&o->done, cudaEventDisableTiming), "an event"))
        return err_set(e, ERR_CONFIG, "%s", c->failed.msg);
    c->base.page_out = page_out;
    c->base.page_in = page_in;
    c->base.page_fence = page_fence;
    return 0;
}

void cuda_close_offload(struct cuda *c)
{
    struct cuda_offload *o = &c->offload;
    if (o->stream) {
        cudaStreamSynchronize(o->stream);
        cudaStreamDestroy(o->stream);
    }
    if (o->done)
        cudaEventDestroy(o->done);
    cudaFreeHost(o->slots);
}
