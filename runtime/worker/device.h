/* device.h: what this machine is, for Hello. */
#ifndef ARGOSY_WORKER_DEVICE_H
#define ARGOSY_WORKER_DEVICE_H

#include <stdint.h>

struct device {
    char kind[16];  /* "cpu" */
    char name[128]; /* "AMD EPYC 9654"; the architecture's when the system does not say */
    uint64_t memory_bytes;
};

void device_probe(struct device *d);

#endif
