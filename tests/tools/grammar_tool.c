/* grammar_tool MODEL.gguf: constrained decoding for tests in Python.
 *
 * Requests on stdin until it ends: a byte, a u32 count and that many bytes. Answers on stdout: a
 * u32 count and that many bytes. Little-endian. An answer of 'e' and words is an error. 'v' for
 * each token: u32 length, with bit 31 if it ends generation; bytes 'j' 'o' 'r' 'g' compiles JSON
 * schema, JSON object, regex, GBNF. The payload's first byte is enum grammar_space as a digit; the
 * rest is the text. Answers 'k', u64 nanoseconds, u64 bytes of grammar, u64 bytes of state 'm' 'k',
 * u64 nanoseconds, the mask 'a' u32 token              'k' 'c'                        back to the
 * beginning: 'k' 'f'                        'k' and the forced bytes
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/clock.h"
#include "runtime/grammar/grammar.h"

static struct token_trie *trie;
static struct grammar *grammar;
static struct grammar_state *state;

static void fail(const char *what)
{
    fprintf(stderr, "grammar_tool: %s\n", what);
    exit(1);
}

static void vocab(struct buf *out)
{
    for (uint32_t i = 0; i < token_trie_vocab_size(trie); i++) {
        size_t n;
        const char *bytes = token_trie_bytes(trie, i, &n);
        uint32_t head = (uint32_t)n | (token_trie_is_eog(trie, i) ? 1u << 31 : 0);
        buf_add(out, &head, 4);
        buf_add(out, bytes, n);
    }
}

static int compile(int op, const char *text, uint32_t n, struct buf *out, struct err *e)
{
    struct grammar_options o;
    grammar_options_default(&o);
    enum grammar_kind kind = op == 'j'   ? GRAMMAR_JSON_SCHEMA
                             : op == 'o' ? GRAMMAR_JSON_OBJECT
                             : op == 'r' ? GRAMMAR_REGEX
                                         : GRAMMAR_GBNF;
    if (!n)
        return err_set(e, ERR_FORMAT, "no payload");
    o.space = (enum grammar_space)(text[0] - '0');
    grammar_state_free(state);
    grammar_free(grammar);
    state = NULL;
    grammar = NULL;
    uint64_t from = clock_mono_ns();
    int rc = grammar_compile(kind, text + 1, n - 1, trie, &o, &grammar, e);
    uint64_t ns = clock_mono_ns() - from;
    if (rc == 0)
        rc = grammar_state_create(grammar, &state, e);
    if (rc)
        return rc;
    uint64_t sizes[3] = {ns, grammar_memory_bytes(grammar), grammar_state_memory_bytes(state)};
    buf_addc(out, 'k');
    buf_add(out, sizes, sizeof sizes);
    return 0;
}

static int mask(struct buf *out, struct err *e)
{
    size_t words = token_trie_mask_words(trie);
    uint32_t *bits = malloc(words * sizeof *bits);
    uint64_t from = clock_mono_ns();
    int rc = bits ? grammar_mask(state, bits, e) : err_set(e, ERR_NOMEM, "no memory");
    uint64_t ns = clock_mono_ns() - from;
    if (!rc) {
        buf_addc(out, 'k');
        buf_add(out, &ns, 8);
        buf_add(out, bits, words * sizeof *bits);
    }
    free(bits);
    return rc;
}

static int forced(struct buf *out)
{
    char bytes[256];
    size_t n = grammar_forced(state, bytes, sizeof bytes);
    buf_addc(out, 'k');
    buf_add(out, bytes, n);
    return 0;
}

static int serve(int op, const char *payload, uint32_t n, struct buf *out, struct err *e)
{
    uint32_t token;
    int rc = 0;
    if (op == 'v') {
        vocab(out);
        return 0;
    }
    if (strchr("jorg", op))
        return compile(op, payload, n, out, e);
    if (!state)
        return err_set(e, ERR_NOT_FOUND, "nothing is compiled");
    if (op == 'm')
        return mask(out, e);
    if (op == 'f')
        return forced(out);
    if (op == 'c') {
        grammar_state_clear(state);
    } else if (op == 'a' && n == 4) {
        memcpy(&token, payload, 4);
        rc = grammar_accept(state, token, e);
    } else {
        return err_set(e, ERR_FORMAT, "no such request");
    }
    if (!rc)
        buf_addc(out, 'k');
    return rc;
}

static void load(const char *path)
{
    struct gguf *g;
    struct tokenizer *t;
    struct err e;
    if (gguf_open(path, &g, &e) < 0 || tokenizer_load(g, &t, &e) < 0 ||
        token_trie_of_tokenizer(t, &trie, &e) < 0)
        fail(e.msg);
    gguf_close(g);
    tokenizer_free(t);
}

int main(int argc, char **argv)
{
    int op;
    uint32_t n;
    struct buf out;
    if (argc != 2)
        fail("usage: grammar_tool MODEL.gguf");
    load(argv[1]);
    buf_init(&out, 0);
    while ((op = getchar()) != EOF && fread(&n, 4, 1, stdin) == 1) {
        struct err e = {0};
        char *payload = malloc((size_t)n + 1);
        if (!payload || fread(payload, 1, n, stdin) != n)
            fail("stdin");
        buf_clear(&out);
        if (serve(op, payload, n, &out, &e) < 0) {
            buf_clear(&out);
            buf_addf(&out, "e%s", e.msg);
        }
        uint32_t count = (uint32_t)out.len;
        if (out.failed || fwrite(&count, 4, 1, stdout) != 1 ||
            fwrite(buf_str(&out), 1, count, stdout) != count || fflush(stdout) != 0)
            fail("stdout");
        free(payload);
    }
    buf_release(&out);
    grammar_state_free(state);
    grammar_free(grammar);
    token_trie_free(trie);
    return 0;
}
