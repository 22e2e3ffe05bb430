/* Any bytes as a tokenizer.json: refused with words, or a tokenizer whose ids lie in its
 * vocabulary, for a text out of the same bytes. */
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/text/tokenizer_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    struct tokenvec ids;
    if (tokenizer_load_json_mem((const char *)data, n, &t, &e) < 0) {
        ASSERT(!t && e.code < 0 && e.msg[0]);
        return 0;
    }
    for (unsigned flags = 0; flags < 4; flags++) {
        tokenvec_init(&ids, 0);
        tokenizer_encode(t, (const char *)data, n < 300 ? n : 300, flags, &ids, &e);
        for (size_t i = 0; i < ids.n; i++) {
            size_t bytes;
            ASSERT(ids.ids[i] < tokenizer_vocab_size(t));
            ASSERT(tokenizer_token_bytes(t, ids.ids[i], true, &bytes));
        }
        tokenvec_release(&ids);
    }
    tokenizer_free(t);
    return 0;
}
