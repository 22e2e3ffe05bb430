/* json_merge.c: schemas made of schemas: allOf, $ref beside other keywords, what two alternatives
 * of oneOf have in common (json_internal.h). Works on the JSON of the schema; what it makes is
 * owned by struct schema. */
#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/json_internal.h"

#define FLATTEN_DEPTH_MAX 32

static json_object *own(struct schema *s, json_object *o)
{
    if (!o)
        return schema_fault(s, ERR_NOMEM, "no memory"), NULL;
    if (s->n_made == s->cap_made) {
        size_t cap = s->cap_made ? 2 * s->cap_made : 64;
        json_object **grown = realloc(s->made, cap * sizeof(*grown));
        if (!grown) {
            json_object_put(o);
            return schema_fault(s, ERR_NOMEM, "no memory"), NULL;
        }
        s->made = grown;
        s->cap_made = cap;
    }
    s->made[s->n_made++] = o;
    return o;
}

static void put(json_object *o, const char *key, json_object *v)
{
    json_object_object_add(o, key, json_object_get(v));
}

/* A copy of the first level, owned by s; NULL on a fault. */
static json_object *copy(struct schema *s, json_object *sch)
{
    json_object *o = own(s, json_object_new_object());
    if (!o || !syntax_spend(s->y, 20 * (uint64_t)json_object_object_length(sch) + 20))
        return NULL;
    json_object_object_foreach(sch, key, v) put(o, key, v);
    return o;
}

json_object *schema_without(struct schema *s, json_object *sch, const char *key)
{
    json_object *o = copy(s, sch);
    if (o)
        json_object_object_del(o, key);
    return o;
}

/* ~1 and ~0 of RFC 6901, and %XX, undone in place. */
static void unescape(char *p)
{
    char *to = p;
    for (; *p; p++, to++) {
        char hex[3] = {0};
        if (*p == '~' && (p[1] == '0' || p[1] == '1')) {
            *to = *++p == '0' ? '~' : '/';
        } else if (*p == '%' && p[1] && p[2] && strspn(p + 1, "0123456789abcdefABCDEF") >= 2) {
            memcpy(hex, p + 1, 2);
            *to = (char)strtol(hex, NULL, 16);
            p += 2;
        } else {
            *to = *p;
        }
    }
    *to = '\0';
}

static json_object *step_into(json_object *at, const char *key)
{
    json_object *next = NULL;
    if (json_object_is_type(at, json_type_object))
        json_object_object_get_ex(at, key, &next);
    else if (json_object_is_type(at, json_type_array) && strspn(key, "0123456789") == strlen(key))
        next = json_object_array_get_idx(at, strtoul(key, NULL, 10));
    return next;
}

json_object *schema_resolve(struct schema *s, const char *pointer)
{
    if (*pointer != '#')
        return schema_fault(s, ERR_UNSUPPORTED, "$ref \"%s\" leaves the document", pointer), NULL;
    char *text = strdup(pointer + 1), *rest = text;
    json_object *at = s->root;
    if (!text)
        return schema_fault(s, ERR_NOMEM, "no memory"), NULL;
    if (*text && *text != '/')
        at = NULL;
    while (at && rest && *rest == '/') {
        char *key = rest + 1;
        rest = strchr(key, '/');
        if (rest)
            *rest = '\0';
        unescape(key);
        at = step_into(at, key);
        if (rest)
            *rest = '/';
    }
    free(text);
    if (!at)
        schema_fault(s, ERR_FORMAT, "$ref \"%s\" leads nowhere", pointer);
    return at;
}

static json_object *both(struct schema *s, json_object *a, json_object *b)
{
    json_object *o = own(s, json_object_new_object()), *list = json_object_new_array();
    if (!o || !list) {
        json_object_put(list);
        return NULL;
    }
    json_object_array_add(list, json_object_get(a));
    json_object_array_add(list, json_object_get(b));
    json_object_object_add(o, "allOf", list);
    return o;
}

static bool contains(json_object *list, json_object *v)
{
    for (size_t i = 0; i < json_list_length(list); i++)
        if (json_object_equal(json_object_array_get_idx(list, i), v))
            return true;
    return false;
}

/* required: the union; enum: what both have. */
static json_object *merge_lists(struct schema *s, json_object *a, json_object *b, bool all)
{
    json_object *out = own(s, json_object_new_array());
    if (!out || !json_object_is_type(a, json_type_array) ||
        !json_object_is_type(b, json_type_array))
        return schema_fault(s, ERR_FORMAT, "required and enum are lists"), NULL;
    size_t na = json_list_length(a), nb = json_list_length(b);
    if (!syntax_spend(s->y, na * (uint64_t)nb + na + nb))
        return NULL;
    for (size_t i = 0; i < na; i++) {
        json_object *v = json_object_array_get_idx(a, i);
        if (all || contains(b, v))
            json_object_array_add(out, json_object_get(v));
    }
    for (size_t i = 0; all && i < nb; i++) {
        json_object *v = json_object_array_get_idx(b, i);
        if (!contains(a, v))
            json_object_array_add(out, json_object_get(v));
    }
    return out;
}

static json_object *merge_types(struct schema *s, json_object *a, json_object *b)
{
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    json_object *oa = own(s, json_object_new_object()), *ob = own(s, json_object_new_object());
    json_object *out = own(s, json_object_new_array());
    if (!oa || !ob || !out)
        return NULL;
    put(oa, "type", a);
    put(ob, "type", b);
    unsigned ka = schema_kinds(s, oa), kb = schema_kinds(s, ob);
    ka |= ka & JSON_NUMBER ? JSON_INTEGER : 0;
    kb |= kb & JSON_NUMBER ? JSON_INTEGER : 0;
    for (unsigned i = 0; i < 7; i++)
        if (ka & kb & 1u << i)
            json_object_array_add(out, json_object_new_string(names[i]));
    return out;
}

static bool forbids(json_object *more)
{
    return json_object_is_type(more, json_type_boolean) && !json_object_get_boolean(more);
}

static json_object *member(json_object *o, const char *key)
{
    json_object *v = NULL;
    return json_object_object_get_ex(o, key, &v) ? v : NULL;
}

/* Adds to `out` the properties of `from`, bound by what `other` says of properties it doesn't list.
 */
static bool merge_properties(struct schema *s, json_object *out, json_object *from,
                             json_object *other)
{
    json_object *mine = member(from, "properties"), *theirs = member(other, "properties");
    json_object *more = member(other, "additionalProperties");
    if (!mine)
        return true;
    if (!json_object_is_type(mine, json_type_object))
        return schema_fault(s, ERR_FORMAT, "properties is not an object"), false;
    json_object_object_foreach(mine, key, v)
    {
        json_object *there = member(theirs, key), *merged = v;
        if (!syntax_spend(s->y, 20))
            return false;
        if (there && !json_object_equal(v, there))
            merged = both(s, v, there);
        else if (!there && more && forbids(more))
            merged = more;
        else if (!there && json_object_is_type(more, json_type_object))
            merged = both(s, v, more);
        if (s->y->failed)
            return false;
        if (!member(out, key))
            put(out, key, merged);
    }
    return true;
}

static bool is_bound(const char *key, int *direction)
{
    static const char *const up[] = {"minimum", "exclusiveMinimum", "minLength", "minItems"};
    static const char *const down[] = {"maximum", "exclusiveMaximum", "maxLength", "maxItems"};
    for (size_t i = 0; i < 4; i++) {
        if (!strcmp(key, up[i]) || !strcmp(key, down[i])) {
            *direction = strcmp(key, up[i]) ? -1 : 1;
            return true;
        }
    }
    return false;
}

static bool is_annotation(const char *key)
{
    static const char *const names[] = {"title",       "description", "default",  "examples",
                                        "$comment",    "$id",         "$schema",  "$defs",
                                        "definitions", "deprecated",  "readOnly", "writeOnly"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!strcmp(key, names[i]))
            return true;
    return !strncmp(key, "x-", 2);
}

/* One keyword that both have, with different values. */
static json_object *merge_value(struct schema *s, const char *key, json_object *va, json_object *vb)
{
    int direction;
    if (is_annotation(key))
        return va;
    if (is_bound(key, &direction))
        return (json_object_get_double(va) < json_object_get_double(vb)) == (direction > 0) ? vb
                                                                                            : va;
    if (!strcmp(key, "type"))
        return merge_types(s, va, vb);
    if (!strcmp(key, "required") || !strcmp(key, "enum"))
        return merge_lists(s, va, vb, *key == 'r');
    if (!strcmp(key, "additionalProperties")) {
        if (json_object_is_type(va, json_type_boolean))
            return json_object_get_boolean(va) ? vb : va;
        if (json_object_is_type(vb, json_type_boolean))
            return json_object_get_boolean(vb) ? va : vb;
        return both(s, va, vb);
    }
    if (!strcmp(key, "items"))
        return both(s, va, vb);
    schema_fault(s, ERR_UNSUPPORTED, "two different \"%s\" can't be combined", key);
    return NULL;
}

static void const_to_enum(struct schema *s, json_object *o)
{
    json_object *v = member(o, "const");
    if (!json_object_object_get_ex(o, "const", NULL))
        return;
    json_object *list = own(s, json_object_new_array());
    if (!list)
        return;
    json_object_array_add(list, json_object_get(v));
    json_object *old = member(o, "enum");
    json_object *merged = old ? merge_lists(s, old, list, false) : list;
    if (merged)
        put(o, "enum", merged);
    json_object_object_del(o, "const");
}

json_object *schema_merge(struct schema *s, json_object *a, json_object *b)
{
    if (json_object_is_type(a, json_type_boolean))
        return json_object_get_boolean(a) ? b : a;
    if (json_object_is_type(b, json_type_boolean))
        return json_object_get_boolean(b) ? a : b;
    if (!json_object_is_type(a, json_type_object) || !json_object_is_type(b, json_type_object))
        return schema_fault(s, ERR_FORMAT, "a schema is an object, true or false"), NULL;
    json_object *out = copy(s, a), *other = copy(s, b), *props = own(s, json_object_new_object());
    if (!out || !other || !props || s->y->failed)
        return NULL;
    const_to_enum(s, out);
    const_to_enum(s, other);
    json_object_object_foreach(other, key, vb)
    {
        json_object *va = NULL;
        bool there = json_object_object_get_ex(out, key, &va);
        if (there && strcmp(key, "properties") != 0 && !json_object_equal(va, vb))
            vb = merge_value(s, key, va, vb);
        if (s->y->failed)
            return NULL;
        if (!there || strcmp(key, "properties") != 0)
            put(out, key, vb);
    }
    if (!merge_properties(s, props, a, b) || !merge_properties(s, props, b, a))
        return NULL;
    if (json_object_object_length(props))
        put(out, "properties", props);
    return out;
}

static json_object *flatten(struct schema *s, json_object *sch, uint32_t depth)
{
    if (depth > FLATTEN_DEPTH_MAX)
        return schema_fault(s, ERR_LIMIT, "$ref or allOf nests deeper than %d", FLATTEN_DEPTH_MAX),
               NULL;
    json_object *ref = NULL, *all = NULL;
    if (s->y->failed || !syntax_spend(s->y, 100))
        return NULL;
    if (!json_object_is_type(sch, json_type_object))
        return sch;
    if (json_object_object_get_ex(sch, "$ref", &ref)) {
        if (!json_object_is_type(ref, json_type_string))
            return schema_fault(s, ERR_FORMAT, "$ref is not a string"), NULL;
        json_object *rest = schema_without(s, sch, "$ref");
        json_object *target = schema_resolve(s, json_object_get_string(ref));
        target = target ? flatten(s, target, depth + 1) : NULL;
        rest = rest && target ? flatten(s, rest, depth + 1) : NULL;
        return rest ? schema_merge(s, rest, target) : NULL;
    }
    if (json_object_object_get_ex(sch, "allOf", &all)) {
        if (!json_object_is_type(all, json_type_array))
            return schema_fault(s, ERR_FORMAT, "allOf is not a list"), NULL;
        json_object *out = schema_without(s, sch, "allOf");
        for (size_t i = 0; out && i < json_list_length(all); i++) {
            json_object *part = flatten(s, json_object_array_get_idx(all, i), depth + 1);
            out = part ? schema_merge(s, out, part) : NULL;
        }
        return out;
    }
    return sch;
}

json_object *schema_flatten(struct schema *s, json_object *sch)
{
    return flatten(s, sch, 0);
}

static bool disjoint_values(json_object *a, json_object *b)
{
    for (size_t i = 0; i < json_list_length(a); i++)
        if (contains(b, json_object_array_get_idx(a, i)))
            return false;
    return true;
}

static bool disjoint(struct schema *s, json_object *a, json_object *b, uint32_t depth);

/* A property that both require, and whose values can't be the same. */
static bool disjoint_objects(struct schema *s, json_object *a, json_object *b, uint32_t depth)
{
    json_object *pa = member(a, "properties"), *pb = member(b, "properties");
    json_object *ra = member(a, "required"), *rb = member(b, "required");
    if (!json_object_is_type(pa, json_type_object) || !json_object_is_type(pb, json_type_object) ||
        !json_object_is_type(ra, json_type_array) || !json_object_is_type(rb, json_type_array))
        return false;
    for (size_t i = 0; i < json_list_length(ra); i++) {
        json_object *name = json_object_array_get_idx(ra, i);
        if (!json_object_is_type(name, json_type_string) || !contains(rb, name))
            continue;
        json_object *va = member(pa, json_object_get_string(name));
        json_object *vb = member(pb, json_object_get_string(name));
        if (va && vb && disjoint(s, va, vb, depth + 1))
            return true;
    }
    return false;
}

static unsigned kinds_of(struct schema *s, json_object *o, json_object *values)
{
    unsigned kinds = schema_kinds(s, o), of_values = 0;
    if (values) {
        for (size_t i = 0; i < json_list_length(values); i++)
            of_values |= schema_kind_of_value(json_object_array_get_idx(values, i));
        kinds = of_values;
    }
    return kinds | (kinds & JSON_INTEGER ? JSON_NUMBER : 0);
}

static bool disjoint(struct schema *s, json_object *a, json_object *b, uint32_t depth)
{
    if (depth > 8 || !syntax_spend(s->y, 200))
        return false;
    a = schema_flatten(s, a);
    b = schema_flatten(s, b);
    if (!json_object_is_type(a, json_type_object) || !json_object_is_type(b, json_type_object))
        return false;
    a = copy(s, a);
    b = copy(s, b);
    if (!a || !b)
        return false;
    const_to_enum(s, a);
    const_to_enum(s, b);
    json_object *ea = member(a, "enum"), *eb = member(b, "enum");
    ea = json_object_is_type(ea, json_type_array) ? ea : NULL;
    eb = json_object_is_type(eb, json_type_array) ? eb : NULL;
    unsigned common = kinds_of(s, a, ea) & kinds_of(s, b, eb);
    if (!common)
        return true;
    if (ea && eb)
        return disjoint_values(ea, eb);
    return common == JSON_OBJECT && !ea && !eb && disjoint_objects(s, a, b, depth);
}

bool schema_disjoint(struct schema *s, json_object *a, json_object *b)
{
    return disjoint(s, a, b, 0);
}
