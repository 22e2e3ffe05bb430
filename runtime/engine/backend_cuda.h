/* backend_cuda.h: what backend_cuda.c (life, a run), cuda_memory.c (what lies on the device) and
 * cuda_pass.c (the operations), cuda_group.c (ranks), cuda_picking.c (tokens), cuda_graph.c and
 * cuda_offload.c (pages on the host) share.
 *
 * The engine's thread queues a pass on one stream and waits at its end. Everything that differs
 * from step to step lies in the staging, which goes up in one copy before the pass; the pass itself
 * has the same addresses always, so that a graph of it can be launched again.
 *
 * An error of CUDA's stays: the first is kept, nothing is queued behind it, and backend_check
 * tells.
 */
#ifndef ARGOSY_ENGINE_BACKEND_CUDA_H
#define ARGOSY_ENGINE_BACKEND_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda_kernels.h"
#include "kernels/simt/cublaslt_api.h"
#include "kernels/simt/cuda_api.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/collective.h"
#include "runtime/engine/columns.h"
#include "runtime/engine/gpu.h"
#include "runtime/model/model.h"

/* A matrix or vector of the model, or an array of matrices (of which the device has the addresses),
 * by its address on the host. */
struct cuda_weight {
    const void *host;
    void *device;
};

/* Of a step; the same layout on both sides. Arrays lie where limits have room for the most. */
struct cuda_staging {
    uint32_t *ids;      /* (rows_max); with a group, those that this rank embeds */
    uint32_t *places;   /* (rows_max): with a group, where a row's embedding is in `whole` */
    uint32_t *pos;      /* (rows_max): of each row */
    uint32_t *table_at; /* (rows_max): where the row's pages begin in `table` */
    uint32_t *picks;    /* (picks_max): rows */
    struct kn_cuda_tile *tiles; /* (rows_max): of prompts */
    uint32_t *table;            /* (table_max): the spans' pages, one behind another */
    void *block;
};

/* What the launches of a pass of decoding depend on. */
struct cuda_graph_key {
    uint32_t rows, picks, splits;
    unsigned steps; /* of sampling; 0 with a group, where tokens are picked behind the graph */
};

struct cuda_graph {
    struct cuda_graph_key key;
    uint64_t seen, used;  /* passes of it; the last one's number */
    cudaGraphExec_t exec; /* NULL: not recorded */
};

#define CUDA_GRAPHS_MAX 32

/* KV pages on the host: cuda_offload.c. All zero without slots. */
struct cuda_offload {
    cudaStream_t stream;
    cudaEvent_t done; /* copies up to the last fence */
    void *slots;      /* (host_slots, page_bytes), page-locked */
    uint64_t page_bytes;
    bool pending; /* copies were queued behind the last fence */
};

/* A product of fast mode: y (tokens, ldy), of which `rows` columns, from a matrix (rows, cols). */
struct cuda_plan_key {
    int64_t rows, cols, ldy;
    uint32_t tokens, alignment; /* of y, in bytes */
    bool fp8;
};

struct cuda_plan {
    struct cuda_plan_key key;
    uint64_t used; /* the last use's number; 0: none here */
    cublasLtMatrixLayout_t a, b, y;
    cublasLtMatmulAlgo_t algo;
};

/* Plans are found by their key's hash: in a set, in which the oldest makes room. */
#define CUDA_PLAN_SETS 64
#define CUDA_PLAN_WAYS 8

/* All zeros in exact mode. */
struct cuda_fast {
    struct pass_ops ops;
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatmulDesc_t scaled; /* of fp8, whose scales it points to */
    cublasLtMatmulPreference_t preference;
    struct cuda_plan plans[CUDA_PLAN_SETS][CUDA_PLAN_WAYS];
    uint64_t uses;
    uint16_t *act;   /* (rows_max, any), of the device: bf16 */
    uint8_t *narrow; /* the same as e4m3, and */
    float *scale;    /* (rows_max) */
    void *workspace; /* cuda_fast_workspace_bytes */
};

struct cuda {
    struct backend base;
    const struct model *model;
    struct backend_limits limits;
    struct gpu gpu;
    cudaStream_t stream;
    struct err failed;  /* code 0: not */
    int64_t page_elems; /* of a layer; a page of all layers is contiguous */
    /* What this GPU computes of a row: all of it without a group. */
    uint32_t n_heads, n_kv_heads, n_ff, n_embd;

    /* With a group; else NULL. */
    struct collective *group;
    struct group_columns by;
    struct kn_act part_act; /* this rank's columns of act */
    float *whole;           /* (rows_max, n_embd): embeddings; the columns of y of all ranks */
    struct columns owned;   /* rows that each rank embeds, of the step */
    uint32_t *owned_rows;   /* (rows_max), of the host */
    /* What the model embeds with, once a pass has told. */
    const struct kn_matrix *embed;
    float embed_scale;
    bool embedded; /* of the step, before what is recorded */

    struct cuda_weight *weights; /* (n_weights), host addresses ascending */
    size_t n_weights;
    void *weight_block;

    /* registers, on the device */
    float *x;          /* (rows_max, n_embd) */
    float *picked;     /* (picks_max, n_embd): x behind select */
    float *y;          /* (rows_max, y_width) */
    float *out;        /* (rows_max, n_heads * head_dim): of attention */
    float *logits;     /* (picks_max, vocab) */
    float *part;       /* (part_bytes): of attention by split */
    struct kn_act act; /* (rows_max * max(n_experts_used, 1)) */
    uint16_t *kv;      /* (kv_pages, n_layers, page_elems) */
    float *rope_cos, *rope_sin, *local_cos, *local_sin;
    struct kn_rope_table rope, local_rope;
    /* Experts; all NULL without. Slots as kn_cuda_route has them. */
    uint32_t *expert_ids;   /* (rows_max, n_experts_used) */
    float *expert_weights;  /* (rows_max, n_experts_used) */
    uint32_t *expert_slots; /* (rows_max, n_experts_used) */
    uint32_t *slot_rows;    /* (rows_max * n_experts_used) */
    uint32_t *expert_begin; /* (n_experts + 1) */
    void *route_scratch;
    float *lora; /* (rows_max, adapter_rank): what an adapter's A made; NULL without adapters */
    void *blocks[40]; /* what cudaMalloc gave */
    size_t n_blocks;

    struct cuda_offload offload;
    struct cuda_fast fast;
    struct cuda_graph graphs[CUDA_GRAPHS_MAX];
    uint64_t passes; /* that graphs may serve */

    struct cuda_staging host, device; /* host: page-locked */
    size_t staging_bytes, part_bytes;
    uint32_t table_max;
    float *host_logits; /* (picks_max, vocab), page-locked: of picks that the host looks at */
    float *host_x;      /* (rows_max, n_embd), page-locked */
    bool x_is_there;    /* host_x has the rows of the last run */

    /* the step */
    struct batch *batch;
    uint32_t n_tiles;
    uint32_t splits; /* of attention of single rows: at least the longest context's */
    /* Picks: parameters, what came of them, on the device and page-locked on the host. */
    bool picks_there; /* picked on the device */
    unsigned sample_steps;
    void *packed, *host_packed;
    size_t packed_bytes;
    struct kn_sampled *sampled, *host_sampled; /* (picks_max) */
    uint32_t *finite, *host_finite;            /* (picks_max) */
    void *sample_scratch;
    struct kn_cuda_pick *pick_list; /* (picks_max), of the host */
    const struct kn_ops *ops;       /* of the host: samples what the device does not */
    void *scratch;                  /* kn_sample_scratch_bytes */
};

struct cuda_pass {
    struct pass base;
    struct cuda *cuda;
    uint32_t rows;  /* of x: the batch's, or the picks' */
    uint32_t n_act; /* of act and y: rows, or the slots of their experts */
    float *x;
};

extern const struct pass_ops cuda_pass_ops;

/* From here on this process uses CUDA (gpu.h, cuda_forks). */
void cuda_use(void);

/* Keeps the first error; `what` was asked for. True when there is none yet. */
bool cuda_ok(struct cuda *c, int rc, const char *what);

/* Rows of a tile of attention at most. */
uint32_t cuda_tile_rows(const struct cuda *c);
/* Queues attention of a layer for this rank's heads, from y into out. */
void cuda_attend_heads(struct cuda_pass *p, uint32_t layer, const struct pass_attention *a);

/* Queues the whole pass, up to the tokens; with a group, up to the logits. */
void cuda_queue_pass(struct cuda *c);

/* Queues a copy to page-locked memory of the host, unless something has failed. */
void cuda_bring_down(struct cuda *c, void *to, const void *from, size_t bytes);

/* Where this rank's columns of x begin. */
static inline float *cuda_own_x(const struct cuda_pass *p)
{
    return p->x + p->cuda->model->shard.embed.begin;
}

/* Whether the tokens are picked here. */
static inline bool cuda_picks(const struct cuda *c)
{
    return c->model->shard.rank == 0;
}

/* ---- a rank of several (cuda_group.c) ---- */
/* act = part_act's columns of all ranks, (n_act, [ranks]). */
void cuda_gather_act(struct cuda_pass *p, const struct columns *by);
/* x is whole again: each rank has added to its columns. */
void cuda_gather_x(struct cuda_pass *p);
/* c->whole = the columns of y, (rows, n_embd of this rank), of all ranks. */
void cuda_gather_y(struct cuda_pass *p);
/* Rank 0's logits become those of all ranks. */
void cuda_gather_logits(struct cuda_pass *p);
/* Which rows this rank embeds, into the staging; and c->x from what all did. */
void cuda_group_stage(struct cuda *c);
void cuda_group_embed(struct cuda *c, const struct kn_matrix *w, float scale);

/* ---- cuda_fast.c ---- */
/* ERR_CONFIG: cuBLASLt is not there. Released whatever comes of it. */
int cuda_fast_open(struct cuda *c, struct err *e);
void cuda_fast_release(struct cuda *c);
size_t cuda_fast_workspace_bytes(void);
/* y (rows, ldy) = w act, or added to it: exact mode's product is cuda_pass.c's. */
void cuda_fast_multiply(struct cuda_pass *p, const struct kn_matrix *w, bool accumulate, float *y,
                        int64_t ldy);
/* Matrices of floats: on the device they are rows of bf16; those of layers, in fp8, rows of e4m3
 * and behind them a scale for each. */
size_t cuda_fast_pack_bytes(const struct cuda *c, const struct kn_matrix *w);
void cuda_fast_pack(const struct cuda *c, const struct kn_matrix *w, void *to);

/* ---- cuda_lora.c ---- */
/* Behind the product of act with w, and its bias: adds to y what the rows' adapters have for w. */
void cuda_lora(struct cuda *c, const struct kn_matrix *w, float *y, int64_t ldy);

/* ---- cuda_graph.c ---- */
/* The same as a graph, where its like was there before. */
void cuda_run_pass(struct cuda *c);
void cuda_free_graphs(struct cuda *c);

/* ---- cuda_offload.c ---- */
/* Behind cuda_take_memory: takes limits.host_slots slots. ERR_CONFIG: how much was refused. */
int cuda_open_offload(struct cuda *c, struct err *e);
/* Once the stream of passes is gone. */
void cuda_close_offload(struct cuda *c);

/* ---- cuda_picking.c ---- */
/* Before the pass: what the picks want goes up; in it: they are picked, and come down; behind it:
 * the logits that the host looks at. */
void cuda_queue_samplings(struct cuda *c);
void cuda_queue_sample(struct cuda *c);
void cuda_queue_logits(struct cuda *c);
/* Once the stream is done. */
void cuda_answer_picks(struct cuda *c);
/* Pick i, whose logits are on the host. */
void cuda_sample_on_host(struct cuda *c, uint32_t i);

/* ---- cuda_memory.c ---- */
/* ERR_CONFIG names what of the model the kernels don't serve. */
int cuda_refuse(const struct model *m, const struct backend_limits *limits, struct err *e);
/* Takes all memory of the device and of the host, and brings weights and angles up. ERR_CONFIG:
 * there is too little; says how much, and which options want less. */
int cuda_take_memory(struct cuda *c, struct err *e);
void cuda_free_memory(struct cuda *c);
/* What is exchanged between ranks at a time, at most. */
size_t cuda_exchange_bytes(const struct cuda *c);
/* The matrix or vector on the device. */
struct kn_matrix cuda_matrix(const struct cuda *c, const struct kn_matrix *w);
const float *cuda_vector(const struct cuda *c, const float *v);
/* The addresses (n_experts) of w's on the device. */
const void *const *cuda_experts(const struct cuda *c, const struct kn_matrix *w);

#endif
