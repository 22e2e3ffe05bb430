/* regex.h: regular expressions, as far as an automaton can read them.
 *
 * Served: literals, . (anything but \n), classes [a-z] [^…], \d \w \s \D \W \S (ASCII for \d and
 * \w, as in ECMA-262; \s with Unicode's spaces), \t \n \r \f \v \0 \xHH \uHHHH \u{H…}, escaped
 * punctuation, groups (…) (?:…) (?<name>…) (?P<name>…), alternation, * + ? {m} {m,} {m,n} and their
 * lazy forms, which match the same strings. ^ and $ at the ends of a top-level alternative. Refused
 * by name: look-around, back-references, \b, \p{…}, flags, possessive quantifiers, atomic groups,
 * anchors elsewhere.
 */
#ifndef ARGOSY_GRAMMAR_REGEX_H
#define ARGOSY_GRAMMAR_REGEX_H

#include "runtime/grammar/syntax.h"

enum regex_form {
    REGEX_PLAIN, /* matches all of the output; ^ and $ say nothing more */
    /* The inside of a JSON string: found anywhere in it unless ^ and $ stand at the ends, as JSON
     * schema's `pattern` asks. */
    REGEX_IN_JSON_STRING
};

uint32_t regex_parse(struct syntax *y, const char *text, size_t n, enum regex_form form);
/* Any one character of a JSON string. */
uint32_t regex_json_char(struct syntax *y);

#endif
