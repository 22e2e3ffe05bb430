#include "runtime/text/jinja.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

const struct jinja_limits jinja_limits_default = {
    .steps_max = 2000000,
    .output_bytes_max = 8u << 20,
    .memory_bytes_max = 48u << 20,
    .depth_max = 1000,
};

int jinja_compile(const char *text, size_t n, struct jinja **out, struct err *e)
{
    struct jinja *j = calloc(1, sizeof(*j));
    struct jtok *toks;
    size_t n_toks;
    if (!j)
        return err_set(e, ERR_NOMEM, "out of memory");
    arena_init(&j->arena, JINJA_COMPILE_BYTES_MAX);
    int rc = jinja_lex(&j->arena, text, n, &toks, &n_toks, e);
    if (!rc)
        rc = jinja_parse(&j->arena, toks, n_toks, &j->body, e);
    if (!rc)
        rc = jinja_bind(j, e);
    if (rc) {
        jinja_free(j);
        return rc;
    }
    *out = j;
    return 0;
}

void jinja_free(struct jinja *j)
{
    if (!j)
        return;
    arena_release(&j->arena);
    free(j);
}

bool jinja_reads(const struct jinja *j, const char *name)
{
    return jdict_get_cstr(j->reads.dict, name) != NULL;
}

int jinja_render(const struct jinja *j, struct arena *a, struct jval vars, int64_t now_s,
                 const struct jinja_limits *lim, struct buf *out, struct err *e)
{
    struct err own;
    struct jrt rt = {.j = j,
                     .a = a,
                     .out = out,
                     .out_start = out->len,
                     .lim = lim,
                     .vars = vars.dict,
                     .now_s = now_s,
                     .e = e ? e : &own};
    int rc = rt_run(&rt);
    if (rc && out->data) {
        out->len = rt.out_start;
        out->data[out->len] = 0;
    }
    return rc;
}

/* ---- errors and limits -------------------------------------------------------------------- */

static int rt_verror(struct jrt *rt, int code, const char *prefix, const char *fmt, va_list ap)
{
    char text[ERR_MSG_BYTES];
    vsnprintf(text, sizeof(text), fmt, ap);
    return err_set(rt->e, code, "%s%s", prefix, text);
}

int rt_fail(struct jrt *rt, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = rt_verror(rt, ERR_FORMAT, "", fmt, ap);
    va_end(ap);
    return rc;
}

int rt_unsupported(struct jrt *rt, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = rt_verror(rt, ERR_UNSUPPORTED, "not supported: ", fmt, ap);
    va_end(ap);
    return rc;
}

int rt_nomem(struct jrt *rt)
{
    return err_set(rt->e, ERR_LIMIT, "rendering needs more than %zu bytes", rt->a->max_bytes);
}

int rt_overflow(struct jrt *rt)
{
    return err_set(rt->e, ERR_LIMIT, "an integer does not fit in 64 bits");
}

int rt_charge(struct jrt *rt, uint64_t n)
{
    if (n > rt->lim->steps_max || rt->steps > rt->lim->steps_max - n)
        return err_set(rt->e, ERR_LIMIT, "rendering takes more than %llu steps",
                       (unsigned long long)rt->lim->steps_max);
    rt->steps += n;
    return 0;
}

int rt_charge_bytes(struct jrt *rt, size_t bytes)
{
    return rt_charge(rt, bytes / 16 + 1);
}

int rt_charge_copy(struct jrt *rt, size_t bytes)
{
    return rt_charge(rt, bytes / 128 + 1);
}

int rt_enter(struct jrt *rt)
{
    if (rt->depth >= rt->lim->depth_max)
        return err_set(rt->e, ERR_LIMIT, "nested deeper than %u", rt->lim->depth_max);
    rt->depth++;
    return 0;
}

void rt_leave(struct jrt *rt)
{
    rt->depth--;
}

/* ---- output and strings ------------------------------------------------------------------- */

int rt_put(struct jrt *rt, const char *p, size_t n)
{
    size_t have = rt->out->len - rt->out_start;
    int rc = rt_charge_copy(rt, n);
    if (rc)
        return rc;
    if (n > rt->lim->output_bytes_max || have > rt->lim->output_bytes_max - n)
        return err_set(rt->e, ERR_LIMIT, "rendering gives more than %zu bytes",
                       rt->lim->output_bytes_max);
    buf_add(rt->out, p, n);
    if (rt->out->failed)
        return err_set(rt->e, ERR_LIMIT, "the rendered text does not fit");
    return 0;
}

int rt_puts(struct jrt *rt, const char *s)
{
    return rt_put(rt, s, strlen(s));
}

int rt_putcp(struct jrt *rt, uint32_t cp)
{
    char utf8[4];
    return rt_put(rt, utf8, jtext_encode(cp, utf8));
}

size_t rt_capture(struct jrt *rt)
{
    return rt->out->len;
}

int rt_capture_end(struct jrt *rt, size_t mark, struct jval *out)
{
    int rc = rt_strn(rt, rt->out->data ? rt->out->data + mark : "", rt->out->len - mark, out);
    if (rt->out->data) {
        rt->out->len = mark;
        rt->out->data[mark] = 0;
    }
    return rc;
}

int rt_strn(struct jrt *rt, const char *p, size_t n, struct jval *out)
{
    int rc = rt_charge_copy(rt, n);
    if (rc)
        return rc;
    return jval_strn(rt->a, p, n, out) ? 0 : rt_nomem(rt);
}

int rt_str(struct jrt *rt, const char *s, struct jval *out)
{
    return rt_strn(rt, s, strlen(s), out);
}

int rt_slice(struct jrt *rt, struct jval s, size_t at, size_t n, struct jval *out)
{
    bool markup = s.markup;
    int rc = rt_charge_copy(rt, n);
    if (rc)
        return rc;
    if (!jval_str_borrow(rt->a, s.s->p + at, n, s.s->n == s.s->chars ? (uint32_t)n : UINT32_MAX,
                         out))
        return rt_nomem(rt);
    out->markup = markup;
    return 0;
}

int rt_seq(struct jrt *rt, enum jtype type, uint32_t n, struct jval *out)
{
    int rc = rt_charge(rt, n / 4 + 1);
    if (rc)
        return rc;
    return jval_seq(rt->a, type, n, out) ? 0 : rt_nomem(rt);
}

/* ---- undefined values --------------------------------------------------------------------- */

int rt_undef_hint(struct jrt *rt, const char *hint, struct jval *out)
{
    struct jundef *u = arena_alloc(rt->a, sizeof(*u));
    if (!u)
        return rt_nomem(rt);
    u->hint = hint;
    *out = (struct jval){.type = JT_UNDEF, .undef = u};
    return 0;
}

int rt_undef_attr(struct jrt *rt, struct jval owner, struct jval name, struct jval *out)
{
    struct jundef *u = arena_alloc(rt->a, sizeof(*u));
    if (!u)
        return rt_nomem(rt);
    u->owner = jval_type_name(owner);
    if (name.type == JT_STR) {
        u->name = arena_strndup(rt->a, name.s->p, name.s->n < 60 ? name.s->n : 60);
        if (!u->name)
            return rt_nomem(rt);
    }
    *out = (struct jval){.type = JT_UNDEF, .undef = u};
    return 0;
}

int rt_undef_used(struct jrt *rt, struct jval v)
{
    const struct jundef *u = v.undef;
    if (!u)
        return rt_fail(rt, "an undefined value is used");
    if (u->hint)
        return rt_fail(rt, "%s", u->hint);
    if (!u->owner)
        return rt_fail(rt, "'%s' is undefined", u->name);
    if (!u->name)
        return rt_fail(rt, "%s object has no such element", u->owner);
    return rt_fail(rt, "'%s object' has no attribute '%s'", u->owner, u->name);
}
