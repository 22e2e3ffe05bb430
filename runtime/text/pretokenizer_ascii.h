/* pretokenizer_ascii.h: what the expressions of pretokenizer.c match, in text that is ASCII.
 *
 * Most text is, and asking a regular expression of whole Unicode costs ten times as much. Each
 * function finds the same as its expression, or says that it would have to know what a byte past
 * ASCII stands for. Pure; any thread.
 */
#ifndef ARGOSY_TEXT_PRETOKENIZER_ASCII_H
#define ARGOSY_TEXT_PRETOKENIZER_ASCII_H

#include <stdbool.h>
#include <stddef.h>

/* The next match at or after `at` (< n); n, n if there is none. False: it depends on a character
 * that is not ASCII, and nothing is set. */
typedef bool ascii_match_fn(const char *text, size_t n, size_t at, size_t *start, size_t *end);

ascii_match_fn ascii_digit;  /* one number */
ascii_match_fn ascii_gpt2;   /* openai/gpt-2 */
ascii_match_fn ascii_llama3; /* meta-llama/Meta-Llama-3: numbers of up to three digits */
ascii_match_fn ascii_qwen2;  /* Qwen/Qwen2: numbers of one digit */

#endif
