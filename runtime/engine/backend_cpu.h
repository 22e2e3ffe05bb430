/* backend_cpu.h: what backend_cpu.c (memory, a run) and cpu_pass.c (the operations) share.
 *
 * Memory: shared registers are written by one thread an element and read by all after a barrier;
 * struct cpu_thread is its thread's alone. A register that an operation reads without a barrier
 * behind it (the private forms below) is next written at least one barrier later: every project and
 * project_add ends with one.
 */
#ifndef ARGOSY_ENGINE_BACKEND_CPU_H
#define ARGOSY_ENGINE_BACKEND_CPU_H

#include <stdatomic.h>
#include <stdbool.h>

#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/columns.h"
#include "runtime/model/model.h"

/* Up to so many rows every thread computes norms and gates for itself: less work than a barrier. */
#define CPU_PRIVATE_ROWS 2u
/* Rows of a span that one unit of attention takes. */
#define CPU_ATTENTION_ROWS 16u
/* Matrices of one product that adapters may add to: q, k and v. */
#define CPU_LORA_MATRICES 3u

/* Room for quantised rows of any width; cpu_act gives it a shape. */
struct cpu_act_room {
    float *f; /* NULL when no matrix reads it */
    int8_t *q;
    float *d;
    int32_t *s, *h;
};

struct cpu_thread {
    struct cpu_act_room act; /* CPU_PRIVATE_ROWS rows */
    float *out;              /* attention of CPU_PRIVATE_ROWS rows */
    float *lora;             /* as struct cpu's, of CPU_PRIVATE_ROWS rows */
    void *scratch;           /* kn_sample_scratch_bytes */
    void *block;             /* all of the above */
    size_t block_bytes;
};

/* A share of the step's attention, the same in every layer. */
struct cpu_unit {
    uint32_t span;
    uint32_t row_begin, row_end; /* of the span */
    int head_begin, head_end;    /* KV heads */
};

struct cpu {
    struct backend base;
    const struct model *model;
    const struct kn_ops *ops;
    struct threads *threads;
    uint32_t n_threads;
    struct backend_limits limits;
    /* What this rank computes of a row: all of it without a group. */
    uint32_t n_heads, n_kv_heads, n_ff, n_embd;
    struct kn_rope_table rope, local_rope;
    int64_t page_elems; /* of a layer; a page of all layers is contiguous */

    /* registers */
    float *x;                /* (rows_max, n_embd) */
    float *picked;           /* (picks_max, n_embd): x behind select */
    float *y;                /* (rows_max, y_width) */
    float *out;              /* (rows_max, n_heads * head_dim): of attention */
    float *parts;            /* (n_heads, splits of the context, head_dim + 2) */
    float *logits;           /* (picks_max, vocab) */
    struct cpu_act_room act; /* rows_max */
    float *lora;  /* (CPU_LORA_MATRICES, rows_max, adapter_rank); NULL without adapters */
    uint16_t *kv; /* (kv_pages, n_layers, page_elems) */
    float *rope_cos, *rope_sin;
    float *local_cos, *local_sin; /* of the model's local_rope */

    /* Experts; all NULL without. A slot is a row with one of its experts; slots of an expert lie
     * together, experts ascending, rows ascending in each. */
    uint32_t *expert_ids;     /* (rows_max, n_experts_used): of a row, ascending */
    float *expert_weights;    /* (rows_max, n_experts_used) */
    uint32_t *expert_slots;   /* (rows_max, n_experts_used): where its answer will be */
    uint32_t *slot_rows;      /* (rows_max * n_experts_used) */
    uint32_t *expert_begin;   /* (n_experts + 1): first slot */
    struct cpu_act_room slot; /* act by slot */

    /* With a group; else NULL. */
    struct collective *group;
    bool group_failed; /* thread 0's, between barriers: nothing is exchanged any more */
    struct group_columns by;
    struct cpu_act_room part; /* this rank's columns of act: rows_max, or their experts' */
    float *whole;             /* (rows_max, n_embd): what is gathered, where it cannot lie in x */
    uint32_t *owned;      /* (rows_max): ids whose embedding this rank has, as rows of its own */
    uint32_t *owned_rows; /* (rows_max): the batch's rows, those of rank 0's ids first */

    /* the step */
    struct batch *batch;
    uint32_t *span_begin;  /* (rows_max + 1): the batch's row where a span begins */
    uint32_t n_page_parts; /* pages that the batch writes to, counted span by span */
    struct cpu_unit *units;
    uint32_t n_units;
    _Atomic uint32_t *next_unit; /* (n_layers) */
    _Atomic uint32_t next_pick;
    const uint32_t *which; /* (n_which): picks of backend_sample */
    uint32_t n_which;

    struct cpu_thread *per_thread; /* (n_threads) */
    void *block;
    size_t block_bytes;
};

/* A thread's pass. */
struct cpu_pass {
    struct pass base;
    struct cpu *cpu;
    uint32_t thread;
    uint32_t rows;  /* of x: the batch's, or the picks' */
    uint32_t n_act; /* of act and y: rows, or the slots of their experts */
    float *x;
    struct kn_act act; /* shared or this thread's own */
    bool y_read;       /* every thread read y for its own act, and no barrier has come since */
    bool in_parts;     /* act is this rank's columns, not gathered yet */
};

extern const struct pass_ops cpu_pass_ops;
void cpu_pool(struct pass *base, const float *w, float w_offset, float eps); /* cpu_pool.c */

/* cpu_lora.c. down: before the product of act with the n matrices, by all threads; up: behind it,
 * for rows [row_begin, row_end) of w, the i-th of them, by the thread that has made them. */
void cpu_lora_down(struct cpu_pass *p, const struct kn_matrix *const *w, int n);
void cpu_lora_up(struct cpu_pass *p, const struct kn_matrix *w, int i, int64_t row_begin,
                 int64_t row_end, float *y, int64_t ldy);

/* ---- a rank of several (cpu_group.c): by all threads, with a barrier before and behind ----------
 */

/* act, which is this rank's columns, becomes those of all ranks. */
void cpu_gather_act(struct cpu_pass *p, const struct columns *by);
/* x is whole again: each rank has added to its columns. */
void cpu_gather_x(struct cpu_pass *p);
/* c->whole = the columns of y, (rows, n_embd of this rank), of all ranks. */
void cpu_gather_y(struct cpu_pass *p);
/* The logits of rank 0 are whole. */
void cpu_gather_logits(struct cpu_pass *p);
/* x = scale * rows of w, which has the vocabulary's part of this rank. */
void cpu_group_embed(struct cpu_pass *p, const struct kn_matrix *w, float scale);

#endif
