/* cuda_graph.c: passes of decoding as graphs: hundreds of launches become one.
 *
 * All launches of a pass whose spans have one row each depend on a key alone: rows, picks, splits
 * of the longest context (rounded up to a power of two: splits that a row does not have end at
 * once) and the steps of sampling. The first pass of a key runs as it is, so that everything that
 * it needs is loaded; the second is recorded; from then on it is launched. The graph that was
 * launched the longest ago makes room for another. What can't be recorded runs as it is, and so do
 * rows with adapters, whose launches depend on which. */
#include "runtime/engine/backend_cuda.h"

static bool is_same(const struct cuda_graph_key *a, const struct cuda_graph_key *b)
{
    return a->rows == b->rows && a->picks == b->picks && a->splits == b->splits &&
           a->steps == b->steps;
}

/* The key's entry; the oldest becomes one. */
static struct cuda_graph *entry_of(struct cuda *c, const struct cuda_graph_key *key)
{
    struct cuda_graph *oldest = &c->graphs[0];
    for (uint32_t i = 0; i < CUDA_GRAPHS_MAX; i++) {
        struct cuda_graph *g = &c->graphs[i];
        if (g->seen > 0 && is_same(&g->key, key))
            return g;
        if (g->used < oldest->used)
            oldest = g;
    }
    if (oldest->exec)
        (void)cudaGraphExecDestroy(oldest->exec);
    *oldest = (struct cuda_graph){.key = *key};
    return oldest;
}

/* Queues nothing: records the pass. */
static void record(struct cuda *c, struct cuda_graph *g)
{
    cudaGraph_t graph = NULL;
    if (!cuda_ok(c, cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal),
                 "recording a pass"))
        return;
    cuda_queue_pass(c);
    cudaError_t rc = cudaStreamEndCapture(c->stream, &graph);
    if (cuda_ok(c, rc, "recording a pass") &&
        cuda_ok(c, cudaGraphInstantiate(&g->exec, graph, 0), "making a graph"))
        cuda_ok(c, cudaGraphDestroy(graph), "making a graph");
}

/* The same on all ranks: what they exchange is recorded by all of them or by none. */
static bool can_be_graph(const struct cuda *c)
{
    const struct batch *b = c->batch;
    return c->n_tiles == 0 && b->n_pools == 0 && b->n_picks > 0 && !b->adapters &&
           (c->group || c->picks_there);
}

void cuda_run_pass(struct cuda *c)
{
    const struct batch *b = c->batch;
    const struct cuda_graph_key key = {.rows = b->n_rows,
                                       .picks = b->n_picks,
                                       .splits = c->splits,
                                       .steps = c->group ? 0 : c->sample_steps};
    if (c->failed.code < 0)
        return;
    if (!can_be_graph(c)) {
        cuda_queue_pass(c);
        return;
    }
    struct cuda_graph *g = entry_of(c, &key);
    g->used = ++c->passes;
    if (g->seen++ == 0) {
        cuda_queue_pass(c);
        return;
    }
    if (c->group) {
        cuda_group_embed(c, c->embed, c->embed_scale);
        c->embedded = true;
    }
    if (!g->exec)
        record(c, g);
    if (c->failed.code == 0)
        cuda_ok(c, cudaGraphLaunch(g->exec, c->stream), "launching a graph");
}

void cuda_free_graphs(struct cuda *c)
{
    for (uint32_t i = 0; i < CUDA_GRAPHS_MAX; i++)
        if (c->graphs[i].exec)
            (void)cudaGraphExecDestroy(c->graphs[i].exec);
}
