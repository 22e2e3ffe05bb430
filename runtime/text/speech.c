/* speech.c: see speech.h. Each step takes a part of the input off its front, or waits for more. */
#include "runtime/text/speech.h"

#include <stdlib.h>
#include <string.h>

#define THINK "<think>"
#define THINK_END "</think>"
#define HERMES "<tool_call>"
#define HERMES_END "</tool_call>"
#define MISTRAL "[TOOL_CALLS]"
#define MISTRAL_ARGS "[ARGS]"
#define MISTRAL_ID "[CALL_ID]"
#define PYTHON "<|python_tag|>"
/* A name, an id and what stands between them. */
#define HEAD_BYTES_MAX 512u

/* ---- forms --------------------------------------------------------------------------------------
 */

static const char *skip(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

/* The call itself, or what the model is told of how to write one. */
static bool is_hermes(const char *p, const char *name, size_t n)
{
    static const char head[] = "{\"name\": ", told[] = "<function-name>, \"arguments\": ";
    if (strncmp(p, head, strlen(head)) != 0)
        return false;
    p += strlen(head);
    return strncmp(p, told, strlen(told)) == 0 || (p[0] == '"' && strncmp(p + 1, name, n) == 0);
}

static enum speech_tools tools_of(const char *rendered, const char *name)
{
    size_t n = strlen(name);
    const char *p = strstr(rendered, MISTRAL);
    if (p) {
        p = skip(p + strlen(MISTRAL));
        if (*p == '[' || *p == '{')
            return SPEECH_MISTRAL;
        return strncmp(p, name, n) == 0 ? SPEECH_MISTRAL_ARGS : SPEECH_NO_TOOLS;
    }
    for (p = rendered; (p = strstr(p, HERMES)); p++)
        if (is_hermes(skip(p + strlen(HERMES)), name, n))
            return SPEECH_HERMES;
    for (p = rendered; (p = strstr(p, "{\"name\": \"")); p++)
        if (strncmp(p + 10, name, n) == 0 && strncmp(p + 10 + n, "\", \"parameters\": ", 17) == 0)
            return SPEECH_LLAMA3;
    return SPEECH_NO_TOOLS;
}

struct speech_form speech_form_of(const char *template_text, size_t n, const char *rendered,
                                  const char *name)
{
    return (struct speech_form){.tools = tools_of(rendered, name),
                                .thinks = memmem(template_text, n, THINK_END, strlen(THINK_END))};
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool speech_prompt_thinks(const char *prompt, size_t n)
{
    while (n > 0 && is_space(prompt[n - 1]))
        n--;
    return n >= strlen(THINK) && memcmp(prompt + n - strlen(THINK), THINK, strlen(THINK)) == 0;
}

bool speech_is_marker(const char *bytes, size_t n)
{
    static const char *const markers[] = {THINK,   THINK_END,    HERMES,     HERMES_END,
                                          MISTRAL, MISTRAL_ARGS, MISTRAL_ID, PYTHON};
    for (size_t i = 0; i < sizeof(markers) / sizeof(markers[0]); i++)
        if (strlen(markers[i]) == n && memcmp(markers[i], bytes, n) == 0)
            return true;
    return false;
}

/* ---- life ---------------------------------------------------------------------------------------
 */

static void init_call(struct speech_call *c)
{
    buf_init(&c->name, 0);
    buf_init(&c->arguments, 0);
    c->n_ready = 0;
}

static void release_call(struct speech_call *c)
{
    buf_release(&c->name);
    buf_release(&c->arguments);
}

void speech_init(struct speech *s, struct speech_form form, bool in_thought,
                 const char *const *names, uint32_t n_names)
{
    *s = (struct speech){.form = form, .names = names, .n_names = n_names};
    s->at = !form.thinks ? SPEECH_ANSWER : in_thought ? SPEECH_REASONING : SPEECH_START;
    s->skips_space = form.thinks && in_thought;
    if (n_names == 0)
        s->form.tools = SPEECH_NO_TOOLS;
    buf_init(&s->in, 0);
    buf_init(&s->raw, 0);
    buf_init(&s->said.content, 0);
    buf_init(&s->said.reasoning, 0);
    init_call(&s->call);
}

void speech_release(struct speech *s)
{
    buf_release(&s->in);
    buf_release(&s->raw);
    buf_release(&s->said.content);
    buf_release(&s->said.reasoning);
    release_call(&s->call);
    for (uint32_t i = 0; i < s->said.n_calls; i++)
        release_call(&s->said.calls[i]);
    free(s->said.calls);
}

bool speech_is_over(const struct speech *s)
{
    return s->at == SPEECH_OVER;
}

bool speech_failed(const struct speech *s)
{
    bool failed = s->in.failed || s->raw.failed || s->said.content.failed ||
                  s->said.reasoning.failed || s->call.name.failed || s->call.arguments.failed;
    for (uint32_t i = 0; i < s->said.n_calls; i++)
        failed = failed || s->said.calls[i].arguments.failed;
    return failed;
}

/* ---- the front of the input ---------------------------------------------------------------------
 */

static const char *front(const struct speech *s)
{
    return buf_str(&s->in) + s->taken;
}

static size_t left(const struct speech *s)
{
    return s->in.len - s->taken;
}

static void take_to(struct speech *s, struct buf *to, size_t n)
{
    buf_add(to, front(s), n);
    s->taken += n;
}

static size_t spaces(const struct speech *s)
{
    size_t n = 0;
    while (n < left(s) && is_space(front(s)[n]))
        n++;
    return n;
}

/* Drops the white space that comes next if it is nobody's. False: nothing else is there yet. */
static bool pass_space(struct speech *s)
{
    if (s->skips_space)
        s->taken += spaces(s);
    s->skips_space = s->skips_space && left(s) == 0;
    return left(s) > 0;
}

enum fit { FITS, MAY_FIT, FITS_NOT };

/* Whether the input from `at` on begins with a marker. */
static enum fit fit(const struct speech *s, size_t at, const char *marker)
{
    size_t n = strlen(marker), there = left(s) - at;
    if (memcmp(front(s) + at, marker, n < there ? n : there) != 0)
        return FITS_NOT;
    return n <= there ? FITS : s->ends ? FITS_NOT : MAY_FIT;
}

/* Says text up to a marker, less the white space before it, which goes to `raw`. True when the
 * marker is there, and taken. */
static bool say_up_to(struct speech *s, const char *marker, struct buf *to)
{
    size_t at = 0, n;
    enum fit found = FITS_NOT;
    for (; at < left(s) && (found = fit(s, at, marker)) == FITS_NOT; at++)
        ;
    n = at;
    while (n > 0 && is_space(front(s)[n - 1]) && (found != FITS_NOT || !s->ends))
        n--;
    take_to(s, to, n);
    if (found != FITS)
        return false;
    buf_clear(&s->raw);
    take_to(s, &s->raw, at - n + strlen(marker));
    return true;
}

/* ---- calls --------------------------------------------------------------------------------------
 */

static void drop_call(struct speech *s)
{
    buf_clear(&s->raw);
    buf_clear(&s->call.name);
    buf_clear(&s->call.arguments);
    s->call.n_ready = 0;
}

/* What looked like a call is none. */
static bool stray(struct speech *s)
{
    buf_add(&s->said.content, s->raw.data, s->raw.len);
    drop_call(s);
    s->in_list = false;
    s->at = s->form.tools == SPEECH_LLAMA3 ? SPEECH_REST : SPEECH_CONTENT;
    return true;
}

static bool is_known(const struct speech *s, const struct buf *name)
{
    for (uint32_t i = 0; i < s->n_names; i++)
        if (strcmp(s->names[i], buf_str(name)) == 0)
            return true;
    return false;
}

/* The name is there: from now on it is a call. LLAMA3 has no marker: only a known name tells. */
static bool commit(struct speech *s)
{
    struct speech_said *said = &s->said;
    if (s->form.tools == SPEECH_LLAMA3 && !is_known(s, &s->call.name))
        return false;
    struct speech_call *calls =
        realloc(said->calls, ((size_t)said->n_calls + 1) * sizeof(*said->calls));
    if (!calls) {
        s->call.arguments.failed = true;
        return false;
    }
    said->calls = calls;
    calls[said->n_calls++] = s->call;
    init_call(&s->call);
    buf_clear(&s->raw);
    s->committed = true;
    return true;
}

static void begin_call(struct speech *s)
{
    speech_walk_object(&s->walk);
    s->committed = false;
    s->at = SPEECH_CALLING;
}

static void end_call(struct speech *s)
{
    struct speech_call *c = &s->said.calls[s->said.n_calls - 1];
    if (c->arguments.len == 0)
        buf_adds(&c->arguments, "{}");
    c->n_ready = c->arguments.len;
    s->at = s->said.n_calls == s->calls_max ? SPEECH_OVER : SPEECH_CALLED;
}

static bool step_calling(struct speech *s)
{
    while (left(s) > 0) {
        char c = *front(s);
        if (!s->committed)
            buf_addc(&s->raw, c);
        s->taken++;
        struct speech_call *call = s->committed ? &s->said.calls[s->said.n_calls - 1] : &s->call;
        enum speech_walked w = speech_walk(&s->walk, c, call);
        if (w != SPEECH_STRAYED && !s->committed && speech_walk_has_name(&s->walk, call) &&
            !commit(s))
            return stray(s);
        if (w == SPEECH_WALKS)
            continue;
        if (!s->committed)
            return stray(s);
        end_call(s);
        return true;
    }
    if (s->ends && !s->committed)
        return stray(s);
    return false;
}

static bool step_marked(struct speech *s)
{
    take_to(s, &s->raw, spaces(s));
    if (left(s) == 0)
        return s->ends && stray(s);
    bool mistral = s->form.tools == SPEECH_MISTRAL || s->form.tools == SPEECH_MISTRAL_ARGS;
    char c = *front(s);
    if (c == '{') {
        begin_call(s);
    } else if (mistral && c == '[' && !s->in_list) {
        s->in_list = true;
        take_to(s, &s->raw, 1);
    } else if (mistral && !s->in_list) {
        s->at = SPEECH_NAME;
    } else {
        return stray(s);
    }
    return true;
}

static size_t name_bytes(const struct speech *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    size_t n = 0;
    while (n < left(s) && front(s)[n] && strchr(plain, front(s)[n]))
        n++;
    return n;
}

/* NAME[ARGS]{, NAME[CALL_ID]id[ARGS]{ or NAME{ */
static bool step_name(struct speech *s)
{
    size_t n = name_bytes(s), at = n;
    if (n < left(s) && fit(s, n, MISTRAL_ID) == FITS)
        while (at < left(s) && fit(s, at, MISTRAL_ARGS) == FITS_NOT)
            at++;
    enum fit args = at < left(s) ? fit(s, at, MISTRAL_ARGS) : MAY_FIT;
    bool waits = at == left(s) || args == MAY_FIT || fit(s, n, MISTRAL_ID) == MAY_FIT;
    if (n == 0 || at > HEAD_BYTES_MAX || (s->ends && waits))
        return stray(s);
    if (waits)
        return false;
    if (args != FITS && front(s)[at] != '{')
        return stray(s);
    buf_add(&s->call.name, front(s), n);
    take_to(s, &s->raw, at + (args == FITS ? strlen(MISTRAL_ARGS) : 0));
    if (!commit(s))
        return stray(s);
    speech_walk_arguments(&s->walk);
    s->at = SPEECH_CALLING;
    return true;
}

static bool step_called_hermes(struct speech *s)
{
    enum fit end = fit(s, 0, HERMES_END);
    if (end == MAY_FIT)
        return false;
    s->taken += end == FITS ? strlen(HERMES_END) : 0;
    s->at = SPEECH_CONTENT;
    s->skips_space = true;
    return true;
}

static bool step_called(struct speech *s)
{
    s->taken += spaces(s);
    if (left(s) == 0)
        return false;
    if (s->form.tools == SPEECH_HERMES)
        return step_called_hermes(s);
    char c = *front(s);
    bool list_ends = s->in_list && c == ']';
    bool next = c == ',' || (s->form.tools == SPEECH_LLAMA3 && c == ';');
    s->taken += list_ends || next ? 1 : 0;
    s->skips_space = true;
    if (s->form.tools == SPEECH_LLAMA3)
        s->at = next || c == '{' ? SPEECH_ANSWER : SPEECH_REST;
    else
        s->at = s->in_list && next ? SPEECH_MARKED : SPEECH_CONTENT;
    s->in_list = s->at == SPEECH_MARKED;
    return true;
}

/* ---- the rest -----------------------------------------------------------------------------------
 */

static bool step_start(struct speech *s)
{
    size_t n = spaces(s);
    if (n == left(s) && !s->ends)
        return false;
    enum fit think = n < left(s) ? fit(s, n, THINK) : FITS_NOT;
    if (think == MAY_FIT)
        return false;
    s->at = SPEECH_ANSWER;
    if (think == FITS) {
        s->taken += n + strlen(THINK);
        s->skips_space = true;
        s->at = SPEECH_REASONING;
    }
    return true;
}

static bool step_reasoning(struct speech *s)
{
    if (!pass_space(s) || !say_up_to(s, THINK_END, &s->said.reasoning))
        return false;
    buf_clear(&s->raw);
    s->skips_space = true;
    s->at = SPEECH_ANSWER;
    return true;
}

/* Where LLAMA3's answer may be a call from its first character on. */
static bool step_answer(struct speech *s)
{
    if (!pass_space(s))
        return false;
    if (s->form.tools != SPEECH_LLAMA3 || s->said.n_calls == SPEECH_CALLS_MAX) {
        s->at = SPEECH_CONTENT;
        return true;
    }
    size_t n = spaces(s);
    enum fit python = n < left(s) ? fit(s, n, PYTHON) : s->ends ? FITS_NOT : MAY_FIT;
    if (python == MAY_FIT)
        return false;
    if (python == FITS_NOT && (n == left(s) || front(s)[n] != '{')) {
        s->at = SPEECH_REST;
        return true;
    }
    buf_clear(&s->raw);
    take_to(s, &s->raw, n + (python == FITS ? strlen(PYTHON) : 0));
    s->at = SPEECH_MARKED;
    return true;
}

static bool step_content(struct speech *s)
{
    const char *marker = s->form.tools == SPEECH_HERMES ? HERMES : MISTRAL;
    bool calls = s->form.tools != SPEECH_NO_TOOLS && s->form.tools != SPEECH_LLAMA3 &&
                 s->said.n_calls < SPEECH_CALLS_MAX;
    if (!pass_space(s))
        return false;
    if (!calls) {
        s->at = SPEECH_REST;
        return true;
    }
    if (!say_up_to(s, marker, &s->said.content))
        return false;
    s->at = SPEECH_MARKED;
    return true;
}

static bool step(struct speech *s)
{
    switch (s->at) {
    case SPEECH_START:
        return step_start(s);
    case SPEECH_REASONING:
        return step_reasoning(s);
    case SPEECH_ANSWER:
        return step_answer(s);
    case SPEECH_CONTENT:
        return step_content(s);
    case SPEECH_MARKED:
        return step_marked(s);
    case SPEECH_NAME:
        return step_name(s);
    case SPEECH_CALLING:
        return step_calling(s);
    case SPEECH_CALLED:
        return step_called(s);
    case SPEECH_REST:
        take_to(s, &s->said.content, left(s));
        return false;
    case SPEECH_OVER:
        s->taken = s->in.len;
        return false;
    }
    return false;
}

static void run(struct speech *s)
{
    while (!s->in.failed && step(s))
        ;
    size_t n = left(s);
    if (n > 0 && s->taken > 0)
        memmove(s->in.data, s->in.data + s->taken, n);
    s->in.len = n;
    s->taken = 0;
}

void speech_feed(struct speech *s, const char *text, size_t n)
{
    buf_add(&s->in, text, n);
    run(s);
}

void speech_end(struct speech *s)
{
    s->ends = true;
    run(s);
}
