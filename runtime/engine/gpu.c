#include "runtime/engine/gpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* "cuda", or "cuda:N" with N below 1024. */
static bool parse(const char *device, int *index)
{
    char *end = NULL;
    *index = 0;
    if (strcmp(device, "cuda") == 0)
        return true;
    if (strncmp(device, "cuda:", 5) != 0 || device[5] < '0' || device[5] > '9')
        return false;
    errno = 0;
    unsigned long n = strtoul(device + 5, &end, 10);
    if (errno != 0 || *end != '\0' || n >= 1024)
        return false;
    *index = (int)n;
    return true;
}

int gpu_choose(const char *device, struct gpu *out, struct err *e)
{
    struct err why;
    int index;
    *out = (struct gpu){.index = GPU_CPU};
    if (device && strcmp(device, "cpu") == 0)
        return 0;
    if (!device || strcmp(device, "auto") == 0) {
        if (cuda_probe(0, out, &why) < 0)
            *out = (struct gpu){.index = GPU_CPU};
        return 0;
    }
    if (!parse(device, &index))
        return err_set(e, ERR_CONFIG, "device is '%.40s', wanted auto, cpu, cuda or cuda:N",
                       device);
    return cuda_probe(index, out, e);
}
