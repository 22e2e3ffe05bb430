/* Any bytes as a model file: the reader refuses or every answer lies inside the file; then the
 * tokenizer's loader over what was read. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/format/gguf.h"
#include "runtime/text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void inside(const uint8_t *data, size_t n, const void *p, uint64_t bytes)
{
    const uint8_t *q = p;
    ASSERT(q >= data && bytes <= n && (size_t)(q - data) <= n - bytes);
}

static void read_keys(const struct gguf *g, const uint8_t *data, size_t n)
{
    static const char *const keys[] = {"general.alignment",
                                       "general.name",
                                       "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.scores",
                                       "a",
                                       ""};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct gguf_array a = {0};
        struct gguf_str s = {(const char *)data, 0};
        struct err e;
        uint64_t u = 0, steps = 0;
        int64_t v;
        float f;
        bool b;
        gguf_u64(g, keys[i], GGUF_OPTIONAL, &u, &e);
        gguf_f32(g, keys[i], GGUF_OPTIONAL, &f, &e);
        gguf_bool(g, keys[i], GGUF_OPTIONAL, &b, &e);
        gguf_str(g, keys[i], GGUF_OPTIONAL, &s, &e);
        inside(data, n, s.s, s.n);
        gguf_array(g, keys[i], GGUF_OPTIONAL, &a, &e);
        ASSERT(a.count <= n);
        for (; gguf_next_str(&a, &s); steps++)
            inside(data, n, s.s, s.n);
        while (gguf_next_i64(&a, &v) || gguf_next_f32(&a, &f))
            steps++;
        ASSERT(steps <= a.count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (gguf_open_mem(data, n, &g, &e) < 0) {
        ASSERT(!g && e.code < 0 && e.msg[0]);
        return 0;
    }
    for (uint64_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *w = gguf_tensor_at(g, i);
        ASSERT(gguf_find_tensor(g, w->name) == w);
        if (w->data)
            inside(data, n, w->data, w->bytes);
    }
    read_keys(g, data, n);
    int rc = tokenizer_load(g, &t, &e);
    gguf_close(g);
    if (rc == 0) {
        struct tokenvec ids;
        tokenvec_init(&ids, 0);
        tokenizer_encode(t, (const char *)data, n < 200 ? n : 200, TOKENIZER_PARSE_SPECIAL, &ids,
                         &e);
        for (size_t i = 0; i < ids.n; i++)
            ASSERT(ids.ids[i] < tokenizer_vocab_size(t));
        tokenvec_release(&ids);
    }
    tokenizer_free(t);
    return 0;
}
