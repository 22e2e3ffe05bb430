#include "runtime/base/check.h"

#include <stdio.h>
#include <stdlib.h>

void check_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "argosy: %s:%d: assertion failed: %s (a bug: please report it)\n", file, line,
            expr);
    abort();
}
