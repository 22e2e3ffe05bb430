/* dequantize_tool TYPE COLS: rows of a GGUF tensor on stdin, the same rows in fp32 on stdout, for
 * tests in Python. TYPE is the number of the file format. `dequantize_tool q8_0 COLS` does the
 * opposite, to Q8_0; status 3 when a row is refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"

static int quantize(int64_t cols)
{
    int status = 0;
    size_t bytes = (size_t)(cols / KN_BLOCK) * kn_type_block_bytes(KN_Q8_0);
    float *row = malloc((size_t)cols * sizeof *row);
    unsigned char *out = malloc(bytes);
    while (row != NULL && out != NULL && status == 0 &&
           fread(row, sizeof *row, (size_t)cols, stdin) == (size_t)cols) {
        status = kn_quantize_q8_0(row, cols, out) ? 0 : 3;
        fwrite(out, 1, status ? 0 : bytes, stdout);
    }
    status = row == NULL || out == NULL || ferror(stdin) || fflush(stdout) != 0 ? 1 : status;
    free(row);
    free(out);
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "q8_0") == 0 && kn_serves(KN_Q8_0, 1, atoll(argv[2])))
        return quantize(atoll(argv[2]));
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
