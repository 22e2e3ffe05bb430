/* speech.h: what a model's text says: reasoning, content, calls of tools.
 *
 * Models write calls into their text, each family in a form of its own, and some think aloud
 * before they answer:
 *
 *     HERMES   <tool_call>\n{"name": "f", "arguments": {…}}\n</tool_call>     Hermes, Qwen
 *     LLAMA3   {"name": "f", "parameters": {…}}                 the whole answer; Llama 3
 *     MISTRAL  [TOOL_CALLS][{"name": "f", "arguments": {…}}, …]
 *     MISTRAL_ARGS  [TOOL_CALLS]f[ARGS]{…}
 *     thinking <think> … </think> in front of the answer
 *
 * Which form a model has is read off what its own template makes of a call (chat.h). The text comes
 * in pieces of any size, and what comes out does not depend on how it was cut. White space between
 * the parts belongs to none of them. What begins like a call and is none is content.
 *
 * One owner. Memory: the longest tail that may still become a marker, a call until its name is
 * there, and what `said` holds. After a failed allocation some buf in `said` has `failed` set.
 */
#ifndef ARGOSY_TEXT_SPEECH_H
#define ARGOSY_TEXT_SPEECH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"

#define SPEECH_CALLS_MAX 128u /* what comes after so many is content */

enum speech_tools {
    SPEECH_NO_TOOLS,
    SPEECH_HERMES,
    SPEECH_LLAMA3,
    SPEECH_MISTRAL,
    SPEECH_MISTRAL_ARGS,
};

struct speech_form {
    enum speech_tools tools;
    bool thinks;
};

/* `rendered`: a template's prompt of a conversation in which the assistant called a tool named
 * `name`; empty if it refused. */
struct speech_form speech_form_of(const char *template_text, size_t n, const char *rendered,
                                  const char *name);
/* Whether a prompt ends inside of a thought that its answer goes on with. */
bool speech_prompt_thinks(const char *prompt, size_t n);
/* Whether these bytes are a token that speech_feed wants to see although it is a control token. */
bool speech_is_marker(const char *bytes, size_t n);

struct speech_call {
    struct buf name;      /* complete */
    struct buf arguments; /* JSON so far */
    size_t n_ready;       /* bytes of arguments that stay as they are */
};

/* Everything so far, but for what the reader took out: it may clear content and reasoning. */
struct speech_said {
    struct buf content, reasoning;
    struct speech_call *calls;
    uint32_t n_calls;
};

enum speech_at {
    SPEECH_START,
    SPEECH_REASONING,
    SPEECH_ANSWER, /* where content or the first call begins */
    SPEECH_CONTENT,
    SPEECH_MARKED,  /* behind a marker: a call should begin */
    SPEECH_NAME,    /* MISTRAL_ARGS: the name */
    SPEECH_CALLING, /* inside of a call's JSON */
    SPEECH_CALLED,  /* behind a call's JSON */
    SPEECH_REST,    /* content to the end */
    SPEECH_OVER,    /* calls_max are said: what follows is dropped */
};

/* Where a walk through one call's JSON stands. */
struct speech_walk {
    uint8_t at; /* speech_call.c */
    uint8_t key;
    bool in_string, escaped;
    uint32_t depth;
    char word[16]; /* the key being read; longer ones are nobody's */
    uint8_t n_word;
};

struct speech {
    struct speech_form form;
    enum speech_at at;
    bool in_list;     /* MISTRAL: between [ and ] */
    bool skips_space; /* white space that comes next is nobody's */
    bool ends;
    const char *const *names; /* (n_names), borrowed: the tools there are */
    uint32_t n_names;
    uint32_t calls_max; /* 0: not bounded; else set behind speech_init */
    struct buf in;      /* not taken yet */
    size_t taken;
    struct speech_walk walk;
    struct buf raw; /* a call's text until its name is known, its marker included */
    bool committed; /* the name is known: it is a call */
    struct speech_call call;
    struct speech_said said;
};

/* `in_thought`: speech_prompt_thinks of the prompt. Names tell LLAMA3's calls from other JSON. */
void speech_init(struct speech *s, struct speech_form form, bool in_thought,
                 const char *const *names, uint32_t n_names);
void speech_release(struct speech *s);

void speech_feed(struct speech *s, const char *text, size_t n);
/* The text has ended: what was held back is said. */
void speech_end(struct speech *s);
/* Whether as many calls as may be are complete. */
bool speech_is_over(const struct speech *s);
/* Whether some allocation failed. */
bool speech_failed(const struct speech *s);

/* ---- speech_call.c -----------------------------------------------------------------------------
 */

enum speech_walked { SPEECH_WALKS, SPEECH_WALKED, SPEECH_STRAYED };

void speech_walk_object(struct speech_walk *w);
/* The arguments alone follow: the name is known. */
void speech_walk_arguments(struct speech_walk *w);
/* One byte. Adds to call->name and call->arguments. STRAYED: it is no call. */
enum speech_walked speech_walk(struct speech_walk *w, char c, struct speech_call *call);
bool speech_walk_has_name(const struct speech_walk *w, const struct speech_call *call);

#endif
