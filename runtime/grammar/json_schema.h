/* json_schema.h: JSON schema (draft 2020-12) as rules over the bytes of JSON.
 *
 * Served: type (one or several), properties, required, additionalProperties, enum, const, anyOf,
 * oneOf where no value fits two alternatives, allOf, $ref inside the document, recursive or not,
 * $defs and definitions, items, prefixItems, minItems, maxItems, minLength, maxLength, pattern,
 * format, minimum, maximum, exclusiveMinimum, exclusiveMaximum, nullable, true and false.
 * Annotations (title, description, default, examples …, x-*) are read past. Everything else, and
 * every combination that can't be kept, is refused with its name and place.
 *
 * What is generated is one of the ways of writing a valid value, namely: properties in the order of
 * the schema, then others; characters as they are where JSON allows (raw DEL is left out), else by
 * their letter, control characters also by number; integers without fraction;
 * bounded numbers without exponent; white space by enum grammar_space.
 */
#ifndef ARGOSY_GRAMMAR_JSON_SCHEMA_H
#define ARGOSY_GRAMMAR_JSON_SCHEMA_H

#include "runtime/grammar/syntax.h"

/* Both return the rule of the whole text. */
uint32_t json_schema_parse(struct syntax *y, const char *text, size_t n, enum grammar_space space);
uint32_t json_schema_any_object(struct syntax *y, enum grammar_space space);

#endif
