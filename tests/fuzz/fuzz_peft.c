/* Any bytes as an adapter_config.json: refused with a reason, or a rank and a scale within bounds.
 */
#include <math.h>

#include "runtime/base/check.h"
#include "runtime/format/peft.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct peft_config c;
    struct err e = {0};
    if (peft_config_read((const char *)data, n, &c, &e) < 0) {
        ASSERT(e.code < 0 && e.msg[0]);
        return 0;
    }
    ASSERT(c.rank >= 1 && c.rank <= PEFT_RANK_MAX && isfinite(c.scale));
    return 0;
}
