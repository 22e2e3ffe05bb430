/* device.h: what this machine is, for Hello. */
#ifndef ARGOSY_WORKER_DEVICE_H
#define ARGOSY_WORKER_DEVICE_H

#include <stdint.h>

struct device {
    char kind[16];  /* "cpu", "cuda" */
    char name[128]; /* "AMD EPYC 9654", "NVIDIA H100 80GB HBM3"; the architecture's when the system
                       does not say */
    uint64_t memory_bytes;
};

/* option, ranks: as gpu_choose has them, and what it finds; else the CPU. */
void device_probe(const char *option, uint32_t ranks, struct device *d);

#endif
