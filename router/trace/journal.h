/* journal.h: what one request did, noted while it runs: for its line in the log, its metrics and
 * its spans. Never a prompt, an answer, or anything else that a client wrote, but the request's id.
 *
 * A choice runs at one worker after another: each stay is a leg. The first JOURNAL_LEGS_MAX of a
 * request are kept, the others are only counted.
 *
 * Thread: the event loop. Times are clock_mono_ns; 0: did not happen.
 */
#ifndef ARGOSY_ROUTER_TRACE_JOURNAL_H
#define ARGOSY_ROUTER_TRACE_JOURNAL_H

#include "router/trace/traceparent.h"

#define JOURNAL_LEGS_MAX 8
#define JOURNAL_WORKER_BYTES 64

enum journal_operation { JOURNAL_CHAT, JOURNAL_TEXT, JOURNAL_EMBEDDINGS, JOURNAL_OPERATIONS };

struct journal_leg {
    uint32_t choice;
    uint64_t wait_ns; /* from when it had no worker */
    uint64_t start_ns, first_ns, end_ns;
    char worker[JOURNAL_WORKER_BYTES];
};

struct journal {
    struct traceparent trace; /* its span_id is this request's own */
    uint8_t parent_id[SPAN_ID_BYTES];
    bool has_parent; /* the client's */

    /* Of a request that its checks let through; model NULL: of none. */
    enum journal_operation operation;
    const char *model; /* outlives the request */
    uint32_t model_index;
    const char *answer_id; /* "chatcmpl-…", in the request's arena; or NULL */
    uint32_t n_choices;
    int64_t max_tokens;
    double temperature, top_p;

    uint64_t start_ns, placed_ns, first_ns, last_ns, end_ns;
    uint64_t decode_ns; /* of all choices, between their first token and their last */
    uint32_t decode_tokens;
    uint32_t prompt_tokens, cached_tokens, output_tokens;
    uint32_t n_stopped, n_cut; /* choices that ended by themselves; at their limit */
    uint32_t moves;
    int status;        /* of the answer; 0: none was begun */
    const char *error; /* a constant; NULL: none */

    struct journal_leg legs[JOURNAL_LEGS_MAX];
    uint32_t n_legs;
};

/* A choice has come to a worker. */
void journal_place(struct journal *j, uint32_t choice, const char *worker, uint64_t now_ns);
/* It has left its worker: `moved` for another one, else it was refused there and nothing was
 * computed. */
void journal_leave(struct journal *j, uint32_t choice, bool moved, uint64_t now_ns);
/* Its worker gave a first token. */
void journal_first(struct journal *j, uint32_t choice, uint64_t now_ns);
/* It is complete: n tokens, the first and the last at these times. */
void journal_done(struct journal *j, uint32_t choice, uint32_t n, uint64_t first_ns,
                  uint64_t last_ns, uint64_t now_ns);
/* The name of the worker of the first token, or of the latest leg; "". */
const char *journal_worker(const struct journal *j);
/* As OpenTelemetry's gen_ai.operation.name has it. */
const char *journal_operation_name(enum journal_operation o);

#endif
