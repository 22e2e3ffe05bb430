/* gguf_tool FILE: what the reader sees, for tests in Python.
 *
 * On stdin lines "KIND KEY" with KIND one of u f b s (a number, a float, a bool, a string), I F S
 * (arrays). On stdout one line of JSON for each, then one line an each tensor: [name, type, [ne…],
 * offset in the file, bytes].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/format/gguf.h"

static void fail(const char *what)
{
    fprintf(stderr, "gguf_tool: %s\n", what);
    exit(1);
}

static void write_array(const struct gguf *g, int kind, const char *key, struct json *w)
{
    struct gguf_array a;
    struct gguf_str s;
    struct err e;
    int64_t i;
    float f;
    if (gguf_array(g, key, GGUF_REQUIRED, &a, &e) < 0)
        fail(e.msg);
    json_arr(w);
    while (kind == 'S' && gguf_next_str(&a, &s))
        json_strn(w, s.s, s.n);
    while (kind == 'I' && gguf_next_i64(&a, &i))
        json_int(w, i);
    while (kind == 'F' && gguf_next_f32(&a, &f))
        json_float(w, f);
    json_arr_end(w);
}

static void write_value(const struct gguf *g, int kind, const char *key, struct json *w)
{
    struct err e = {0};
    struct gguf_str s = {"", 0};
    uint64_t u = 0;
    float f = 0;
    bool b = false;
    int rc = kind == 'u'   ? gguf_u64(g, key, GGUF_REQUIRED, &u, &e)
             : kind == 'f' ? gguf_f32(g, key, GGUF_REQUIRED, &f, &e)
             : kind == 'b' ? gguf_bool(g, key, GGUF_REQUIRED, &b, &e)
             : kind == 's' ? gguf_str(g, key, GGUF_REQUIRED, &s, &e)
                           : 0;
    if (rc < 0)
        fail(e.msg);
    if (kind == 'u')
        json_uint(w, u);
    else if (kind == 'f')
        json_float(w, f);
    else if (kind == 'b')
        json_bool(w, b);
    else if (kind == 's')
        json_strn(w, s.s, s.n);
    else
        write_array(g, kind, key, w);
}

static void write_tensor(const struct gguf *g, const struct gguf_tensor *t, struct json *w)
{
    json_arr(w);
    json_str(w, t->name);
    json_uint(w, t->type);
    json_arr(w);
    for (uint32_t i = 0; i < t->n_dims; i++)
        json_uint(w, t->ne[i]);
    json_arr_end(w);
    json_uint(w, t->data ? (uint64_t)((const char *)t->data - (const char *)gguf_mapping(g, NULL))
                         : 0);
    json_uint(w, t->bytes);
    json_arr_end(w);
}

static void end_line(struct buf *out)
{
    puts(buf_str(out));
    buf_clear(out);
}

int main(int argc, char **argv)
{
    struct gguf *g;
    struct err e;
    struct buf out;
    struct json w;
    char line[256];
    if (argc != 2)
        fail("usage: gguf_tool FILE");
    if (gguf_open(argv[1], &g, &e) < 0)
        fail(e.msg);
    buf_init(&out, 0);
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        json_init(&w, &out);
        if (strlen(line) > 2)
            write_value(g, line[0], line + 2, &w);
        end_line(&out);
    }
    for (uint64_t i = 0; i < gguf_tensor_count(g); i++) {
        json_init(&w, &out);
        write_tensor(g, gguf_tensor_at(g, i), &w);
        end_line(&out);
    }
    buf_release(&out);
    gguf_close(g);
    return 0;
}
