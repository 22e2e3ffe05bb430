/* gbnf.h: grammars in llama.cpp's notation.
 *
 *     root ::= "[" ws item ("," ws item)* "]"   # the first symbol is root
 *     item ::= [0-9]{1,3} | "\"" [^"\\\x00-\x1f]* "\""
 *     ws   ::= [ \t\n]*
 *
 * Literals and classes with \n \r \t \\ \" \[ \] \xHH \uHHHH \UHHHHHHHH, . (any character), groups,
 * * + ? {m} {m,} {m,n}, alternatives, comments. A rule ends with its line unless it stands in a
 * group or the next begins with |. Left recursion is fine.
 * Ours: %json {…} is JSON by that schema (json_schema.h), white space by `space`. Refused: tokens
 * by id or name (<…>), rules that are used and not defined, or defined twice.
 */
#ifndef ARGOSY_GRAMMAR_GBNF_H
#define ARGOSY_GRAMMAR_GBNF_H

#include "runtime/base/buf.h"
#include "runtime/grammar/syntax.h"

/* The number of the rule "root". */
uint32_t gbnf_parse(struct syntax *y, const char *text, size_t n, enum grammar_space space);

/* Appends n bytes of UTF-8 as a literal, quotes and all. */
void gbnf_add_literal(struct buf *b, const char *s, size_t n);

#endif
