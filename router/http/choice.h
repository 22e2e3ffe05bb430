/* choice.h: one generation of an answer: its tokens become text here.
 *
 * A token that ends the output (end of sequence, a stop id) is no part of the text. A stop string
 * ends the text where the worker's own search ends the tokens: both look at the same characters,
 * and both pass over one that is complete before min_tokens.
 */
#ifndef ARGOSY_ROUTER_HTTP_CHOICE_H
#define ARGOSY_ROUTER_HTTP_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#include "router/http/api_request.h"
#include "router/http/logprobs.h"
#include "router/pool/pool.h"
#include "runtime/base/buf.h"
#include "runtime/text/detok.h"
#include "runtime/text/speech.h"
#include "runtime/text/stopmatch.h"

struct answer;

enum choice_phase {
    CHOICE_NEW,
    CHOICE_WAITING, /* started, no token yet */
    CHOICE_RUNNING,
    CHOICE_DONE,
};

struct choice {
    struct answer *answer; /* NULL: choice_start was not called */
    enum choice_phase phase;
    const struct api_prompt *prompt;
    uint32_t index;  /* among the answer's choices */
    struct gen *gen; /* NULL: not started, or over */
    struct gen_request run;
    struct detok detok;
    struct stopmatch stop;
    bool has_stop;
    bool cut;       /* a stop string was there: nothing more is text */
    bool said_role; /* the first chunk is out */
    uint32_t n_tokens;
    enum gen_finish finish;
    struct gen_usage usage;
    struct buf text;           /* all of it; unused in a stream */
    struct speech *speech;     /* NULL: all text is content */
    uint32_t n_told;           /* of a stream: calls that the client knows, */
    size_t told_bytes;         /* and what it has of the last one's arguments */
    struct logprobs *logprobs; /* NULL: none are asked for */
    uint64_t first_ns;         /* of the first token */
    uint64_t last_ns;          /* of the latest token; 0: none yet */
    bool fresh;                /* its worker gave no token yet */
};

/* Readies and starts it. 0, or -1 with the error. */
int choice_start(struct choice *c, struct answer *a, uint32_t index, uint64_t seed,
                 struct api_error *e);
/* Cancels what runs, and releases the rest. */
void choice_release(struct choice *c);

#endif
