#include "runtime/worker/device.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "runtime/base/memory.h"
#include "runtime/engine/gpu.h"

/* Bytes over 0x7e are dropped: the wire wants UTF-8, and nobody promises it here. */
static void copy_name(struct device *d, const char *s)
{
    size_t n = 0;
    for (; *s && n < sizeof(d->name) - 1; s++)
        if (*s >= 0x20 && *s < 0x7f)
            d->name[n++] = *s;
    d->name[n] = 0;
}

void device_probe(const char *option, uint32_t ranks, struct device *d)
{
    char line[512];
    struct utsname u;
    struct gpu gpu;
    struct err e;
    memset(d, 0, sizeof(*d));
    if (gpu_choose(option, ranks, &gpu, &e) == 0 && gpu_computes(&gpu)) {
        snprintf(d->kind, sizeof(d->kind), "cuda");
        copy_name(d, gpu.name);
        d->memory_bytes = (ranks > 1 ? ranks : 1) * gpu.memory_bytes;
        return;
    }
    snprintf(d->kind, sizeof(d->kind), "cpu");
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof(line), f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon && colon[1]) {
            copy_name(d, colon + 2);
            break;
        }
    }
    if (f)
        fclose(f);
    if (!d->name[0])
        copy_name(d, uname(&u) == 0 ? u.machine : "unknown");
    d->memory_bytes = memory_of_machine();
}
