/* dequantize_tool TYPE COLS: rows of a GGUF tensor on stdin, the same rows in fp32 on stdout, for
 * tests in Python. TYPE is the number of the file format. */
#include <stdio.h>
#include <stdlib.h>

#include "kernels/kernels.h"

int main(int argc, char **argv)
{
    int type = argc == 3 ? atoi(argv[1]) : -1;
    int64_t cols = argc == 3 ? atoll(argv[2]) : 0;

    if (cols <= 0 || !kn_serves(type, 1, cols)) {
        fprintf(stderr, "usage: dequantize_tool TYPE COLS (a type and a width that are served)\n");
        return 2;
    }
    size_t bytes = (size_t)(cols / kn_type_block(type)) * kn_type_block_bytes(type);
    unsigned char *row = malloc(bytes + 1);
    float *out = malloc((size_t)cols * sizeof *out);
    while (row != NULL && out != NULL && fread(row, 1, bytes, stdin) == bytes) {
        kn_dequantize_row(type, row, cols, out);
        fwrite(out, sizeof *out, (size_t)cols, stdout);
    }
    bool failed = row == NULL || out == NULL || ferror(stdin) || fflush(stdout) != 0;
    free(row);
    free(out);
    return failed;
}
