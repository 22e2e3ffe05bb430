/* Any bytes as text, over a small vocabulary made here: against merging by hand, and back to the
 * text.
 *
 * The first byte picks the pre-tokeniser and the flags.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/text/detok.h"
#include "runtime/text/nfc.h"
#include "runtime/text/pretokenizer.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"
#include "tests/unit/runtime/text/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const PRES[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};
#define LLAMA 2
#define QWEN 3

/* Ranks by position. Overlaps and chains on purpose; in bytes, as everything here. */
static const char *const MERGES[][2] = {
    {"a", "a"},  {"aa", "aa"}, {"a", "b"},     {"b", "a"},       {"ab", "ab"},         {"aa", "a"},
    {" ", " "},  {"  ", "  "}, {" ", "a"},     {"\xC3", "\xA9"}, {"1", "1"},           {"b", "b"},
    {"a", "bb"}, {"ab", "b"},  {"aaaa", "aa"}, {"\xCC", "\x81"}, {"e", "\xCC"},        {"\n", "\n"},
    {"'", "s"},  {"bb", "bb"}, {"ba", "ab"},   {"\xE6", "\x97"}, {"\xE6\x97", "\xA5"},
};
#define N_MERGES ARRAY_LEN(MERGES)
static const char *const CONTROL[] = {"<|im_end|>", "<|im_end|>x", "<|a|>", "</s>"};
#define FIRST_MERGED 256u

static struct tokenizer *tokenizers[ARRAY_LEN(PRES)];
static struct pretokenizer *pres[ARRAY_LEN(PRES)];
static const char *words[N_MERGES]; /* of tokens 256 on; empty for a text that an earlier one has */

static void name_words(void)
{
    static char texts[N_MERGES][16];
    for (size_t i = 0; i < N_MERGES; i++) {
        words[i] = strcat(strcpy(texts[i], MERGES[i][0]), MERGES[i][1]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(words[k], words[i]) == 0)
                words[i] = "";
    }
}

static void load_all(void)
{
    name_words();
    for (size_t i = 0; i < ARRAY_LEN(PRES); i++) {
        struct tiny_model m = {.pre = PRES[i],
                               .merges = MERGES,
                               .n_merges = N_MERGES,
                               .control = CONTROL,
                               .n_control = ARRAY_LEN(CONTROL),
                               .bos = -1,
                               .eos = -1};
        ASSERT(tiny_model_load(&m, &tokenizers[i], NULL) == 0);
        ASSERT(pretokenizer_create(PRES[i], strlen(PRES[i]), &pres[i], NULL) == 0);
    }
}

/* The id of exactly these bytes among bytes and words. */
static uint32_t id_of(const char *s, size_t n)
{
    if (n == 1)
        return (unsigned char)s[0];
    for (uint32_t i = 0; i < N_MERGES; i++)
        if (strlen(words[i]) == n && memcmp(words[i], s, n) == 0)
            return FIRST_MERGED + i;
    return TOKENIZER_NONE;
}

struct naive {
    struct tokenvec ids;
    bool whole_words;
};

/* BPE as its definition has it: again and again the pair of lowest rank, leftmost, until there is
 * none. */
static int naive_word(void *arg, const char *word, size_t n)
{
    struct naive *out = arg;
    uint32_t whole = id_of(word, n);
    if (out->whole_words && whole != TOKENIZER_NONE)
        return tokenvec_add(&out->ids, whole);
    size_t *cuts = calloc(n + 1, sizeof(*cuts)), k = n; /* symbol i is [cuts[i], cuts[i + 1]) */
    for (size_t i = 0; i <= n; i++)
        cuts[i] = i;
    for (;;) {
        size_t best = N_MERGES, at = 0;
        for (size_t i = 0; i + 1 < k; i++) {
            size_t l = cuts[i + 1] - cuts[i], r = cuts[i + 2] - cuts[i + 1];
            for (size_t m = 0; m < best; m++)
                if (strlen(MERGES[m][0]) == l && strlen(MERGES[m][1]) == r &&
                    !memcmp(MERGES[m][0], word + cuts[i], l) &&
                    !memcmp(MERGES[m][1], word + cuts[i + 1], r)) {
                    best = m;
                    at = i;
                }
        }
        if (best == N_MERGES)
            break;
        memmove(cuts + at + 1, cuts + at + 2, (k - at - 1) * sizeof(*cuts));
        k--;
    }
    for (size_t i = 0; i < k; i++)
        tokenvec_add(&out->ids, id_of(word + cuts[i], cuts[i + 1] - cuts[i]));
    free(cuts);
    return 0;
}

static void check_form_c(const struct buf *text, const struct buf *form_c)
{
    utf8proc_uint8_t *theirs = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)buf_str(text), (utf8proc_ssize_t)text->len, &theirs,
                     UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    ASSERT(n >= 0 && (size_t)n == form_c->len && !memcmp(theirs, buf_str(form_c), form_c->len));
    if (nfc_is_plain(buf_str(text), text->len))
        ASSERT(form_c->len == text->len && !memcmp(buf_str(form_c), buf_str(text), text->len));
    free(theirs);
}

static void check_back(const struct tokenizer *t, const struct tokenvec *ids,
                       const struct buf *want)
{
    struct detok d;
    struct buf back;
    buf_init(&back, 0);
    detok_init(&d, true);
    for (size_t i = 0; i < ids->n; i++)
        detok_feed(&d, t, ids->ids[i], &back);
    detok_flush(&d, &back);
    ASSERT(back.len == want->len && !memcmp(buf_str(&back), buf_str(want), want->len));
    buf_release(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static bool loaded;
    struct buf text, form_c;
    struct tokenvec ids;
    struct naive naive = {0};
    struct err e;
    if (!loaded)
        load_all();
    loaded = true;
    if (n == 0)
        return 0;
    size_t which = data[0] % ARRAY_LEN(PRES);
    bool special = data[0] & 0x80;
    const struct tokenizer *t = tokenizers[which];
    tokenvec_init(&ids, 0);
    ASSERT(tokenizer_encode(t, (const char *)data + 1, n - 1, special ? TOKENIZER_PARSE_SPECIAL : 0,
                            &ids, &e) == 0);
    buf_init(&text, 0);
    buf_init(&form_c, 0);
    utf8_add_lossy(&text, (const char *)data + 1, n - 1);
    ASSERT(nfc_add(&form_c, buf_str(&text), text.len));
    check_form_c(&text, &form_c);
    const struct buf *want = which == QWEN ? &form_c : &text;
    if (!special) {
        naive.whole_words = which == LLAMA;
        ASSERT(pretokenizer_split(pres[which], buf_str(want), want->len, naive_word, &naive, &e) ==
               0);
        ASSERT(naive.ids.n == ids.n && (!ids.n || !memcmp(naive.ids.ids, ids.ids, ids.n * 4)));
    }
    if (!special || which != QWEN) /* special tokens part the text before it is normalised */
        check_back(t, &ids, want);
    tokenvec_release(&naive.ids);
    tokenvec_release(&ids);
    buf_release(&text);
    buf_release(&form_c);
    return 0;
}
