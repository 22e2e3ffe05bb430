/* tokenize_tool MODEL.gguf|tokenizer.json: the tokenizer for tests in Python.
 *
 * Requests on stdin until it ends: a byte 'e' (encode), 's' (encode, special tokens parsed), 'b'
 * (as 's', with BOS and EOS) or 'd' (decode), a u32 count, and that many bytes or u32 ids. Answers
 * on stdout: a u32 count and that many ids or bytes. Little-endian. Any error ends the program with
 * status 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/detok.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_json.h"

static void fail(const char *what)
{
    fprintf(stderr, "tokenize_tool: %s\n", what);
    exit(1);
}

static void put(const void *items, size_t size, size_t n)
{
    uint32_t count = (uint32_t)n;
    if (fwrite(&count, 4, 1, stdout) != 1 || fwrite(items, size, n, stdout) != n)
        fail("stdout");
}

static void encode(const struct tokenizer *t, int op, const char *text, uint32_t n)
{
    struct tokenvec ids;
    struct err e;
    unsigned flags = op == 'e' ? 0 : TOKENIZER_PARSE_SPECIAL;
    if (op == 'b')
        flags |= TOKENIZER_ADD_BOS_EOS;
    tokenvec_init(&ids, 0);
    if (tokenizer_encode(t, text, n, flags, &ids, &e) < 0)
        fail(e.msg);
    put(ids.n ? (const void *)ids.ids : "", sizeof(*ids.ids), ids.n);
    tokenvec_release(&ids);
}

static void decode(const struct tokenizer *t, const uint32_t *ids, uint32_t n)
{
    struct detok d;
    struct buf out;
    buf_init(&out, 0);
    detok_init(&d, true);
    for (uint32_t i = 0; i < n; i++)
        detok_feed(&d, t, ids[i], &out);
    detok_flush(&d, &out);
    put(buf_str(&out), 1, out.len);
    buf_release(&out);
}

int main(int argc, char **argv)
{
    struct gguf *g;
    struct tokenizer *t;
    struct err e;
    int op;
    uint32_t n;
    if (argc != 2)
        fail("usage: tokenize_tool MODEL.gguf|tokenizer.json");
    size_t len = strlen(argv[1]);
    if (len > 5 && !strcmp(argv[1] + len - 5, ".json")) {
        if (tokenizer_load_json(argv[1], &t, &e) < 0)
            fail(e.msg);
    } else {
        if (gguf_open(argv[1], &g, &e) < 0 || tokenizer_load(g, &t, &e) < 0)
            fail(e.msg);
        gguf_close(g);
    }
    while ((op = getchar()) != EOF && fread(&n, 4, 1, stdin) == 1) {
        size_t size = op == 'd' ? sizeof(uint32_t) : 1;
        void *payload = calloc((size_t)n + 1, size);
        if (!payload || fread(payload, size, n, stdin) != n)
            fail("stdin");
        if (op == 'd')
            decode(t, payload, n);
        else
            encode(t, op, payload, n);
        free(payload);
    }
    tokenizer_free(t);
    return fflush(stdout) == 0 ? 0 : 1;
}
