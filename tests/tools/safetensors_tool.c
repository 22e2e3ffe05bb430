/* safetensors_tool PATH: what the reader finds, for tests in Python.
 *
 * A line of JSON for each tensor in the order of names: [name, dtype, shape, bytes, hash of the
 * bytes, whether safetensors_data gives it out]. An error ends the program with status 1 and its
 * words on stderr.
 */
#include <stdio.h>

#include "runtime/base/json.h"
#include "runtime/format/safetensors.h"

/* FNV-1a. */
static uint64_t hash(const unsigned char *p, uint64_t n)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (uint64_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}

static void print(struct buf *out, const struct safetensors_tensor *t)
{
    struct json w;
    const void *data;
    buf_clear(out);
    json_init(&w, out);
    json_arr(&w);
    json_str(&w, t->name);
    json_str(&w, t->dtype_name);
    json_arr(&w);
    for (uint32_t i = 0; i < t->n_dims; i++)
        json_uint(&w, t->shape[i]);
    json_arr_end(&w);
    json_uint(&w, t->bytes);
    json_uint(&w, hash(t->start, t->bytes));
    json_bool(&w, safetensors_data(t, &data, NULL) == 0);
    json_arr_end(&w);
    puts(buf_str(out));
}

int main(int argc, char **argv)
{
    struct safetensors *s;
    struct err e;
    struct buf out;
    if (argc != 2 || safetensors_open(argv[1], &s, &e) < 0) {
        fprintf(stderr, "safetensors_tool: %s\n", argc == 2 ? e.msg : "one path, please");
        return 1;
    }
    buf_init(&out, 0);
    for (size_t i = 0; i < safetensors_count(s); i++)
        print(&out, safetensors_at(s, i));
    buf_release(&out);
    safetensors_close(s);
    return 0;
}
