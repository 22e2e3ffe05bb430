/* jinja.h: the Jinja that chat templates are written in, as an interpreter.
 *
 * The language is jinja2 3.1 as transformers sets it up for chat templates: trim_blocks,
 * lstrip_blocks, the immutable sandbox, loop controls, the `generation` tag, `raise_exception`,
 * `strftime_now`, and a `tojson` that is Python's json.dumps. What is rendered is the same bytes
 * that Python gives. What is not supported is refused by jinja_compile, with line and construct.
 *
 * A template comes with a model file and is not trusted: steps, output, memory and depth are all
 * bounded, and passing a bound is ERR_LIMIT. Integers are 64 bits; past that is ERR_LIMIT too.
 *
 * Threads: struct jinja is immutable after jinja_compile and may be rendered by many threads at
 * once. Everything that a render makes lives in the caller's arena and in `out`.
 */
#ifndef ARGOSY_TEXT_JINJA_H
#define ARGOSY_TEXT_JINJA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/buf.h"
#include "runtime/base/err.h"
#include "runtime/text/jinja_value.h"

struct jinja;

struct jinja_limits {
    uint64_t steps_max; /* nodes evaluated, plus one for each 16 bytes of strings looked at */
    size_t output_bytes_max;
    size_t memory_bytes_max; /* of the render's arena: chat.h makes it with this */
    unsigned depth_max;      /* of evaluation: nesting × macro recursion */
};

/* 2 million steps, 8 MiB of output, 48 MiB of memory, depth 1,000. */
extern const struct jinja_limits jinja_limits_default;

/* ERR_FORMAT: not a valid template. ERR_UNSUPPORTED: valid Jinja that is not served here.
 * ERR_LIMIT: longer than 1 MiB or nested too deep. The text is not needed afterwards. */
int jinja_compile(const char *text, size_t n, struct jinja **out, struct err *e);
void jinja_free(struct jinja *j);

/* True when the template reads a variable of that name that it does not set itself first. */
bool jinja_reads(const struct jinja *j, const char *name);

/* Appends the rendered text to out. `vars` is a dict of the variables that the template sees,
 * made in `a`; the render's own values go there too. strftime_now formats now_s, UTC: the clock
 * is never read. On an error what was appended is taken back.
 * ERR_LIMIT: a bound. ERR_FORMAT: the template failed on these values (Python would raise as
 * well). ERR_UNSUPPORTED: raise_exception was called, and the message is the template's own; or
 * an operation that Python has and this interpreter has not. */
int jinja_render(const struct jinja *j, struct arena *a, struct jval vars, int64_t now_s,
                 const struct jinja_limits *lim, struct buf *out, struct err *e);

#endif
