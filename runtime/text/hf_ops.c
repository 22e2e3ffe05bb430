#include "runtime/text/hf.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/charclass.h"
#include "runtime/text/nfc.h"
#include "runtime/text/utf8.h"

#define PATTERN_BYTES_MAX 16384
#define OUT_PER_BYTE_MAX 64u /* what one normaliser may make of a byte, before it is an attack */

/* ---- reading ----------------------------------------------------------------------------------
 */

static const char *type_of(struct json_object *o)
{
    struct json_object *t = NULL;
    if (json_object_is_type(o, json_type_object) && json_object_object_get_ex(o, "type", &t) &&
        json_object_is_type(t, json_type_string))
        return json_object_get_string(t);
    return "";
}

static bool flag_of(struct json_object *o, const char *key, bool fallback)
{
    struct json_object *v = NULL;
    return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_boolean)
               ? json_object_get_boolean(v)
               : fallback;
}

static const char *text_of(struct json_object *o, const char *key, size_t *n)
{
    struct json_object *v = NULL;
    if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
        return NULL;
    *n = (size_t)json_object_get_string_len(v);
    return json_object_get_string(v);
}

static int bad(struct err *e, struct json_object *o, const char *words)
{
    return err_set(e, ERR_UNSUPPORTED, "tokenizer.json: %.60s: %s", type_of(o), words);
}

static struct hf_op *add_op(struct hf_ops *ops, enum hf_kind kind, struct err *e)
{
    if (ops->n == HF_OPS_MAX) {
        err_set(e, ERR_LIMIT, "tokenizer.json: more than %d normalisers or pre-tokenisers",
                HF_OPS_MAX);
        return NULL;
    }
    struct hf_op *op = &ops->at[ops->n++];
    *op = (struct hf_op){.kind = kind};
    return op;
}

static int keep_text(struct hf_op *op, const char *text, size_t n, struct arena *a, struct err *e)
{
    op->text = arena_strndup(a, text, n);
    op->n = n;
    return op->text ? 0 : err_set(e, ERR_NOMEM, "tokenizer.json: no memory");
}

/* Oniguruma's expression as PCRE2's: classes whose meaning depends on the library's Unicode are
 * written out (charclass.h), and what the two read differently is refused. */
static bool translate(struct buf *out, const char *p, size_t n)
{
    static const struct {
        const char *from, *in, *alone;
    } classes[] = {
        {"\\p{L}", CHARCLASS_LETTER, "[" CHARCLASS_LETTER "]"},
        {"\\p{N}", CHARCLASS_NUMBER, "[" CHARCLASS_NUMBER "]"},
        {"\\s", CHARCLASS_SPACE, "[" CHARCLASS_SPACE "]"},
        {"\\S", NULL, "[^" CHARCLASS_SPACE "]"},
        {"\\P{L}", NULL, "[^" CHARCLASS_LETTER "]"},
        {"\\P{N}", NULL, "[^" CHARCLASS_NUMBER "]"},
    };
    bool in_class = false;
    for (size_t i = 0; i < n;) {
        size_t k = 0, took = 0;
        for (; k < sizeof(classes) / sizeof(*classes) && !took; k++)
            if (strlen(classes[k].from) <= n - i &&
                !memcmp(p + i, classes[k].from, strlen(classes[k].from)))
                took = strlen(classes[k].from);
        if (took) {
            const char *to = in_class ? classes[k - 1].in : classes[k - 1].alone;
            if (!to)
                return false;
            buf_adds(out, to);
            i += took;
            continue;
        }
        if (p[i] == '\\') {
            /* \h is a hexadecimal digit there and a space here, and so on. */
            if (i + 1 == n || (!strchr("pPrntdfv", p[i + 1]) &&
                               (p[i + 1] & 0x80 || (p[i + 1] >= '0' && p[i + 1] <= '9') ||
                                ((p[i + 1] | 32) >= 'a' && (p[i + 1] | 32) <= 'z'))))
                return false;
            buf_add(out, p + i, 2);
            i += 2;
            continue;
        }
        if (p[i] == '[' && in_class) /* a class in a class, and [:names:] */
            return false;
        if (p[i] == '&' && in_class && i + 1 < n && p[i + 1] == '&')
            return false;
        in_class = p[i] == '[' ? true : p[i] == ']' ? false : in_class;
        buf_addc(out, p[i++]);
    }
    return !in_class;
}

static int compile(struct hf_op *op, const char *pattern, size_t n, bool literal, struct err *e)
{
    int code;
    PCRE2_SIZE at;
    struct buf b;
    int rc = 0;
    buf_init(&b, 0);
    if (n == 0 || n > PATTERN_BYTES_MAX)
        rc = err_set(e, ERR_UNSUPPORTED, "tokenizer.json: an expression of %zu bytes", n);
    else if (literal)
        buf_add(&b, pattern, n);
    else if (!translate(&b, pattern, n))
        rc = err_set(e, ERR_UNSUPPORTED, "tokenizer.json: expression '%.200s' is not served",
                     pattern);
    if (rc == 0) {
        op->code =
            pcre2_compile((PCRE2_SPTR)buf_str(&b), b.len,
                          PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP), &code, &at, NULL);
        if (!op->code)
            rc = err_set(e, ERR_UNSUPPORTED, "tokenizer.json: expression '%.200s' is not served",
                         pattern);
        else
            pcre2_jit_compile(op->code, PCRE2_JIT_COMPLETE); /* where the machine allows */
    }
    buf_release(&b);
    return rc;
}

/* {"String": "x"} or {"Regex": "x"}. */
static int compile_pattern(struct hf_op *op, struct json_object *o, struct err *e)
{
    struct json_object *p = NULL;
    size_t n;
    const char *s;
    if (!json_object_object_get_ex(o, "pattern", &p) || !json_object_is_type(p, json_type_object))
        return bad(e, o, "a pattern is wanted");
    if ((s = text_of(p, "String", &n)))
        return compile(op, s, n, true, e);
    if ((s = text_of(p, "Regex", &n)))
        return compile(op, s, n, false, e);
    return bad(e, o, "a pattern that is neither String nor Regex");
}

typedef int read_fn(struct hf_ops *ops, struct json_object *o, bool *byte_level, struct arena *a,
                    struct err *e);

static int read_sequence(struct hf_ops *ops, struct json_object *o, const char *key,
                         bool *byte_level, read_fn *read, struct arena *a, struct err *e)
{
    struct json_object *list = NULL;
    int rc = 0;
    if (!json_object_object_get_ex(o, key, &list) || !json_object_is_type(list, json_type_array))
        return bad(e, o, "a list is wanted");
    for (size_t i = 0; i < json_object_array_length(list) && rc == 0; i++) {
        struct json_object *x = json_object_array_get_idx(list, i);
        rc = strcmp(type_of(x), "Sequence") ? read(ops, x, byte_level, a, e)
                                            : bad(e, x, "a Sequence in a Sequence");
    }
    return rc;
}

static int read_one_normalizer(struct hf_ops *ops, struct json_object *o, bool *byte_level,
                               struct arena *a, struct err *e)
{
    const char *type = type_of(o), *s;
    struct hf_op *op;
    size_t n;
    (void)byte_level;
    if (!strcmp(type, "NFC"))
        return add_op(ops, HF_NFC, e) ? 0 : ERR_LIMIT;
    if (!strcmp(type, "Prepend")) {
        if (!(s = text_of(o, "prepend", &n)))
            return bad(e, o, "'prepend' is wanted");
        return (op = add_op(ops, HF_PREPEND, e)) ? keep_text(op, s, n, a, e) : ERR_LIMIT;
    }
    if (!strcmp(type, "Replace")) {
        if (!(s = text_of(o, "content", &n)))
            return bad(e, o, "'content' is wanted");
        if (!(op = add_op(ops, HF_REPLACE, e)))
            return ERR_LIMIT;
        int rc = keep_text(op, s, n, a, e);
        return rc < 0 ? rc : compile_pattern(op, o, e);
    }
    if (!strcmp(type, "Strip")) {
        if (!(op = add_op(ops, HF_STRIP, e)))
            return ERR_LIMIT;
        op->left = flag_of(o, "strip_left", true);
        op->right = flag_of(o, "strip_right", true);
        return 0;
    }
    return err_set(e, ERR_UNSUPPORTED, "tokenizer.json: normalizer '%.60s' is not served", type);
}

int hf_read_normalizer(struct hf_ops *ops, struct json_object *o, struct arena *a, struct err *e)
{
    bool unused = false;
    if (!o)
        return 0;
    if (!strcmp(type_of(o), "Sequence"))
        return read_sequence(ops, o, "normalizers", &unused, read_one_normalizer, a, e);
    return read_one_normalizer(ops, o, &unused, a, e);
}

static int read_split(struct hf_ops *ops, struct json_object *o, struct err *e)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    size_t n;
    const char *s = text_of(o, "behavior", &n);
    struct hf_op *op = add_op(ops, HF_SPLIT, e);
    if (!op)
        return ERR_LIMIT;
    op->invert = flag_of(o, "invert", false);
    for (int i = 0; s && i < 5; i++)
        if (!strcmp(s, names[i])) {
            op->behaviour = (enum hf_behaviour)i;
            return compile_pattern(op, o, e);
        }
    return bad(e, o, "a behaviour that is not known");
}

static int add_split(struct hf_ops *ops, const char *pattern, enum hf_behaviour behaviour,
                     bool literal, struct err *e)
{
    struct hf_op *op = add_op(ops, HF_SPLIT, e);
    if (!op)
        return ERR_LIMIT;
    op->behaviour = behaviour;
    if (literal)
        return compile(op, pattern, strlen(pattern), true, e);
    return compile(op, pattern, strlen(pattern), false, e);
}

static int read_byte_level(struct hf_ops *ops, struct json_object *o, struct arena *a,
                           struct err *e)
{
    int rc = 0;
    if (flag_of(o, "add_prefix_space", true)) {
        struct hf_op *op = add_op(ops, HF_PREFIX_SPACE, e);
        rc = op ? keep_text(op, " ", 1, a, e) : ERR_LIMIT;
    }
    if (rc == 0 && flag_of(o, "use_regex", true))
        rc = add_split(
            ops,
            "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
            HF_ISOLATED, false, e);
    return rc;
}

/* Metaspace: spaces become its character, which may come before, and then starts words. */
static int read_metaspace(struct hf_ops *ops, struct json_object *o, struct arena *a, struct err *e)
{
    size_t n, k;
    const char *s = text_of(o, "replacement", &n), *scheme = text_of(o, "prepend_scheme", &k);
    bool first = scheme && !strcmp(scheme, "first"), never = scheme && !strcmp(scheme, "never");
    if (!s || n == 0 || n > 4)
        return bad(e, o, "a replacement of one character is wanted");
    if (scheme && !first && !never && strcmp(scheme, "always"))
        return bad(e, o, "a prepend_scheme that is not known");
    if (!scheme)
        never = !flag_of(o, "add_prefix_space", true);
    struct hf_op *op = add_op(ops, HF_REPLACE, e);
    int rc = op ? keep_text(op, s, n, a, e) : ERR_LIMIT;
    if (rc == 0)
        rc = compile(op, " ", 1, true, e);
    if (rc == 0 && !never) {
        op = add_op(ops, HF_METASPACE, e);
        rc = op ? keep_text(op, s, n, a, e) : ERR_LIMIT;
        if (rc == 0)
            op->first = first;
    }
    if (rc == 0 && flag_of(o, "split", true))
        rc = add_split(ops, s, HF_MERGED_WITH_NEXT, true, e);
    return rc;
}

static int read_one_pretokenizer(struct hf_ops *ops, struct json_object *o, bool *byte_level,
                                 struct arena *a, struct err *e)
{
    const char *type = type_of(o);
    if (*byte_level)
        return bad(e, o, "a pre-tokenizer behind ByteLevel");
    if (!strcmp(type, "Split"))
        return read_split(ops, o, e);
    if (!strcmp(type, "Digits"))
        return add_split(ops, "\\p{N}",
                         flag_of(o, "individual_digits", false) ? HF_ISOLATED : HF_CONTIGUOUS,
                         false, e);
    if (!strcmp(type, "WhitespaceSplit"))
        return add_split(ops, "\\s", HF_REMOVED, false, e);
    if (!strcmp(type, "Metaspace"))
        return read_metaspace(ops, o, a, e);
    if (!strcmp(type, "ByteLevel")) {
        *byte_level = true;
        return read_byte_level(ops, o, a, e);
    }
    return err_set(e, ERR_UNSUPPORTED, "tokenizer.json: pre_tokenizer '%.60s' is not served", type);
}

int hf_read_pretokenizer(struct hf_ops *ops, struct json_object *o, bool *byte_level,
                         struct arena *a, struct err *e)
{
    if (!o)
        return 0;
    if (!strcmp(type_of(o), "Sequence"))
        return read_sequence(ops, o, "pretokenizers", byte_level, read_one_pretokenizer, a, e);
    return read_one_pretokenizer(ops, o, byte_level, a, e);
}

void hf_ops_release(struct hf_ops *ops)
{
    for (int i = 0; i < ops->n; i++)
        pcre2_code_free(ops->at[i].code);
}

/* ---- matching ---------------------------------------------------------------------------------
 */

/* The matches of an expression in n bytes of text, one after the other. An empty match cuts where
 * it stands. */
struct finder {
    const struct hf_op *op;
    pcre2_match_data *match;
    const char *text;
    size_t n, from;
    struct err *e;
};

/* 1: found, *start and *end; 0: no more. */
static int find_next(struct finder *f, size_t *start, size_t *end)
{
    if (f->from > f->n)
        return 0;
    int rc = pcre2_match(f->op->code, (PCRE2_SPTR)f->text, f->n, f->from, PCRE2_NO_UTF_CHECK,
                         f->match, NULL);
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    if (rc < 0)
        return err_set(f->e, ERR_LIMIT, "tokenizer.json: PCRE2 gave up on the text (%d)", rc);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(f->match);
    *start = span[0];
    *end = span[1] > span[0] ? span[1] : span[0];
    f->from = *end;
    if (*end == *start) /* an empty one: go on behind the next character */
        f->from +=
            *end < f->n ? utf8_next((const unsigned char *)f->text + *end, f->n - *end).n : 1;
    return 1;
}

static int replace(const struct hf_op *op, pcre2_match_data *match, const char *text, size_t n,
                   struct buf *out, struct err *e)
{
    struct finder f = {.op = op, .match = match, .text = text, .n = n, .e = e};
    size_t at = 0, start, end;
    int rc;
    while ((rc = find_next(&f, &start, &end)) > 0) {
        buf_add(out, text + at, start - at);
        buf_add(out, op->text, op->n);
        at = end;
    }
    buf_add(out, text + at, n - at);
    return rc;
}

/* ---- normalising ------------------------------------------------------------------------------
 */

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static void strip(const struct hf_op *op, const char *text, size_t n, struct buf *out)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t start = 0, end = 0;
    for (size_t i = 0, k; i < n; i += k) {
        k = utf8_next(p + i, n - i).n;
        bool space = is_space(utf8_code(p + i, k));
        if (space && op->left && start == i)
            start = i + k;
        if (!space)
            end = i + k;
    }
    end = op->right ? end : n;
    if (end > start)
        buf_add(out, text + start, end - start);
}

static int apply(const struct hf_op *op, pcre2_match_data *match, const char *text, size_t n,
                 struct buf *out, struct err *e)
{
    int rc = 0;
    switch (op->kind) {
    case HF_PREPEND:
        if (n)
            buf_add(out, op->text, op->n);
        buf_add(out, text, n);
        break;
    case HF_NFC:
        if (!nfc_add(out, text, n))
            rc = err_set(e, ERR_NOMEM, "tokenizer: no memory to normalise %zu bytes", n);
        break;
    case HF_STRIP:
        strip(op, text, n, out);
        break;
    default:
        rc = replace(op, match, text, n, out, e);
    }
    return rc;
}

int hf_normalize(const struct hf_ops *ops, pcre2_match_data *match, const char *text, size_t n,
                 struct buf *out, struct err *e)
{
    int rc = 0;
    buf_release(out);
    buf_init(out, 0); /* without the limit of the part before */
    buf_add(out, text, n);
    if (out->failed)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %zu bytes", n);
    for (int i = 0; i < ops->n && rc == 0; i++) {
        struct buf next;
        buf_init(&next, 1024 + OUT_PER_BYTE_MAX * n);
        rc = apply(&ops->at[i], match, buf_str(out), out->len, &next, e);
        if (rc == 0 && next.failed)
            rc = err_set(e, ERR_LIMIT, "tokenizer: %zu bytes of text become too many", n);
        buf_release(out);
        *out = next;
    }
    return rc;
}

/* ---- words ------------------------------------------------------------------------------------
 */

static bool push(struct hf_pieces *p, size_t start, size_t end)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 256;
        struct hf_piece *at = realloc(p->at, cap * sizeof(*at));
        if (!at)
            return false;
        p->at = at;
        p->cap = cap;
    }
    p->at[p->n++] = (struct hf_piece){(uint32_t)start, (uint32_t)end};
    return true;
}

void hf_pieces_release(struct hf_pieces *p)
{
    buf_release(&p->text);
    free(p->at);
}

/* What was last cut out of a piece. */
struct cutter {
    struct hf_pieces *out;
    enum hf_behaviour behaviour;
    bool any, was_match;
};

static bool add_cut(struct cutter *c, size_t start, size_t end, bool is_match)
{
    bool join = false;
    if (start == end)
        return true;
    if (c->behaviour == HF_CONTIGUOUS)
        join = c->any && is_match == c->was_match;
    else if (c->behaviour == HF_MERGED_WITH_PREVIOUS)
        join = c->any && is_match && !c->was_match;
    else if (c->behaviour == HF_MERGED_WITH_NEXT)
        join = c->any && !is_match && c->was_match;
    c->was_match = is_match;
    if (c->behaviour == HF_REMOVED && is_match)
        return true;
    c->any = true;
    if (join)
        c->out->at[c->out->n - 1].end = (uint32_t)end;
    return join || push(c->out, start, end);
}

static int split(const struct hf_op *op, pcre2_match_data *match, const char *text,
                 struct hf_piece in, struct hf_pieces *out, struct err *e)
{
    struct finder f = {
        .op = op, .match = match, .text = text + in.start, .n = in.end - in.start, .e = e};
    struct cutter c = {.out = out, .behaviour = op->behaviour};
    size_t at = 0, start, end;
    int rc;
    bool ok = true;
    while (ok && (rc = find_next(&f, &start, &end)) > 0) {
        ok = add_cut(&c, in.start + at, in.start + start, op->invert) &&
             add_cut(&c, in.start + start, in.start + end, !op->invert);
        at = end;
    }
    if (ok && rc == 0)
        ok = add_cut(&c, in.start + at, in.end, op->invert);
    return ok ? rc : err_set(e, ERR_NOMEM, "tokenizer: no memory for words");
}

/* A pre-tokeniser that changes the text of pieces: writes them anew. */
static int rewrite(const struct hf_op *op, pcre2_match_data *match, bool first, const char *text,
                   struct hf_piece in, struct hf_pieces *out, struct err *e)
{
    const char *p = text + in.start;
    size_t n = in.end - in.start, start = out->text.len;
    int rc = 0;
    if (op->kind == HF_REPLACE) {
        rc = replace(op, match, p, n, &out->text, e);
    } else {
        bool there = n >= op->n && !memcmp(p, op->text, op->n);
        if (!there && (first || !op->first))
            buf_add(&out->text, op->text, op->n);
        buf_add(&out->text, p, n);
    }
    if (rc < 0)
        return rc;
    if (out->text.failed || (out->text.len > start && !push(out, start, out->text.len)))
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for words");
    return 0;
}

int hf_pretokenize(const struct hf_ops *ops, pcre2_match_data *match, bool start, const char *text,
                   size_t n, struct hf_pieces *p, struct err *e)
{
    int rc = 0;
    hf_pieces_release(p);
    *p = (struct hf_pieces){0};
    buf_add(&p->text, text, n);
    if (p->text.failed || (n && !push(p, 0, n)))
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for words");
    for (int i = 0; i < ops->n && rc == 0; i++) {
        const struct hf_op *op = &ops->at[i];
        struct hf_pieces next = {0};
        buf_init(&next.text, UINT32_MAX);
        /* NOLINTBEGIN(clang-analyzer-unix.Malloc): p->at is what `next` had, never the freed one */
        for (size_t k = 0; k < p->n && rc == 0; k++)
            rc = op->kind == HF_SPLIT
                     ? split(op, match, buf_str(&p->text), p->at[k], &next, e)
                     : rewrite(op, match, start && k == 0, buf_str(&p->text), p->at[k], &next, e);
        /* NOLINTEND(clang-analyzer-unix.Malloc) */
        if (op->kind == HF_SPLIT) { /* the text stays */
            buf_release(&next.text);
            next.text = p->text;
            buf_init(&p->text, 0);
        }
        hf_pieces_release(p);
        *p = next;
    }
    return rc;
}
