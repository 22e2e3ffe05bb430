/* json_string.c: strings with a length, a pattern or a format (json_internal.h). */
#include <string.h>

#include "runtime/grammar/json_internal.h"
#include "runtime/grammar/regex.h"

#define LENGTH_MAX 100000

#define DATE                                                                                     \
    "((000[1-9]|00[1-9][0-9]|0[1-9][0-9]{2}|[1-9][0-9]{3})-((0[13578]|1[02])-(0[1-9]|[12][0-9]|" \
    "3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|"                       \
    "([0-9]{2}(0[48]|[2468][048]|[13579][26])|(0[48]|[2468][048]|[13579][26])00)-02-29)"
#define TIME                                                                                       \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]" \
    ")"
#define OCTET "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(\\." OCTET "){3}"
#define LABEL "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
#define ATOM "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+"
#define H16 "[0-9a-fA-F]{1,4}"
#define PCHAR "([a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9a-fA-F]{2})"

/* Each no wider than its RFC: what it lets through is valid, though not all that is valid. */
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration",
     "P([0-9]+W|([0-9]+Y([0-9]+M([0-9]+D)?)?|[0-9]+M([0-9]+D)?|[0-9]+D)(T([0-9]+H([0-9]+M"
     "([0-9]+S)?)?|[0-9]+M([0-9]+S)?|[0-9]+S))?|T([0-9]+H([0-9]+M([0-9]+S)?)?|[0-9]+M("
     "[0-9]+S)?|[0-9]+S))"},
    {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
    {"email", ATOM "(\\." ATOM ")*@" LABEL "(\\." LABEL ")+"},
    {"hostname", LABEL "(\\." LABEL "){0,7}"},
    {"ipv4", IPV4},
    {"ipv6", "((" H16 ":){7}" H16 "|(" H16 ":){1,7}:|(" H16 ":){1,6}:" H16 "|(" H16 ":){1,5}(:" H16
             "){1,2}|(" H16 ":){1,4}(:" H16 "){1,3}|(" H16 ":){1,3}(:" H16 "){1,4}|(" H16
             ":){1,2}(:" H16 "){1,5}|" H16 ":(:" H16 "){1,6}|:(:" H16 "){1,7}|::|(" H16 ":){6}" IPV4
             "|::(" H16 ":){0,5}" IPV4 ")"},
    {"uri", "[a-zA-Z][a-zA-Z0-9+.-]*://" LABEL "(\\." LABEL ")*(:[0-9]{1,5})?(/" PCHAR
            "*)*(\\?(" PCHAR "|[/?])*)?(#(" PCHAR "|[/?])*)?"},
};

static uint32_t by_format(struct schema *s, const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (!strcmp(formats[i].name, name))
            return regex_parse(s->y, formats[i].pattern, strlen(formats[i].pattern), REGEX_PLAIN);
    return schema_fault(s, ERR_UNSUPPORTED, "format \"%s\" is not served", name);
}

static uint32_t by_pattern(struct schema *s, json_object *pattern)
{
    if (!json_object_is_type(pattern, json_type_string))
        return schema_fault(s, ERR_FORMAT, "pattern is not a string");
    uint32_t out = regex_parse(s->y, json_object_get_string(pattern),
                               (size_t)json_object_get_string_len(pattern), REGEX_IN_JSON_STRING);
    if (s->y->failed && s->y->e)
        err_prefix(s->y->e, "at %s: pattern", buf_str(&s->place));
    return out;
}

/* *out unless the key is absent. False: a fault. */
static bool length(struct schema *s, json_object *sch, const char *key, uint32_t *out, bool *there)
{
    json_object *v = NULL;
    *there = json_object_object_get_ex(sch, key, &v);
    if (!*there)
        return true;
    int64_t i = json_object_get_int64(v);
    bool whole =
        json_object_is_type(v, json_type_int) ||
        (json_object_is_type(v, json_type_double) && json_object_get_double(v) == (double)i);
    if (!whole || i < 0)
        return schema_fault(s, ERR_FORMAT, "%s is not a whole number", key), false;
    if (i > LENGTH_MAX)
        return schema_fault(s, ERR_LIMIT, "%s is more than %d", key, LENGTH_MAX), false;
    *out = (uint32_t)i;
    return true;
}

bool schema_counts(struct schema *s, json_object *sch, const char *min_key, const char *max_key,
                   uint32_t *min, uint32_t *max, bool *any)
{
    bool has_min, has_max;
    *min = 0;
    *max = SYNTAX_MANY;
    if (!length(s, sch, min_key, min, &has_min) || !length(s, sch, max_key, max, &has_max))
        return false;
    *any = has_min || has_max;
    return true;
}

uint32_t schema_string(struct schema *s, json_object *sch)
{
    struct syntax *y = s->y;
    json_object *pattern = NULL, *format = NULL;
    bool has_pattern = json_object_object_get_ex(sch, "pattern", &pattern);
    bool has_format = json_object_object_get_ex(sch, "format", &format);
    bool counted;
    uint32_t min, max, inside;
    if (!schema_counts(s, sch, "minLength", "maxLength", &min, &max, &counted))
        return SYNTAX_FAIL;
    counted = counted && (min > 0 || max != SYNTAX_MANY);
    if (has_pattern + has_format + counted > 1)
        return schema_fault(s, ERR_UNSUPPORTED,
                            "pattern, format and a length can't be combined in one string");
    if (min > max)
        return SYNTAX_FAIL;
    if (has_pattern)
        inside = by_pattern(s, pattern);
    else if (has_format && !json_object_is_type(format, json_type_string))
        return schema_fault(s, ERR_FORMAT, "format is not a string");
    else if (has_format)
        inside = by_format(s, json_object_get_string(format));
    else if (counted)
        inside = syntax_repeat(y, s->character, min, max);
    else
        return json_any_string(s);
    uint32_t quote = syntax_str(y, "\"");
    return schema_rule_call(s, syntax_cat3(y, quote, inside, quote));
}
