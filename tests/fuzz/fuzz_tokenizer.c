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
static const char
    *words[N_MERGES]; /* the texts of tokens 256 on; some are there twice and then empty */

/* GPT-2's byte alphabet: what prints stands for itself, the rest follows from U+0100 on. */
static void add_byte(struct buf *b, unsigned byte)
{
    uint32_t code = 0x100;
    for (unsigned k = 0; k < 256; k++) {
        bool prints = (k >= '!' && k <= '~') || (k >= 0xA1 && k != 0xAD);
        if (k == byte) {
            utf8_add_code(b, prints ? k : code);
            return;
        }
        code += !prints;
    }
}

static void add_len(struct buf *b, uint64_t n)
{
    buf_add(b, &n, sizeof(n));
}

static void add_text(struct buf *b, const char *s, bool encoded)
{
    struct buf t;
    buf_init(&t, 0);
    for (; *s; s++) {
        if (encoded)
            add_byte(&t, (unsigned char)*s);
        else
            buf_addc(&t, *s);
    }
    add_len(b, t.len);
    buf_add(b, buf_str(&t), t.len);
    buf_release(&t);
}

static void add_key(struct buf *b, const char *key, uint32_t type)
{
    add_text(b, key, false);
    buf_add(b, &type, sizeof(type));
}

static void add_array(struct buf *b, const char *key, uint32_t type, uint64_t n)
{
    add_key(b, key, GGUF_ARRAY);
    buf_add(b, &type, sizeof(type));
    add_len(b, n);
}

static void write_model(struct buf *b, const char *pre)
{
    uint32_t version = 3;
    buf_adds(b, "GGUF");
    buf_add(b, &version, sizeof(version));
    add_len(b, 0);
    add_len(b, 5);
    add_key(b, "tokenizer.ggml.model", GGUF_STRING);
    add_text(b, "gpt2", false);
    add_key(b, "tokenizer.ggml.pre", GGUF_STRING);
    add_text(b, pre, false);
    add_array(b, "tokenizer.ggml.tokens", GGUF_STRING, 256 + N_MERGES + ARRAY_LEN(CONTROL));
    for (unsigned i = 0; i < 256; i++) {
        struct buf one;
        buf_init(&one, 0);
        add_byte(&one, i);
        add_text(b, buf_str(&one), false);
        buf_release(&one);
    }
    for (size_t i = 0; i < N_MERGES; i++)
        add_text(b, words[i], true);
    for (size_t i = 0; i < ARRAY_LEN(CONTROL); i++)
        add_text(b, CONTROL[i], false);
    add_array(b, "tokenizer.ggml.token_type", GGUF_I32, 256 + N_MERGES + ARRAY_LEN(CONTROL));
    for (uint32_t i = 0; i < 256 + N_MERGES + ARRAY_LEN(CONTROL); i++) {
        uint32_t type = i < 256 + N_MERGES ? TOKEN_NORMAL : TOKEN_CONTROL;
        buf_add(b, &type, sizeof(type));
    }
    add_array(b, "tokenizer.ggml.merges", GGUF_STRING, N_MERGES);
    for (size_t i = 0; i < N_MERGES; i++) {
        struct buf pair;
        buf_init(&pair, 0);
        for (int k = 0; k < 2; k++) {
            for (const char *s = MERGES[i][k]; *s; s++)
                add_byte(&pair, (unsigned char)*s);
            if (k == 0)
                buf_addc(&pair, ' ');
        }
        add_text(b, buf_str(&pair), false);
        buf_release(&pair);
    }
}

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
        struct buf b;
        struct gguf *g = NULL;
        struct err e;
        buf_init(&b, 0);
        write_model(&b, PRES[i]);
        ASSERT(gguf_open_mem(b.data, b.len, &g, &e) == 0);
        ASSERT(tokenizer_load(g, &tokenizers[i], &e) == 0);
        ASSERT(pretokenizer_create(PRES[i], strlen(PRES[i]), &pres[i], &e) == 0);
        gguf_close(g);
        buf_release(&b);
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
