/* first_line.h: secrets that are kept in files: a password, a key. */
#ifndef ARGOSY_CLI_FIRST_LINE_H
#define ARGOSY_CLI_FIRST_LINE_H

#include <stddef.h>

#include "runtime/base/err.h"

/* The first line of a file, without its end, in `text` of n bytes. */
int first_line_read(const char *path, char *text, size_t n, struct err *e);

#endif
