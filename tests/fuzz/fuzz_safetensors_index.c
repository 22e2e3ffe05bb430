/* Any bytes as a model.safetensors.index.json beside two shards: refused, or a set of the shards'
 * tensors. */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define TENSORS 5u /* in both */

static char folder[] = "/tmp/fuzz_safetensors_index_XXXXXX";

static void write_file(const char *name, const void *bytes, size_t n)
{
    struct buf path;
    buf_init(&path, 0);
    buf_addf(&path, "%s/%s", folder, name);
    int fd = open(buf_str(&path), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ASSERT(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
    buf_release(&path);
}

static void write_shard(const char *name, const char *header)
{
    struct buf b;
    uint64_t n = strlen(header);
    buf_init(&b, 0);
    buf_add(&b, &n, sizeof(n));
    buf_adds(&b, header);
    buf_adds(&b, "abcdefgh");
    write_file(name, b.data, b.len);
    buf_release(&b);
}

static void sweep(void)
{
    static const char *const names[] = {"a.safetensors", "b.safetensors",
                                        "model.safetensors.index.json"};
    struct buf path;
    buf_init(&path, 0);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        buf_clear(&path);
        buf_addf(&path, "%s/%s", folder, names[i]);
        unlink(buf_str(&path));
    }
    rmdir(folder);
    buf_release(&path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    ASSERT(mkdtemp(folder));
    atexit(sweep);
    write_shard("a.safetensors", "{\"x\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                                 "\"y\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}");
    write_shard("b.safetensors",
                "{\"x\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                "\"z\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[1,4]},"
                "\"w\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[4,8]}}");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct safetensors *s = NULL;
    struct err e = {0};
    write_file("model.safetensors.index.json", data, n);
    if (safetensors_open(folder, &s, &e) < 0) {
        ASSERT(!s && e.code < 0 && e.msg[0]);
        return 0;
    }
    ASSERT(safetensors_count(s) >= 1 && safetensors_count(s) <= TENSORS);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);
        ASSERT(safetensors_find(s, t->name) == t && t->bytes <= 8);
    }
    safetensors_close(s);
    return 0;
}
