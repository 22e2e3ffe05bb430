#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "runtime/text/pretokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/text/charclass.h"
#include "runtime/text/pretokenizer_ascii.h"

#define SPACE CHARCLASS_SPACE
#define LETTER CHARCLASS_LETTER
#define NUMBER CHARCLASS_NUMBER
#define GPT2 CHARCLASS_GPT2
#define LLAMA3(numbers)                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n" LETTER NUMBER "]?[" LETTER "]+|[" NUMBER "]" numbers \
    "| ?[^" SPACE LETTER NUMBER "]+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|[" SPACE "]+(?![^" SPACE      \
    "])|[" SPACE "]+"

#define STAGES_MAX 2

struct definition {
    const char *names; /* as tokenizer.ggml.pre has them, a space after each */
    const char *stages[STAGES_MAX];
    ascii_match_fn *ascii[STAGES_MAX]; /* what each matches in ASCII */
    struct pretokenizer_traits traits;
};

static const struct definition DEFINITIONS[] = {
    /* openai/gpt-2 */
    {"gpt-2 gpt2 phi-2 ", {GPT2, NULL}, {ascii_gpt2}, {0}},
    /* HuggingFaceTB/SmolLM2: Digits(individual_digits), then ByteLevel(use_regex) */
    {"smollm starcoder refact codeshell ", {"[" NUMBER "]", GPT2}, {ascii_digit, ascii_gpt2}, {0}},
    /* meta-llama/Meta-Llama-3 */
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
     {LLAMA3("{1,3}"), NULL},
     {ascii_llama3},
     {.ignore_merges = true, .add_bos = true}},
    /* Qwen/Qwen2 */
    {"qwen2 deepseek-r1-qwen megrez kormo f2llmv2 ",
     {LLAMA3(""), NULL},
     {ascii_qwen2},
     {.nfc = true}},
};

struct pretokenizer {
    const struct definition *def;
    pcre2_code *codes[STAGES_MAX];
    int n_stages;
};

static const struct definition *find(const char *name, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(DEFINITIONS); i++) {
        const char *at = DEFINITIONS[i].names, *end;
        for (; (end = strchr(at, ' ')); at = end + 1)
            if ((size_t)(end - at) == n && memcmp(at, name, n) == 0)
                return &DEFINITIONS[i];
    }
    return NULL;
}

static int compile(const char *pattern, pcre2_code **out, struct err *e)
{
    int code;
    PCRE2_SIZE at;
    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code,
                         &at, NULL);
    if (!*out) {
        PCRE2_UCHAR words[128] = {0};
        pcre2_get_error_message(code, words, sizeof(words));
        return err_set(e, ERR_UNSUPPORTED, "pre-tokeniser: this PCRE2 refuses the pattern: %s",
                       (const char *)words);
    }
    /* Where the machine forbids making code at run time, pcre2_match interprets: the same words. */
    pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE);
    return 0;
}

int pretokenizer_create(const char *name, size_t n, struct pretokenizer **out, struct err *e)
{
    const struct definition *def = find(name, n);
    if (!def)
        return err_set(e, ERR_UNSUPPORTED, "tokenizer.ggml.pre '%.*s' is not served",
                       (int)(n < 40 ? n : 40), name);
    struct pretokenizer *p = calloc(1, sizeof(*p));
    if (!p)
        return err_set(e, ERR_NOMEM, "pre-tokeniser: no memory");
    int rc = 0;
    p->def = def;
    for (; rc == 0 && p->n_stages < STAGES_MAX && def->stages[p->n_stages]; p->n_stages++)
        rc = compile(def->stages[p->n_stages], &p->codes[p->n_stages], e);
    if (rc < 0)
        pretokenizer_free(p);
    else
        *out = p;
    return rc;
}

void pretokenizer_free(struct pretokenizer *p)
{
    if (!p)
        return;
    for (int i = 0; i < STAGES_MAX; i++)
        pcre2_code_free(p->codes[i]);
    free(p);
}

const struct pretokenizer_traits *pretokenizer_traits(const struct pretokenizer *p)
{
    return &p->def->traits;
}

size_t pretokenizer_memory_bytes(const struct pretokenizer *p)
{
    size_t total = sizeof(*p), n;
    for (int i = 0; i < p->n_stages; i++) {
        if (pcre2_pattern_info(p->codes[i], PCRE2_INFO_SIZE, &n) == 0)
            total += n;
        if (pcre2_pattern_info(p->codes[i], PCRE2_INFO_JITSIZE, &n) == 0)
            total += n;
    }
    return total;
}

/* One call of pretokenizer_split. */
struct split {
    const struct pretokenizer *p;
    pcre2_match_data *match[STAGES_MAX];
    pretokenizer_word_fn *fn;
    void *arg;
    struct err *e;
};

/* The next match at or after `at`, by PCRE2; n, n if there is none. */
static int match(struct split *s, int stage, const char *text, size_t n, size_t at, size_t *start,
                 size_t *end)
{
    if (!s->match[stage])
        s->match[stage] = pcre2_match_data_create(1, NULL);
    if (!s->match[stage])
        return err_set(s->e, ERR_NOMEM, "pre-tokeniser: no memory");
    int found = pcre2_match(s->p->codes[stage], (PCRE2_SPTR)text, n, at, PCRE2_NO_UTF_CHECK,
                            s->match[stage], NULL);
    if (found < 0 && found != PCRE2_ERROR_NOMATCH)
        return err_set(s->e, ERR_LIMIT, "pre-tokeniser: PCRE2 gave up on the text (%d)", found);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(s->match[stage]);
    *start = found < 0 ? n : span[0];
    *end = found < 0 ? n : span[1];
    return 0;
}

/* Cuts a piece by the expressions from `stage` on. At most STAGES_MAX deep. */
static int cut(struct split *s, int stage, const char *text, size_t n)
{
    if (stage == s->p->n_stages)
        return s->fn(s->arg, text, n);
    size_t at = 0;
    int rc = 0;
    while (at < n && rc >= 0) {
        size_t start, end;
        if (!s->p->def->ascii[stage](text, n, at, &start, &end))
            rc = match(s, stage, text, n, at, &start, &end);
        if (rc < 0)
            return rc;
        if (start > at)
            rc = cut(s, stage + 1, text + at, start - at);
        if (rc >= 0 && end > start)
            rc = cut(s, stage + 1, text + start, end - start);
        at = end;
    }
    return rc < 0 ? rc : 0;
}

int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t n,
                       pretokenizer_word_fn *fn, void *arg, struct err *e)
{
    struct split s = {.p = p, .fn = fn, .arg = arg, .e = e};
    int rc = cut(&s, 0, text, n);
    for (int i = 0; i < p->n_stages; i++)
        pcre2_match_data_free(s.match[i]);
    return rc;
}
