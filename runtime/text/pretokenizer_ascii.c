#include "runtime/text/pretokenizer_ascii.h"

#include <stdint.h>

enum kind { OTHER, SPACE, LETTER, NUMBER, BEYOND };

static enum kind kind_of(char ch)
{
    unsigned char c = (unsigned char)ch;
    if ((unsigned)((c | 0x20) - 'a') < 26)
        return LETTER;
    if (c == ' ' || (unsigned)(c - '\t') <= '\r' - '\t')
        return SPACE;
    if ((unsigned)(c - '0') < 10)
        return NUMBER;
    return c < 0x80 ? OTHER : BEYOND;
}

/* Where the characters of a kind that begin at `i` end. */
static size_t run_of(enum kind kind, const char *text, size_t n, size_t i)
{
    while (i < n && kind_of(text[i]) == kind)
        i++;
    return i;
}

static bool is_beyond(const char *text, size_t n, size_t i)
{
    return i < n && (unsigned char)text[i] >= 0x80;
}

/* The length of 's, 't, 're, 've, 'm, 'll or 'd at the start of the text, or 0. `fold`: 0, or 0x20
 * for either case. */
static size_t contraction(const char *text, size_t n, char fold)
{
    if (n < 2 || text[0] != '\'')
        return 0;
    char a = (char)(text[1] | fold), b = n > 2 ? (char)(text[2] | fold) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* White space that is a word by itself: all of it, but for the last when something follows. */
static size_t space_word(const char *text, size_t n)
{
    size_t end = run_of(SPACE, text, n, 0);
    if (is_beyond(text, n, end))
        return 0;
    return end < n && end > 1 ? end - 1 : end;
}

/* ---- words: the length of the one that the text starts with; 0: not known -----------------------
 */

static size_t gpt2_word(const char *text, size_t n)
{
    size_t end = contraction(text, n, 0);
    if (end)
        return end;
    size_t first = text[0] == ' ' && n > 1;
    enum kind kind = kind_of(text[first]);
    if (kind == BEYOND)
        return 0;
    if (kind == SPACE)
        return space_word(text, n);
    end = run_of(kind, text, n, first);
    return is_beyond(text, n, end) ? 0 : end;
}

/* Spaces up to the last line's end among them, or as GPT-2 has them. */
static size_t llama3_space(const char *text, size_t n)
{
    size_t end = run_of(SPACE, text, n, 0);
    if (is_beyond(text, n, end))
        return 0;
    for (size_t i = end; i > 0; i--)
        if (text[i - 1] == '\r' || text[i - 1] == '\n')
            return i;
    return space_word(text, n);
}

static size_t llama3_word(const char *text, size_t n, size_t digits_max)
{
    enum kind kind = kind_of(text[0]);
    if (kind == BEYOND || is_beyond(text, n, 1)) /* a letter, or an s of another case */
        return 0;
    size_t end = contraction(text, n, 0x20);
    if (end)
        return end;
    bool joins = kind != NUMBER && text[0] != '\r' && text[0] != '\n' && n > 1;
    if (kind == LETTER || (joins && kind_of(text[1]) == LETTER)) {
        end = run_of(LETTER, text, n, 1);
        return is_beyond(text, n, end) ? 0 : end;
    }
    if (kind == NUMBER) {
        end = run_of(NUMBER, text, n < digits_max ? n : digits_max, 0);
        return end < digits_max && is_beyond(text, n, end) ? 0 : end;
    }
    size_t first = text[0] == ' ' && n > 1;
    if (kind_of(text[first]) != OTHER)
        return llama3_space(text, n);
    end = run_of(OTHER, text, n, first);
    if (is_beyond(text, n, end))
        return 0;
    while (end < n && (text[end] == '\r' || text[end] == '\n'))
        end++;
    return end;
}

/* ---- the matches -------------------------------------------------------------------------------
 */

static bool word_at(size_t at, size_t length, size_t *start, size_t *end)
{
    if (length == 0)
        return false;
    *start = at;
    *end = at + length;
    return true;
}

bool ascii_digit(const char *text, size_t n, size_t at, size_t *start, size_t *end)
{
    size_t i = at;
    while (i < n && (unsigned char)text[i] < 0x80 && kind_of(text[i]) != NUMBER)
        i++;
    if (is_beyond(text, n, i))
        return false;
    *start = i;
    *end = i < n ? i + 1 : n;
    return true;
}

bool ascii_gpt2(const char *text, size_t n, size_t at, size_t *start, size_t *end)
{
    return word_at(at, gpt2_word(text + at, n - at), start, end);
}

bool ascii_llama3(const char *text, size_t n, size_t at, size_t *start, size_t *end)
{
    return word_at(at, llama3_word(text + at, n - at, 3), start, end);
}

bool ascii_qwen2(const char *text, size_t n, size_t at, size_t *start, size_t *end)
{
    return word_at(at, llama3_word(text + at, n - at, 1), start, end);
}
