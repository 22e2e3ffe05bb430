/* json_schema.c: see json_schema.h. One schema to one piece of syntax: first what joins schemas
 * ($ref, allOf, anyOf), then values (enum, const), then kinds. Objects and arrays become rules;
 * targets of $ref too, from a queue, so that recursion in a schema is none here. */
#include "runtime/grammar/json_schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/json_internal.h"
#include "runtime/grammar/json_number.h"

uint32_t schema_fault(struct schema *s, int code, const char *fmt, ...)
{
    struct buf b;
    buf_init(&b, ERR_MSG_BYTES);
    va_list ap;
    va_start(ap, fmt);
    buf_addvf(&b, fmt, ap);
    va_end(ap);
    syntax_fault(s->y, code, "at %.150s: %s", buf_str(&s->place), buf_str(&b));
    buf_release(&b);
    return SYNTAX_FAIL;
}

uint32_t schema_rule_call(struct schema *s, uint32_t node)
{
    if (s->y->failed || s->y->nodes[node].op == SYNTAX_OP_CALL)
        return node;
    uint32_t rule = syntax_rule(s->y);
    syntax_define(s->y, rule, node);
    return syntax_call(s->y, rule);
}

enum keyword { KEY_NOTE, KEY_SERVED, KEY_REFUSED };

static enum keyword keyword(const char *key, json_object *v)
{
    static const char *const served[] = {"type",
                                         "properties",
                                         "required",
                                         "additionalProperties",
                                         "enum",
                                         "const",
                                         "anyOf",
                                         "oneOf",
                                         "allOf",
                                         "$ref",
                                         "items",
                                         "prefixItems",
                                         "minItems",
                                         "maxItems",
                                         "minLength",
                                         "maxLength",
                                         "pattern",
                                         "format",
                                         "minimum",
                                         "maximum",
                                         "exclusiveMinimum",
                                         "exclusiveMaximum",
                                         "nullable"};
    static const char *const notes[] = {
        "title", "description", "default",    "examples", "$comment",  "$id",    "$schema",
        "$defs", "definitions", "deprecated", "readOnly", "writeOnly", "example"};
    for (size_t i = 0; i < sizeof served / sizeof served[0]; i++)
        if (!strcmp(key, served[i]))
            return KEY_SERVED;
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++)
        if (!strcmp(key, notes[i]))
            return KEY_NOTE;
    if (!strncmp(key, "x-", 2))
        return KEY_NOTE;
    /* Asks for nothing. */
    if (!strcmp(key, "uniqueItems") && json_object_is_type(v, json_type_boolean) &&
        !json_object_get_boolean(v))
        return KEY_NOTE;
    return KEY_REFUSED;
}

static bool check_keywords(struct schema *s, json_object *sch)
{
    json_object_object_foreach(sch, key, v)
    {
        if (!syntax_spend(s->y, 10))
            return false;
        if (keyword(key, v) == KEY_REFUSED) {
            schema_fault(s, ERR_UNSUPPORTED, "\"%.80s\" is not served", key);
            return false;
        }
    }
    return true;
}

static json_object *member(json_object *o, const char *key)
{
    json_object *v = NULL;
    return json_object_object_get_ex(o, key, &v) ? v : NULL;
}

/* Whether a schema says anything besides annotations and `key`. */
static bool says_more(json_object *sch, const char *except)
{
    json_object_object_foreach(sch, key, v)
    {
        if (strcmp(key, except) != 0 && keyword(key, v) != KEY_NOTE)
            return true;
    }
    return false;
}

static unsigned kind_named(struct schema *s, json_object *name)
{
    static const struct {
        const char *name;
        unsigned kind;
    } kinds[] = {{"null", JSON_NULL},     {"boolean", JSON_BOOLEAN}, {"integer", JSON_INTEGER},
                 {"number", JSON_NUMBER}, {"string", JSON_STRING},   {"array", JSON_ARRAY},
                 {"object", JSON_OBJECT}};
    const char *text =
        json_object_is_type(name, json_type_string) ? json_object_get_string(name) : "";
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (!strcmp(text, kinds[i].name))
            return kinds[i].kind;
    return schema_fault(s, ERR_FORMAT, "type \"%.40s\" does not exist", text);
}

unsigned schema_kinds(struct schema *s, json_object *sch)
{
    json_object *type = NULL;
    unsigned kinds = 0;
    if (!json_object_object_get_ex(sch, "type", &type))
        return JSON_ANY;
    if (json_object_is_type(type, json_type_array))
        for (size_t i = 0; i < json_list_length(type) && !s->y->failed; i++)
            kinds |= kind_named(s, json_object_array_get_idx(type, i));
    else
        kinds = kind_named(s, type);
    if (json_object_get_boolean(member(sch, "nullable")))
        kinds |= JSON_NULL;
    return kinds & JSON_NUMBER ? kinds & ~(unsigned)JSON_INTEGER : kinds;
}

unsigned schema_kind_of_value(json_object *v)
{
    switch (json_object_get_type(v)) {
    case json_type_null:
        return JSON_NULL;
    case json_type_boolean:
        return JSON_BOOLEAN;
    case json_type_int:
        return JSON_INTEGER;
    case json_type_double:
        return JSON_NUMBER;
    case json_type_string:
        return JSON_STRING;
    case json_type_array:
        return JSON_ARRAY;
    default:
        return JSON_OBJECT;
    }
}

/* ---- values and numbers ---------------------------------------------------------------------- */

/* enum, const, or both; only `type` may stand beside them. */
static uint32_t by_values(struct schema *s, json_object *sch, json_object *list)
{
    static const char *const beside[] = {"type", "enum", "const", "nullable"};
    json_object_object_foreach(sch, key, ignored)
    {
        bool fine = keyword(key, ignored) == KEY_NOTE;
        for (size_t i = 0; i < 4 && !fine; i++)
            fine = !strcmp(key, beside[i]);
        if (!fine)
            return schema_fault(s, ERR_UNSUPPORTED, "\"%s\" beside enum or const is not served",
                                key);
    }
    json_object *constant = NULL;
    bool is_const = json_object_object_get_ex(sch, "const", &constant);
    if (list && !json_object_is_type(list, json_type_array))
        return schema_fault(s, ERR_FORMAT, "enum is not a list");
    unsigned kinds = schema_kinds(s, sch);
    size_t n = list ? json_list_length(list) : 1, kept = 0;
    uint32_t *nodes = calloc(n + 1, sizeof *nodes);
    if (!nodes)
        return schema_fault(s, ERR_NOMEM, "no memory");
    for (size_t i = 0; i < n && !s->y->failed; i++) {
        json_object *v = list ? json_object_array_get_idx(list, i) : constant;
        unsigned kind = schema_kind_of_value(v);
        kind |= kind & JSON_INTEGER ? JSON_NUMBER : 0;
        if ((kind & kinds) && (!list || !is_const || json_object_equal(v, constant)))
            nodes[kept++] = json_literal(s, v);
    }
    uint32_t out = syntax_alt(s->y, nodes, kept);
    free(nodes);
    return out;
}

/* The tighter of an inclusive and an exclusive bound. `sign`: 1 for minimum, -1 for maximum. */
static bool bound(struct schema *s, json_object *sch, const char *key, const char *exclusive_key,
                  int sign, bool *has, bool *excluded, struct decimal *out)
{
    const char *keys[2] = {key, exclusive_key};
    *has = *excluded = false;
    for (int i = 0; i < 2; i++) {
        json_object *v = NULL;
        struct decimal d;
        if (!json_object_object_get_ex(sch, keys[i], &v))
            continue;
        if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
            return schema_fault(s, ERR_FORMAT, "%s is not a number", keys[i]), false;
        if (!decimal_parse(json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN), &d))
            return schema_fault(s, ERR_UNSUPPORTED, "%s has more than %d digits", keys[i],
                                JSON_NUMBER_DIGITS_MAX),
                   false;
        int c = *has ? sign * decimal_cmp(&d, out) : 1;
        if (c > 0)
            *out = d;
        if (c > 0 || (c == 0 && i == 1))
            *excluded = i == 1;
        *has = true;
    }
    return true;
}

static uint32_t by_number(struct schema *s, json_object *sch, bool whole)
{
    struct json_bounds b;
    if (!bound(s, sch, "minimum", "exclusiveMinimum", 1, &b.has_min, &b.min_excluded, &b.min) ||
        !bound(s, sch, "maximum", "exclusiveMaximum", -1, &b.has_max, &b.max_excluded, &b.max))
        return SYNTAX_FAIL;
    if (!b.has_min && !b.has_max)
        return whole ? json_any_integer(s) : json_any_number(s);
    return whole ? json_integer(s->y, &b) : json_number(s->y, &b);
}

/* ---- arrays and objects ---------------------------------------------------------------------- */

static uint32_t array_items(struct schema *s, json_object *sch, uint32_t *max)
{
    json_object *items = NULL;
    if (!json_object_object_get_ex(sch, "items", &items))
        return json_any_value(s);
    if (json_object_is_type(items, json_type_array))
        return schema_fault(s, ERR_UNSUPPORTED, "items as a list is not served: use prefixItems");
    uint32_t more = schema_rule_call(s, schema_value(s, items, "/items"));
    if (json_object_is_type(items, json_type_boolean) && !json_object_get_boolean(items)) {
        size_t prefix = json_list_length(member(sch, "prefixItems"));
        *max = *max < prefix ? *max : (uint32_t)prefix;
    }
    return more;
}

/* The elements past a prefix of n. */
static uint32_t elements(struct schema *s, uint32_t n, uint32_t more, uint32_t min, uint32_t max)
{
    struct syntax *y = s->y;
    if (max <= n)
        return SYNTAX_EMPTY;
    uint32_t from = min > n ? min - n : 0, to = max == SYNTAX_MANY ? SYNTAX_MANY : max - n;
    uint32_t next = syntax_cat2(y, s->item_sep, more);
    if (n)
        return syntax_repeat(y, next, from, to);
    uint32_t rest = syntax_repeat(y, next, from ? from - 1 : 0, to == SYNTAX_MANY ? to : to - 1);
    uint32_t all = syntax_cat2(y, more, rest);
    return from ? all : syntax_optional(y, all);
}

static uint32_t by_array(struct schema *s, json_object *sch)
{
    struct syntax *y = s->y;
    json_object *list = member(sch, "prefixItems");
    uint32_t min, max;
    bool counted;
    if (list && !json_object_is_type(list, json_type_array))
        return schema_fault(s, ERR_FORMAT, "prefixItems is not a list");
    if (!schema_counts(s, sch, "minItems", "maxItems", &min, &max, &counted))
        return SYNTAX_FAIL;
    size_t n = list ? json_list_length(list) : 0;
    uint32_t more = array_items(s, sch, &max);
    if (min > max || s->y->failed)
        return SYNTAX_FAIL;
    n = n < max ? n : max;
    uint32_t inside = elements(s, (uint32_t)n, more, min, max);
    for (size_t i = n; i-- > 0 && !y->failed;) {
        uint32_t one = schema_value(s, json_object_array_get_idx(list, i), "/prefixItems");
        inside = syntax_cat2(y, schema_rule_call(s, one), inside);
        if (i > 0)
            inside = syntax_cat2(y, s->item_sep, inside);
        if (i >= min)
            inside = syntax_optional(y, inside);
    }
    return schema_rule_call(s, syntax_cat3(y, s->open_array, inside, s->close_array));
}

struct members {
    struct syntax_item *items;
    const char **names;
    size_t n;
};

static void add_member(struct schema *s, struct members *m, const char *name, uint32_t value,
                       bool required)
{
    uint32_t key = json_string_literal(s, name, strlen(name));
    m->names[m->n] = name;
    m->items[m->n].required = required;
    m->items[m->n++].node = syntax_cat3(s->y, key, s->key_sep, value);
}

static bool is_required(json_object *required, const char *name)
{
    for (size_t i = 0; required && i < json_list_length(required); i++) {
        json_object *v = json_object_array_get_idx(required, i);
        if (json_object_is_type(v, json_type_string) && !strcmp(json_object_get_string(v), name))
            return true;
    }
    return false;
}

static void listed_members(struct schema *s, struct members *m, json_object *props,
                           json_object *required)
{
    json_object_object_foreach(props, name, sub)
    {
        char step[80];
        snprintf(step, sizeof step, "/properties/%.60s", name);
        if (s->y->failed || !syntax_spend(s->y, 20 + json_list_length(required)))
            return;
        uint32_t value = schema_value(s, sub, step);
        add_member(s, m, name, value, is_required(required, name));
    }
}

/* Names that are required and not listed take what additionalProperties says. */
static void unlisted_members(struct schema *s, struct members *m, json_object *props,
                             json_object *required, uint32_t more)
{
    for (size_t i = 0; i < json_list_length(required) && !s->y->failed; i++) {
        json_object *v = json_object_array_get_idx(required, i);
        if (!json_object_is_type(v, json_type_string)) {
            schema_fault(s, ERR_FORMAT, "required holds something else than names");
            return;
        }
        const char *name = json_object_get_string(v);
        bool known = props && json_object_object_get_ex(props, name, NULL);
        for (size_t k = 0; k < m->n && !known; k++)
            known = !strcmp(m->names[k], name);
        if (!known && syntax_spend(s->y, m->n))
            add_member(s, m, name, more, true);
    }
}

static uint32_t additional(struct schema *s, json_object *sch)
{
    json_object *more = NULL;
    if (!json_object_object_get_ex(sch, "additionalProperties", &more))
        return json_any_value(s);
    return schema_value(s, more, "/additionalProperties");
}

static uint32_t by_object(struct schema *s, json_object *sch)
{
    struct syntax *y = s->y;
    json_object *props = member(sch, "properties"), *required = member(sch, "required");
    if (props && !json_object_is_type(props, json_type_object))
        return schema_fault(s, ERR_FORMAT, "properties is not an object");
    if (required && !json_object_is_type(required, json_type_array))
        return schema_fault(s, ERR_FORMAT, "required is not a list");
    size_t room = 1 + (props ? (size_t)json_object_object_length(props) : 0) +
                  (required ? json_list_length(required) : 0);
    struct members m = {calloc(room, sizeof *m.items), calloc(room, sizeof *m.names), 0};
    uint32_t out = SYNTAX_FAIL;
    if (!m.items || !m.names) {
        schema_fault(s, ERR_NOMEM, "no memory");
        goto out;
    }
    if (props)
        listed_members(s, &m, props, required);
    uint32_t more = additional(s, sch), member_more = SYNTAX_FAIL;
    if (required)
        unlisted_members(s, &m, props, required, more);
    if (more != SYNTAX_FAIL)
        member_more = syntax_cat3(y, json_string_except(s, m.names, m.n), s->key_sep, more);
    uint32_t list = syntax_list(y, m.items, m.n, s->item_sep, member_more);
    out = schema_rule_call(s, syntax_cat3(y, s->open_object, list, s->close_object));
out:
    free(m.items);
    free(m.names);
    return out;
}

/* ---- joins ----------------------------------------------------------------------------------- */

static uint32_t by_kinds(struct schema *s, json_object *sch)
{
    unsigned kinds = schema_kinds(s, sch);
    uint32_t parts[8];
    size_t n = 0;
    if (kinds & JSON_OBJECT)
        parts[n++] = by_object(s, sch);
    if (kinds & JSON_ARRAY)
        parts[n++] = by_array(s, sch);
    if (kinds & JSON_STRING)
        parts[n++] = schema_string(s, sch);
    if (kinds & (JSON_NUMBER | JSON_INTEGER))
        parts[n++] = by_number(s, sch, !(kinds & JSON_NUMBER));
    if (kinds & JSON_BOOLEAN)
        parts[n++] = syntax_alt2(s->y, syntax_str(s->y, "true"), syntax_str(s->y, "false"));
    if (kinds & JSON_NULL)
        parts[n++] = syntax_str(s->y, "null");
    return syntax_alt(s->y, parts, n);
}

static uint32_t by_ref(struct schema *s, const char *pointer)
{
    for (size_t i = 0; i < s->n_refs; i++)
        if (!strcmp(s->refs[i].pointer, pointer))
            return syntax_call(s->y, s->refs[i].rule);
    if (!syntax_spend(s->y, 10 + s->n_refs) || !schema_resolve(s, pointer))
        return SYNTAX_FAIL;
    if (s->n_refs == s->cap_refs) {
        size_t cap = s->cap_refs ? 2 * s->cap_refs : 16;
        struct schema_ref *grown = realloc(s->refs, cap * sizeof *grown);
        if (!grown)
            return schema_fault(s, ERR_NOMEM, "no memory");
        s->refs = grown;
        s->cap_refs = cap;
    }
    char *copy = strdup(pointer);
    if (!copy)
        return schema_fault(s, ERR_NOMEM, "no memory");
    s->refs[s->n_refs] = (struct schema_ref){copy, syntax_rule(s->y)};
    return syntax_call(s->y, s->refs[s->n_refs++].rule);
}

static bool check_disjoint(struct schema *s, json_object *list)
{
    for (size_t i = 0; i < json_list_length(list); i++)
        for (size_t j = 0; j < i; j++) {
            json_object *a = json_object_array_get_idx(list, i);
            json_object *b = json_object_array_get_idx(list, j);
            if (!schema_disjoint(s, a, b)) {
                schema_fault(s, ERR_UNSUPPORTED,
                             "oneOf: a value may fit alternatives %zu and %zu; use anyOf", j, i);
                return false;
            }
        }
    return true;
}

static uint32_t by_alternatives(struct schema *s, json_object *sch, const char *key,
                                json_object *list)
{
    if (!json_object_is_type(list, json_type_array) || !json_list_length(list))
        return schema_fault(s, ERR_FORMAT, "%s is not a list of schemas", key);
    if (*key == 'o' && !check_disjoint(s, list))
        return SYNTAX_FAIL;
    json_object *base = says_more(sch, key) ? schema_without(s, sch, key) : NULL;
    size_t n = json_list_length(list);
    uint32_t *parts = calloc(n, sizeof *parts);
    if (!parts)
        return schema_fault(s, ERR_NOMEM, "no memory");
    for (size_t i = 0; i < n && !s->y->failed; i++) {
        char step[40];
        snprintf(step, sizeof step, "/%s/%zu", key, i);
        json_object *one = json_object_array_get_idx(list, i);
        if (base)
            one = schema_flatten(s, one);
        if (base && one)
            one = schema_merge(s, base, one);
        parts[i] = s->y->failed ? SYNTAX_FAIL : schema_value(s, one, step);
    }
    uint32_t out = syntax_alt(s->y, parts, n);
    free(parts);
    return out;
}

static uint32_t value_of(struct schema *s, json_object *sch)
{
    json_object *v = NULL;
    if (json_object_is_type(sch, json_type_boolean))
        return json_object_get_boolean(sch) ? json_any_value(s) : SYNTAX_FAIL;
    if (!json_object_is_type(sch, json_type_object))
        return schema_fault(s, ERR_FORMAT, "a schema is an object, true or false");
    if (!check_keywords(s, sch))
        return SYNTAX_FAIL;
    if (json_object_object_get_ex(sch, "$ref", &v) && !says_more(sch, "$ref") &&
        json_object_is_type(v, json_type_string))
        return by_ref(s, json_object_get_string(v));
    if (v || json_object_object_get_ex(sch, "allOf", NULL)) {
        json_object *flat = schema_flatten(s, sch);
        return flat ? schema_value(s, flat, "") : SYNTAX_FAIL;
    }
    if (json_object_object_get_ex(sch, "anyOf", &v))
        return by_alternatives(s, sch, "anyOf", v);
    if (json_object_object_get_ex(sch, "oneOf", &v))
        return by_alternatives(s, sch, "oneOf", v);
    if (json_object_object_get_ex(sch, "enum", &v) || json_object_object_get_ex(sch, "const", NULL))
        return by_values(s, sch, member(sch, "enum"));
    if (!says_more(sch, ""))
        return json_any_value(s);
    return by_kinds(s, sch);
}

uint32_t schema_value(struct schema *s, json_object *sch, const char *step)
{
    if (s->y->failed || !syntax_spend(s->y, 20))
        return SYNTAX_FAIL;
    if (s->depth >= s->y->limits->depth_max)
        return schema_fault(s, ERR_LIMIT, "nests deeper than %u", s->y->limits->depth_max);
    size_t len = s->place.len;
    buf_adds(&s->place, step);
    s->depth++;
    uint32_t out = value_of(s, sch);
    s->depth--;
    s->place.len = s->place.len < len ? s->place.len : len;
    if (s->place.data)
        s->place.data[s->place.len] = '\0';
    return s->y->failed ? SYNTAX_FAIL : out;
}

/* ---- the document ---------------------------------------------------------------------------- */

static void schema_init(struct schema *s, struct syntax *y, enum grammar_space space)
{
    memset(s, 0, sizeof *s);
    s->y = y;
    s->space = space;
    buf_init(&s->place, 64u << 10);
    buf_adds(&s->place, "#");
    json_shapes_init(s);
}

static void schema_release(struct schema *s)
{
    for (size_t i = 0; i < s->n_made; i++)
        json_object_put(s->made[i]);
    free(s->made);
    for (size_t i = 0; i < s->n_refs; i++)
        free(s->refs[i].pointer);
    free(s->refs);
    json_object_put(s->root);
    buf_release(&s->place);
}

static void parse_json(struct schema *s, const char *text, size_t n)
{
    struct json_tokener *tok = json_tokener_new_ex((int)s->y->limits->depth_max * 4);
    if (!tok || n > INT32_MAX) {
        schema_fault(s, ERR_NOMEM, "no memory");
        goto out;
    }
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    s->root = json_tokener_parse_ex(tok, text, (int)n);
    enum json_tokener_error why = json_tokener_get_error(tok);
    /* A bare true has its end only at the end of the text. */
    if (why == json_tokener_continue) {
        s->root = json_tokener_parse_ex(tok, "", 1);
        why = json_tokener_get_error(tok);
    }
    if (why != json_tokener_success)
        schema_fault(s, ERR_FORMAT, "not JSON: %s", json_tokener_error_desc(why));
out:
    if (tok)
        json_tokener_free(tok);
}

uint32_t json_schema_parse(struct syntax *y, const char *text, size_t n, enum grammar_space space)
{
    struct schema s;
    schema_init(&s, y, space);
    uint32_t root = syntax_rule(y);
    parse_json(&s, text, n);
    if (!y->failed)
        syntax_define(y, root, schema_value(&s, s.root, ""));
    for (; s.done < s.n_refs && !y->failed; s.done++) {
        struct schema_ref ref = s.refs[s.done];
        buf_clear(&s.place);
        buf_adds(&s.place, ref.pointer);
        syntax_define(y, ref.rule, schema_value(&s, schema_resolve(&s, ref.pointer), ""));
    }
    schema_release(&s);
    return root;
}

uint32_t json_schema_any_object(struct syntax *y, enum grammar_space space)
{
    struct schema s;
    schema_init(&s, y, space);
    uint32_t root = syntax_rule(y);
    syntax_define(y, root, json_any_object(&s));
    schema_release(&s);
    return root;
}
