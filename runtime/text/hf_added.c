#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/text/hf.h"
#include "runtime/text/utf8.h"

static size_t verbatim(enum token_type type, const char *text, size_t n, char *out)
{
    (void)type;
    memcpy(out, text, n);
    return n;
}

int hf_matcher_build(struct hf_matcher *m, const struct hf_added *tokens, uint32_t n,
                     struct arena *a, struct err *e)
{
    struct vocab_text *texts = calloc((size_t)n + 1, sizeof(*texts));
    uint8_t *types = calloc((size_t)n + 1, sizeof(*types));
    int rc = 0;
    m->tokens = arena_calloc(a, (size_t)n + 1, sizeof(*tokens));
    if (!texts || !types || !m->tokens) {
        rc = err_set(e, ERR_NOMEM, "tokenizer: no memory for %u added tokens", n);
        goto out;
    }
    memcpy((void *)(uintptr_t)m->tokens, tokens, n * sizeof(*tokens));
    for (uint32_t i = 0; i < n; i++) {
        texts[i] = tokens[i].content;
        types[i] = tokens[i].special ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    }
    rc = vocab_build(&m->vocab, texts, types, n, a, verbatim, e);
    if (rc == 0)
        rc = specials_build(&m->plain, &m->vocab, 1u << TOKEN_USER_DEFINED, a, e);
    if (rc == 0)
        rc = specials_build(&m->all, &m->vocab, 1u << TOKEN_USER_DEFINED | 1u << TOKEN_CONTROL, a,
                            e);
out:
    free(texts);
    free(types);
    return rc;
}

/* Start of the character that ends at `end`. */
static size_t before(const char *text, size_t end)
{
    do
        end--;
    while (end && ((unsigned char)text[end] & 0xC0) == 0x80);
    return end;
}

static uint32_t code_at(const char *text, size_t start, size_t end)
{
    return utf8_code((const unsigned char *)text + start, end - start);
}

static size_t after(const char *text, size_t n, size_t start)
{
    return start + utf8_next((const unsigned char *)text + start, n - start).n;
}

static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 0x85 ||
           (utf8proc_category((utf8proc_int32_t)c) >= UTF8PROC_CATEGORY_ZS &&
            utf8proc_category((utf8proc_int32_t)c) <= UTF8PROC_CATEGORY_ZP);
}

/* \w of the Unicode regular expressions: letters, marks, decimal digits, connectors, joiners. */
static bool is_word(uint32_t c)
{
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default: /* and the circled letters, which are Alphabetic */
        return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
               (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
               (c >= 0x1F170 && c <= 0x1F189);
    }
}

static bool stands_alone(const char *text, size_t n, size_t start, size_t end)
{
    return !(start && is_word(code_at(text, before(text, start), start))) &&
           !(end < n && is_word(code_at(text, end, after(text, n, end))));
}

int hf_matcher_scan(const struct hf_matcher *m, bool special, const char *text, size_t n,
                    hf_part_fn *fn, void *arg)
{
    const struct specials *set = special ? &m->all : &m->plain;
    size_t done = 0, look = 0;
    int rc = 0;
    while (rc >= 0 && look < n) {
        uint32_t i = 0;
        size_t len = 0;
        size_t start = specials_find(set, text, n, look, &i, &len), end = start + len;
        if (len == 0)
            break;
        look = end;
        const struct hf_added *t = &m->tokens[i];
        if (t->single_word && !stands_alone(text, n, start, end))
            continue;
        while (t->lstrip && start > done && is_space(code_at(text, before(text, start), start)))
            start = before(text, start);
        while (t->rstrip && end < n && is_space(code_at(text, end, after(text, n, end))))
            end = after(text, n, end);
        if (start > done)
            rc = fn(arg, TOKENIZER_NONE, done, start);
        if (rc >= 0)
            rc = fn(arg, t->id, start, end);
        done = end;
    }
    if (rc >= 0 && done < n)
        rc = fn(arg, TOKENIZER_NONE, done, n);
    return rc < 0 ? rc : 0;
}
