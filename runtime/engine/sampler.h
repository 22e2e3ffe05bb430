/* sampler.h: what a request's next token depends on besides the logits, and whether it was the
 * last.
 *
 * The arithmetic is kn_ops.sample; this keeps its parameters: the lists of tokens seen, for the
 * penalties, the mask, and the search for stop strings. All of it is a function of the request and
 * of the output tokens so far, so a request that is resumed with its output goes on with exactly
 * the same state.
 *
 * min_tokens: the output token with index i can only end the output if i >= min_tokens. Before, EOS
 * and stop ids are masked, and a stop string that is complete is passed over: the search begins
 * anew behind it.
 *
 * A grammar comes before all that: only what it lets follow is sampled, whatever logit_bias says. A
 * token that ends generation stands only where the grammar may end, and ends the output there, with
 * ignore_eos too; ignore_eos and min_tokens keep such tokens (and min_tokens stop ids) away as
 * long as anything else may follow. Stop ids and stop strings end the output as ever, complete or
 * not.
 */
#ifndef ARGOSY_ENGINE_SAMPLER_H
#define ARGOSY_ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/buf.h"
#include "runtime/engine/engine.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/text/detok.h"
#include "runtime/text/stopmatch.h"

#define SAMPLER_STOP_STRINGS_MAX 64u
#define SAMPLER_STOP_BYTES_MAX (16u << 10) /* of all stop strings together */
#define SAMPLER_STOP_IDS_MAX 1024u

/* What samplers of one model share; outlives them. */
struct sampler_model {
    const struct tokenizer *tokenizer; /* only read where there are stop strings */
    const uint32_t *eog;               /* (n_eog) the tokens that end generation, ascending */
    uint32_t n_eog;
    uint32_t vocab;
    struct grammar_store *grammars; /* only read where there is a grammar */
};

struct sampler {
    const struct sampler_model *model;
    struct kn_sampling params; /* arrays lie in the arena */
    uint32_t *seen_ids;        /* params.seen_ids and so on, to write; NULL when not in use */
    uint32_t *seen_counts;
    uint32_t *context_ids;
    uint32_t *mask;     /* NULL when there is nothing to mask */
    uint32_t *stop_ids; /* (n_stop_ids), ascending */
    uint32_t n_stop_ids;
    uint32_t min_tokens;
    bool ignore_eos;
    uint32_t n_output; /* tokens accepted */

    struct grammar_entry *grammar; /* NULL: none, and the next three are unused */
    struct grammar_state *state;
    uint32_t *allowed; /* what may follow, as a mask */
    const char *refusal;

    bool has_stop;
    struct detok detok;
    struct stopmatch stop;
    struct buf text; /* scratch of a step */
    struct buf shown;
};

/* Copies what the request says, its output aside: that is for sampler_accept. At most output_max
 * tokens will be accepted. ERR_RANGE and ERR_LIMIT: the message is for the client. s is to be
 * released either way. */
int sampler_init(struct sampler *s, const struct sampler_model *m, const struct engine_request *r,
                 uint32_t output_max, struct arena *a, struct err *e);
void sampler_release(struct sampler *s);

/* The parameters of the next token. Borrowed until the next accept. With a grammar they may not
 * exist: see sampler_refusal. */
const struct kn_sampling *sampler_params(struct sampler *s);
/* Why no next token can be said: a limit of the grammar, a vocabulary without a token that fits, an
 * output that does not follow the grammar. NULL: it can. Static. */
const char *sampler_refusal(const struct sampler *s);

/* Notes an output token. True when it ends the output: EOS, a stop id, the end of a stop string. */
bool sampler_accept(struct sampler *s, uint32_t token);

#endif
