/* JSON schemas: compiled within small limits, then walked a few steps.
 *
 * Input: the first byte chooses white space, the second the walk's seed; the rest is the schema.
 */
#include "tests/fuzz/grammar_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n >= 2)
        grammar_walk(GRAMMAR_JSON_SCHEMA, data[0] % 3, data[1], (const char *)data + 2, n - 2);
    return 0;
}
