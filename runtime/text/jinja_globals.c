/* jinja_globals.c: global functions, and how arguments meet parameters. */
#include <string.h>
#include <time.h>

#include "runtime/text/jinja_rt.h"

#define RANGE_MAX 100000 /* jinja2's sandbox */
#define DATE_BYTES_MAX 1024

int rt_bind_args(struct jrt *rt, const char *what, const struct jargs *args, uint32_t from,
                 const char *const *names, uint32_t n_required, struct jval *out)
{
    uint32_t n = 0;
    for (; names[n]; n++)
        out[n] = n + from < args->n ? args->v[n + from] : (struct jval){.type = JT_MISSING};
    if (args->n > n + from)
        return rt_fail(rt, "%s takes at most %u arguments", what, n);
    for (uint32_t i = 0; i < args->n_kw; i++) {
        uint32_t k = 0;
        while (k < n && strcmp(names[k], args->names[i]))
            k++;
        if (k == n)
            return rt_fail(rt, "%s got an unexpected keyword argument '%.60s'", what,
                           args->names[i]);
        if (out[k].type != JT_MISSING)
            return rt_fail(rt, "%s got multiple values for argument '%s'", what, names[k]);
        out[k] = args->kw[i];
    }
    for (uint32_t i = 0; i < n_required; i++)
        if (out[i].type == JT_MISSING)
            return rt_fail(rt, "%s is missing the argument '%s'", what, names[i]);
    return 0;
}

static int call_range(struct jrt *rt, struct jargs *args, struct jval *out)
{
    int64_t v[3] = {0, 0, 1};
    if (args->n_kw || args->n < 1 || args->n > 3)
        return rt_fail(rt, "range expected 1 to 3 arguments");
    for (uint32_t i = 0; i < args->n; i++) {
        int rc = rt_index(rt, args->v[i], &v[i]);
        if (rc)
            return rc;
    }
    if (args->n == 1) {
        v[1] = v[0];
        v[0] = 0;
    }
    if (v[2] == 0)
        return rt_fail(rt, "range() arg 3 must not be zero");
    bool some = v[2] > 0 ? v[1] > v[0] : v[0] > v[1];
    uint64_t span = v[2] > 0 ? (uint64_t)v[1] - (uint64_t)v[0] : (uint64_t)v[0] - (uint64_t)v[1];
    uint64_t step = v[2] > 0 ? (uint64_t)v[2] : 0 - (uint64_t)v[2];
    uint64_t n = some ? (span - 1) / step + 1 : 0;
    if (n > RANGE_MAX)
        return rt_fail(rt, "Range too big. The sandbox blocks ranges larger than %d.", RANGE_MAX);
    struct jrange *r = arena_alloc(rt->a, sizeof(*r));
    if (!r)
        return rt_nomem(rt);
    *r = (struct jrange){.start = v[0], .stop = v[1], .step = v[2], .n = (uint32_t)n};
    *out = (struct jval){.type = JT_RANGE, .range = r};
    return 0;
}

/* One key and value of dict() or namespace(). */
static int put(struct jrt *rt, struct jdict *d, struct jval k, struct jval v, bool is_ns)
{
    if (!jval_hashable(k))
        return rt_fail(rt, "unhashable type: '%s'", jval_type_name(k));
    if (is_ns && k.type == JT_STR && k.s->n && k.s->p[0] == '_')
        return rt_fail(rt, "a namespace cannot store attributes that begin with an underscore");
    int rc = rt_charge_key(rt, d, k);
    if (rc)
        return rc;
    return jdict_set(rt->a, d, k, v) ? 0 : rt_nomem(rt);
}

/* dict(a): from a mapping, or from an iterable of pairs. */
static int put_all(struct jrt *rt, struct jdict *d, struct jval from, bool is_ns)
{
    struct jiter *it;
    struct jval item, pair;
    int rc = 0;
    if (from.type == JT_UNDEF)
        return rt_undef_used(rt, from);
    if (from.type == JT_DICT) {
        for (uint32_t i = 0; !rc && i < from.dict->n; i++)
            rc = put(rt, d, from.dict->keys[i], from.dict->vals[i], is_ns);
        return rc;
    }
    rc = rt_iter(rt, from, &it);
    while (!rc && (rc = rt_next(rt, it, &item)) > 0) {
        rc = rt_list(rt, item, &pair);
        if (!rc && pair.list->n != 2)
            rc = rt_fail(rt, "a dictionary update sequence element needs length 2");
        if (!rc)
            rc = put(rt, d, pair.list->v[0], pair.list->v[1], is_ns);
    }
    return rc;
}

static int call_dict(struct jrt *rt, struct jargs *args, bool is_ns, struct jval *out)
{
    struct jval d, k;
    if (args->n > 1)
        return rt_fail(rt, "dict expected at most 1 argument, got %u", args->n);
    if (!jval_dict(rt->a, args->n_kw, &d))
        return rt_nomem(rt);
    int rc = args->n ? put_all(rt, d.dict, args->v[0], is_ns) : 0;
    for (uint32_t i = 0; !rc && i < args->n_kw; i++) {
        rc = rt_str(rt, args->names[i], &k);
        if (!rc)
            rc = put(rt, d.dict, k, args->kw[i], is_ns);
    }
    d.type = is_ns ? JT_NS : JT_DICT;
    *out = d;
    return rc;
}

static int call_raise(struct jrt *rt, struct jargs *args)
{
    static const char *const names[] = {"message", NULL};
    struct jval message, text;
    int rc = rt_bind_args(rt, "raise_exception", args, 0, names, 1, &message);
    if (!rc)
        rc = rt_to_str(rt, message, &text);
    if (rc)
        return rc;
    rt->raised = true;
    return err_set(rt->e, ERR_UNSUPPORTED, "%.*s",
                   (int)(text.s->n < ERR_MSG_BYTES ? text.s->n : ERR_MSG_BYTES), text.s->p);
}

/* datetime.strftime leaves %Z and %z empty where no zone is set, and knows %f. */
static int date_format(struct jrt *rt, const struct jstr *s, char *fmt, size_t cap)
{
    size_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const char *put_text = NULL;
        char next = i + 1 < s->n ? s->p[i + 1] : 0;
        if (s->p[i] == 0)
            return rt_fail(rt, "embedded null character");
        if (s->p[i] == '%' && (next == 'z' || next == 'Z'))
            put_text = "";
        else if (s->p[i] == '%' && next == 'f')
            put_text = "000000";
        else if (s->p[i] == '%' && next == '%')
            put_text = "%%";
        if (n + 8 > cap)
            return rt_fail(rt, "the date format is too long");
        if (put_text) {
            memcpy(fmt + n, put_text, strlen(put_text));
            n += strlen(put_text);
            i++;
        } else {
            fmt[n++] = s->p[i];
        }
    }
    fmt[n] = 0;
    return 0;
}

static int call_strftime(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"format", NULL};
    struct jval v;
    char fmt[DATE_BYTES_MAX / 4], text[DATE_BYTES_MAX];
    time_t now = (time_t)rt->now_s;
    struct tm tm;
    int rc = rt_bind_args(rt, "strftime_now", args, 0, names, 1, &v);
    if (!rc && v.type != JT_STR)
        rc = rt_fail(rt, "strftime() argument 1 must be str, not %s", jval_type_name(v));
    if (!rc)
        rc = date_format(rt, v.s, fmt, sizeof(fmt));
    if (rc)
        return rc;
    if (!gmtime_r(&now, &tm))
        return rt_fail(rt, "the time is out of range");
    text[0] = 0;
    size_t n = fmt[0] ? strftime(text, sizeof(text), fmt, &tm) : 0;
    if (fmt[0] && !n)
        return rt_fail(rt, "the date is empty or too long");
    return rt_strn(rt, text, n, out);
}

enum { G_RANGE, G_DICT, G_NAMESPACE, G_RAISE, G_STRFTIME };

static const char *const globals[] = {[G_RANGE] = "range",
                                      [G_DICT] = "dict",
                                      [G_NAMESPACE] = "namespace",
                                      [G_RAISE] = "raise_exception",
                                      [G_STRFTIME] = "strftime_now"};

bool jinja_global_unsupported(const char *name)
{
    return !strcmp(name, "lipsum") || !strcmp(name, "cycler") || !strcmp(name, "joiner") ||
           !strcmp(name, "self");
}

bool rt_global(const char *name, struct jval *out)
{
    for (size_t i = 0; i < sizeof(globals) / sizeof(globals[0]); i++)
        if (!strcmp(globals[i], name)) {
            *out = (struct jval){.type = JT_FUNC, .func = (uint8_t)i};
            return true;
        }
    return false;
}

int rt_global_call(struct jrt *rt, int id, struct jargs *args, struct jval *out)
{
    switch (id) {
    case G_RANGE:
        return call_range(rt, args, out);
    case G_DICT:
    case G_NAMESPACE:
        return call_dict(rt, args, id == G_NAMESPACE, out);
    case G_RAISE:
        return call_raise(rt, args);
    default:
        return call_strftime(rt, args, out);
    }
}
