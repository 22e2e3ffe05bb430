/* json_internal.h: what the files of the JSON schema front end share. */
#ifndef ARGOSY_GRAMMAR_JSON_INTERNAL_H
#define ARGOSY_GRAMMAR_JSON_INTERNAL_H

#include <json-c/json.h>

#include "runtime/base/buf.h"
#include "runtime/grammar/json_schema.h"

/* A schema whose rule is wanted. */
struct schema_ref {
    char *pointer; /* "#/$defs/node" */
    uint32_t rule;
};

struct schema {
    struct syntax *y;   /* borrowed */
    json_object *root;  /* owned */
    json_object **made; /* owned: what merging made */
    size_t n_made, cap_made;
    struct schema_ref *refs; /* a queue: those past `done` have no body yet */
    size_t n_refs, cap_refs, done;
    struct buf place; /* a pointer to what is being read, for messages */
    uint32_t depth;
    enum grammar_space space;
    /* Shared pieces; rules are SYNTAX_MANY until they are asked for. */
    uint32_t open_object, close_object, open_array, close_array, item_sep, key_sep;
    uint32_t character;
    uint32_t string_rule, number_rule, integer_rule, value_rule, object_rule, array_rule;
};

enum json_kind {
    JSON_NULL = 1,
    JSON_BOOLEAN = 2,
    JSON_INTEGER = 4,
    JSON_NUMBER = 8, /* and integers */
    JSON_STRING = 16,
    JSON_ARRAY = 32,
    JSON_OBJECT = 64,
    JSON_ANY = 1 | 2 | 8 | 16 | 32 | 64
};

/* 0 for what is no list: json-c would end the program. */
static inline size_t json_list_length(json_object *list)
{
    return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

/* Faults carry the place. */
uint32_t schema_fault(struct schema *s, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* json_schema.c: any value that the schema takes. `step` is added to the place meanwhile. */
uint32_t schema_value(struct schema *s, json_object *sch, const char *step);
uint32_t schema_rule_call(struct schema *s, uint32_t node);
/* The set of enum json_kind that the `type` and `nullable` of a schema allow. */
unsigned schema_kinds(struct schema *s, json_object *sch);
unsigned schema_kind_of_value(json_object *v);

/* json_merge.c */
/* A schema without $ref and allOf at its top that says the same. */
json_object *schema_flatten(struct schema *s, json_object *sch);
json_object *schema_merge(struct schema *s, json_object *a, json_object *b);
json_object *schema_resolve(struct schema *s, const char *pointer);
/* A copy of an object's first level, less one key; owned by s. */
json_object *schema_without(struct schema *s, json_object *sch, const char *key);
/* Whether no value fits both. */
bool schema_disjoint(struct schema *s, json_object *a, json_object *b);

/* json_value.c: the shapes of JSON. */
void json_shapes_init(struct schema *s);
uint32_t json_any_string(struct schema *s);
uint32_t json_any_number(struct schema *s);
uint32_t json_any_integer(struct schema *s);
uint32_t json_any_value(struct schema *s);
uint32_t json_any_object(struct schema *s);
uint32_t json_any_array(struct schema *s);
/* A string written as it is. */
uint32_t json_string_literal(struct schema *s, const char *text, size_t n);
/* Any one value written as it is. */
uint32_t json_literal(struct schema *s, json_object *v);
/* A string that is none of these. */
uint32_t json_string_except(struct schema *s, const char *const *names, size_t n);

/* json_string.c */
uint32_t schema_string(struct schema *s, json_object *sch);
/* Two keywords that count something; *any: one of them is there. False: a fault. */
bool schema_counts(struct schema *s, json_object *sch, const char *min_key, const char *max_key,
                   uint32_t *min, uint32_t *max, bool *any);

#endif
