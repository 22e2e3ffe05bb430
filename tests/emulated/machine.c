/* machine.c: which machine the emulated worker is on, by the environment, before main:
 *     SIMT_MACHINE="devices=1 capability=90 driver=13000 memory=1073741824 fail_malloc=0
 * lacks_cublaslt=0 seed=1" What it does not name is as runtime.c has it: an A100 with 80 GiB. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/simt.h"

static unsigned long long number(const char *text, const char *name, unsigned long long otherwise)
{
    const char *at = strstr(text, name);

    return at != NULL ? strtoull(at + strlen(name), NULL, 10) : otherwise;
}

__attribute__((constructor)) static void set_machine(void)
{
    const char *text = getenv("SIMT_MACHINE");

    if (text == NULL) {
        return;
    }
    unsigned long long capability = number(text, "capability=", 80);
    unsigned long long seed = number(text, "seed=", 1);
    simt_machine_set(&(struct simt_machine){
        .devices = (int)number(text, "devices=", 1),
        .major = (int)(capability / 10),
        .minor = (int)(capability % 10),
        .driver = (int)number(text, "driver=", 13000),
        .memory = number(text, "memory=", 80ull << 30),
        .lacks_cublaslt = number(text, "lacks_cublaslt=", 0) != 0,
        .fail_malloc = (unsigned)number(text, "fail_malloc=", 0),
    });
    simt_set(&(struct simt_options){.seed = seed, .eager_copies = seed % 2 == 0});
}
