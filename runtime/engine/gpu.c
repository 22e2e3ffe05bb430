#include "runtime/engine/gpu.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A driver that wakes up its GPUs takes seconds. */
#define PROBE_MS 60000

/* What the probe found out. */
struct answer {
    int rc;
    struct gpu gpu;
    struct err err;
};

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

/* All of them, the last one first: the answer is about the first, and has the least memory. */
static void probe(int index, uint32_t ranks, struct answer *a)
{
    uint64_t least = UINT64_MAX;
    *a = (struct answer){.rc = 0};
    for (uint32_t r = ranks; a->rc == 0 && r > 0; r--) {
        a->rc = cuda_probe(index + (int)r - 1, &a->gpu, &a->err);
        least = a->gpu.memory_bytes < least ? a->gpu.memory_bytes : least;
    }
    a->gpu.memory_bytes = least;
}

_Noreturn static void be_probe(int fd, int index, uint32_t ranks)
{
    struct answer a;
    probe(index, ranks, &a);
    _exit(write(fd, &a, sizeof(a)) == (ssize_t)sizeof(a) ? 0 : 1);
}

/* The answer comes in one piece: it is smaller than a pipe. */
static int read_answer(int fd, struct answer *a, struct err *e)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    do {
        n = poll(&p, 1, PROBE_MS);
    } while (n < 0 && errno == EINTR);
    if (n == 0)
        return err_set(e, ERR_CONFIG, "device=cuda: NVIDIA's driver did not answer within %d s",
                       PROBE_MS / 1000);
    if (n < 0 || read(fd, a, sizeof(*a)) != (ssize_t)sizeof(*a))
        return err_set(e, ERR_CONFIG,
                       "device=cuda: NVIDIA's driver ended the program that asked it");
    return a->rc < 0 ? err_set(e, a->rc, "%s", a->err.msg) : 0;
}

/* In a child: a process that has used CUDA cannot fork ranks that use it. */
static int probe_apart(int index, uint32_t ranks, struct gpu *out, struct err *e)
{
    struct answer a = {.rc = 0};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_sys(e, errno, "cannot ask for GPUs");
    pid_t pid = fork();
    if (pid == 0)
        be_probe(ends[1], index, ranks);
    close(ends[1]);
    int rc = pid < 0 ? err_sys(e, errno, "cannot ask for GPUs") : read_answer(ends[0], &a, e);
    close(ends[0]);
    if (pid > 0) {
        kill(pid, SIGKILL);
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    *out = a.gpu;
    return rc;
}

/* What was found: a program asks several times, and a driver may take a second. */
static struct {
    uint32_t ranks; /* 0: nothing yet */
    int index;
    struct gpu gpu;
} found;

void gpu_forget(void)
{
    found.ranks = 0;
}

static int find(int index, uint32_t ranks, struct gpu *out, struct err *e)
{
    if (found.ranks != ranks || found.index != index) {
        int rc = probe_apart(index, ranks, out, e);
        if (rc < 0)
            return rc;
        found.ranks = ranks;
        found.index = index;
        found.gpu = *out;
    }
    *out = found.gpu;
    return 0;
}

int gpu_choose(const char *device, uint32_t ranks, struct gpu *out, struct err *e)
{
    struct err why;
    int index;
    *out = (struct gpu){.index = GPU_CPU};
    ranks = ranks > 1 ? ranks : 1;
    if (device && strcmp(device, "cpu") == 0)
        return 0;
    if (!device || strcmp(device, "auto") == 0) {
        if (find(0, ranks, out, &why) < 0)
            *out = (struct gpu){.index = GPU_CPU};
        return 0;
    }
    if (!parse(device, &index))
        return err_set(e, ERR_CONFIG, "device is '%.40s', wanted auto, cpu, cuda or cuda:N",
                       device);
    return find(index, ranks, out, e);
}
