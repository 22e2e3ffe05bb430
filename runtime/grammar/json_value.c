/* json_value.c: the shapes of JSON that need no schema (json_internal.h). */
#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/charset.h"
#include "runtime/grammar/json_internal.h"
#include "runtime/grammar/json_number.h"
#include "runtime/grammar/regex.h"
#include "runtime/text/utf8.h"

static uint32_t spaced(struct syntax *y, uint32_t before, const char *mark, uint32_t after)
{
    return syntax_cat2(y, syntax_cat2(y, before, syntax_str(y, mark)), after);
}

void json_shapes_init(struct schema *s)
{
    struct syntax *y = s->y;
    uint32_t any = SYNTAX_EMPTY, one = SYNTAX_EMPTY;
    if (s->space == GRAMMAR_SPACE_ANY)
        any = one = regex_parse(y, "[ \\t\\r\\n]*", 10, REGEX_PLAIN);
    if (s->space == GRAMMAR_SPACE_ONE)
        one = syntax_str(y, " ");
    s->open_object = spaced(y, SYNTAX_EMPTY, "{", any);
    s->close_object = spaced(y, any, "}", SYNTAX_EMPTY);
    s->open_array = spaced(y, SYNTAX_EMPTY, "[", any);
    s->close_array = spaced(y, any, "]", SYNTAX_EMPTY);
    s->item_sep = spaced(y, any, ",", one);
    s->key_sep = spaced(y, any, ":", one);
    s->character = regex_json_char(y);
    s->string_rule = s->number_rule = s->integer_rule = SYNTAX_MANY;
    s->value_rule = s->object_rule = s->array_rule = SYNTAX_MANY;
}

/* True the first time, when its body is due. */
static bool take_rule(struct schema *s, uint32_t *rule)
{
    if (s->y->failed || *rule != SYNTAX_MANY)
        return false;
    *rule = syntax_rule(s->y);
    return !s->y->failed;
}

uint32_t json_any_string(struct schema *s)
{
    struct syntax *y = s->y;
    if (take_rule(s, &s->string_rule)) {
        uint32_t inside = syntax_repeat(y, s->character, 0, SYNTAX_MANY);
        uint32_t quote = syntax_str(y, "\"");
        syntax_define(y, s->string_rule, syntax_cat3(y, quote, inside, quote));
    }
    return syntax_call(y, s->string_rule);
}

uint32_t json_any_number(struct schema *s)
{
    if (take_rule(s, &s->number_rule)) {
        syntax_define(s->y, s->number_rule, json_number(s->y, &(struct json_bounds){0}));
    }
    return syntax_call(s->y, s->number_rule);
}

uint32_t json_any_integer(struct schema *s)
{
    if (take_rule(s, &s->integer_rule)) {
        syntax_define(s->y, s->integer_rule, json_integer(s->y, &(struct json_bounds){0}));
    }
    return syntax_call(s->y, s->integer_rule);
}

uint32_t json_any_object(struct schema *s)
{
    struct syntax *y = s->y;
    if (take_rule(s, &s->object_rule)) {
        uint32_t member = syntax_cat3(y, json_any_string(s), s->key_sep, json_any_value(s));
        uint32_t list = syntax_list(y, NULL, 0, s->item_sep, member);
        syntax_define(y, s->object_rule, syntax_cat3(y, s->open_object, list, s->close_object));
    }
    return syntax_call(y, s->object_rule);
}

uint32_t json_any_array(struct schema *s)
{
    struct syntax *y = s->y;
    if (take_rule(s, &s->array_rule)) {
        uint32_t list = syntax_list(y, NULL, 0, s->item_sep, json_any_value(s));
        syntax_define(y, s->array_rule, syntax_cat3(y, s->open_array, list, s->close_array));
    }
    return syntax_call(y, s->array_rule);
}

uint32_t json_any_value(struct schema *s)
{
    struct syntax *y = s->y;
    if (take_rule(s, &s->value_rule)) {
        uint32_t kinds[] = {json_any_object(s),   json_any_array(s),     json_any_string(s),
                            json_any_number(s),   syntax_str(y, "true"), syntax_str(y, "false"),
                            syntax_str(y, "null")};
        syntax_define(y, s->value_rule, syntax_alt(y, kinds, sizeof kinds / sizeof kinds[0]));
    }
    return syntax_call(y, s->value_rule);
}

/* A character inside a string. */
static uint32_t char_literal(struct schema *s, uint32_t cp)
{
    struct charset c = {.n = 0};
    charset_add(&c, cp, cp);
    return charset_syntax(s->y, &c, CHARSET_JSON_STRING);
}

uint32_t json_string_literal(struct schema *s, const char *text, size_t n)
{
    if (utf8_valid_bytes(text, n) != n)
        return schema_fault(s, ERR_FORMAT, "a string is not UTF-8");
    uint32_t *parts = calloc(2 * n + 2, sizeof *parts), quote = syntax_str(s->y, "\""), out;
    size_t k = 0, from = 0;
    if (!parts)
        return schema_fault(s, ERR_NOMEM, "no memory");
    parts[k++] = quote;
    for (size_t i = 0; i <= n; i++) {
        bool escaped = i < n && charset_needs_escape((uint8_t)text[i]);
        if (i < n && !escaped)
            continue;
        if (i > from)
            parts[k++] = syntax_lit(s->y, text + from, i - from);
        if (escaped)
            parts[k++] = charset_escape(s->y, (uint8_t)text[i]);
        from = i + 1;
    }
    out = syntax_cat2(s->y, syntax_cat(s->y, parts, k), quote);
    free(parts);
    return out;
}

static uint32_t literal_list(struct schema *s, json_object *v, bool object)
{
    struct syntax *y = s->y;
    size_t n = object ? (size_t)json_object_object_length(v) : json_list_length(v), i = 0;
    struct syntax_item *items = calloc(n + 1, sizeof *items);
    if (!items)
        return schema_fault(s, ERR_NOMEM, "no memory");
    if (object) {
        json_object_object_foreach(v, key, member)
        {
            uint32_t name = json_string_literal(s, key, strlen(key));
            items[i++].node = syntax_cat3(y, name, s->key_sep, json_literal(s, member));
        }
    } else {
        for (; i < n; i++)
            items[i].node = json_literal(s, json_object_array_get_idx(v, i));
    }
    for (i = 0; i < n; i++)
        items[i].required = true;
    uint32_t list = syntax_list(y, items, n, s->item_sep, SYNTAX_FAIL);
    free(items);
    return object ? syntax_cat3(y, s->open_object, list, s->close_object)
                  : syntax_cat3(y, s->open_array, list, s->close_array);
}

uint32_t json_literal(struct schema *s, json_object *v)
{
    if (s->y->failed)
        return SYNTAX_FAIL;
    switch (json_object_get_type(v)) {
    case json_type_string:
        return json_string_literal(s, json_object_get_string(v),
                                   (size_t)json_object_get_string_len(v));
    case json_type_object:
        return literal_list(s, v, true);
    case json_type_array:
        return literal_list(s, v, false);
    case json_type_int: {
        int64_t i = json_object_get_int64(v);
        if (i == INT64_MAX || i == INT64_MIN)
            return schema_fault(s, ERR_UNSUPPORTED, "an integer of this size is not served");
        return syntax_str(s->y, json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN));
    }
    default:
        /* A number's own text: the parser keeps it. */
        return syntax_str(s->y, json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN));
    }
}

#define NAME_CHARS_MAX 128 /* of the start that the names of two properties share, and one more */

struct except {
    struct schema *s;
    const char *const *names; /* sorted by bytes, different */
    uint32_t quote, rest;
    uint32_t depth;
};

/* Scratch of one level: too large for the stack of a recursion. */
struct except_level {
    struct charset others;
    uint32_t parts[CHARSET_RANGES_MAX + 2];
};

static uint32_t except_from(struct except *x, size_t lo, size_t hi, size_t at);

static uint32_t except_children(struct except *x, struct except_level *l, size_t lo, size_t hi,
                                size_t at)
{
    struct syntax *y = x->s->y;
    bool ends = x->names[lo][at] == '\0';
    uint32_t n = 0;
    if (!ends)
        l->parts[n++] = x->quote;
    for (size_t i = lo + ends, end; i < hi && !y->failed; i = end) {
        const unsigned char *p = (const unsigned char *)x->names[i] + at;
        struct utf8_step step = utf8_next(p, strlen((const char *)p));
        if (!step.valid)
            return schema_fault(x->s, ERR_FORMAT, "a property's name is not UTF-8");
        uint32_t cp = utf8_code(p, step.n);
        for (end = i + 1; end < hi && !strncmp(x->names[end] + at, (const char *)p, step.n);)
            end++;
        if (l->others.n == CHARSET_RANGES_MAX)
            return schema_fault(x->s, ERR_LIMIT, "too many names of properties");
        charset_add(&l->others, cp, cp);
        uint32_t child = except_from(x, i, end, at + step.n);
        l->parts[n++] = syntax_cat2(y, char_literal(x->s, cp), child);
    }
    charset_negate(&l->others);
    uint32_t leaves = charset_syntax(y, &l->others, CHARSET_JSON_STRING);
    l->parts[n++] = syntax_cat3(y, leaves, x->rest, x->quote);
    return syntax_alt(y, l->parts, n);
}

/* What may follow the first `at` bytes, which names [lo, hi) share. */
static uint32_t except_from(struct except *x, size_t lo, size_t hi, size_t at)
{
    if (x->depth > NAME_CHARS_MAX)
        return schema_fault(x->s, ERR_LIMIT,
                            "a property's name beside additionalProperties is longer than %u",
                            NAME_CHARS_MAX);
    struct except_level *l = calloc(1, sizeof *l);
    if (!l)
        return schema_fault(x->s, ERR_NOMEM, "no memory");
    x->depth++;
    uint32_t out = except_children(x, l, lo, hi, at);
    x->depth--;
    free(l);
    return out;
}

static int name_cmp(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint32_t json_string_except(struct schema *s, const char *const *names, size_t n)
{
    struct syntax *y = s->y;
    if (!n)
        return json_any_string(s);
    const char **sorted = calloc(n, sizeof *sorted);
    if (!sorted)
        return schema_fault(s, ERR_NOMEM, "no memory");
    memcpy(sorted, names, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, name_cmp);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!kept || strcmp(sorted[kept - 1], sorted[i]) != 0)
            sorted[kept++] = sorted[i];
    struct except x = {.s = s,
                       .names = sorted,
                       .quote = syntax_str(y, "\""),
                       .rest = syntax_repeat(y, s->character, 0, SYNTAX_MANY)};
    uint32_t out = syntax_cat2(y, x.quote, except_from(&x, 0, kept, 0));
    free(sorted);
    return schema_rule_call(s, out);
}
