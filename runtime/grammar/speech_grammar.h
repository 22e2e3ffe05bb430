/* speech_grammar.h: what holds a model to calls of given tools, and its answer behind its thought
 * (runtime/text/speech.h): rules in the notation of gbnf.h.
 *
 * Pure functions of their arguments; any thread.
 */
#ifndef ARGOSY_GRAMMAR_SPEECH_GRAMMAR_H
#define ARGOSY_GRAMMAR_SPEECH_GRAMMAR_H

#include "runtime/text/speech.h"

struct speech_tool {
    const char *name;
    const char *parameters; /* a JSON schema; NULL: any object */
};

struct speech_rule {
    bool may_talk;   /* content may come before calls, and no call is fine */
    bool several;    /* calls may follow one another */
    bool in_thought; /* as in speech_init */
};

/* Appends a grammar in the notation of gbnf.h that lets a model say calls of these
 * tools and nothing else, and to `lead` what the prompt must end with for that (control tokens have
 * no bytes that a grammar could see). False when the form can't be held to that. */
bool speech_grammar(struct speech_form form, const struct speech_tool *tools, uint32_t n,
                    struct speech_rule rule, struct buf *grammar, struct buf *lead);

/* Appends what a thought in front of the answer may be, in the same notation: nothing for a model
 * that doesn't think. */
void speech_thought_grammar(struct speech_form form, bool in_thought, struct buf *grammar);

#endif
