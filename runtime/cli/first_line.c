#include "runtime/cli/first_line.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int first_line_read(const char *path, char *text, size_t n, struct err *e)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(text, (int)n, f);
    if (f)
        fclose(f);
    if (!ok)
        return err_set(e, ERR_CONFIG, "%.200s: cannot be read, or is empty", path);
    text[strcspn(text, "\r\n")] = 0;
    return 0;
}
