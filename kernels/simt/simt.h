/* simt.h: the emulator as a test sees it. README.md says how it works and what it finds.
 *
 * One emulator a process, used by one host thread at a time. Memory of the device is host memory
 * that came from simt_malloc: a kernel may touch nothing else but shared memory and its own stack.
 * A fault ends the launch, which then returns an error; simt_fault() says what was wrong, where. */
#ifndef ARGOSY_KERNELS_SIMT_SIMT_H
#define ARGOSY_KERNELS_SIMT_SIMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How the next launches run. */
struct simt_options {
    uint64_t seed;     /* order of threads and blocks, contents of memory that nobody wrote */
    unsigned preempt;  /* a thread gives way at one in so many accesses; 0: at collectives alone.
                        * In builds with shadow memory. */
    bool eager_copies; /* cp.async lands when issued, not when waited for */
    int sm;            /* whose tensor cores: 80, 89, 90; 0: the machine's (simt_machine_set) */
};
void simt_set(const struct simt_options *o);
int simt_sm(void); /* whose they are: the compute capability, 10 * major + minor */

/* Memory of the device, 256-byte aligned, undefined until written. The name is for messages. */
void *simt_malloc(size_t bytes, const char *name);
/* NULL is fine. */
void simt_free(void *p);
/* From now on only kernels and the two functions below may touch it: with ASan, the host's own
 * accesses are errors. */
void simt_hide(void *p);
/* The two directions of cudaMemcpy. simt_download is a fault (false) where nobody wrote. */
void simt_upload(void *device, const void *host, size_t bytes);
bool simt_download(void *host, const void *device, size_t bytes);

/* The machine that cuda_api.h is of: an A100 with 80 GiB at first. */
struct simt_machine {
    int devices;
    int major, minor;    /* compute capability */
    int driver;          /* as cudaDriverGetVersion says it: 13000 */
    size_t memory;       /* of each device */
    bool lacks_cublaslt; /* its library is not installed */
    unsigned
        fail_malloc; /* the so-manieth cudaMalloc or cudaMallocHost from now on fails; 0: none */
};
void simt_machine_set(const struct simt_machine *m);
size_t simt_machine_taken(void); /* bytes of the device that cudaMalloc gave and nobody freed */

/* What the last launch did wrong; "" for nothing. Valid until the next launch. */
const char *simt_fault(void);

/* Whether kernels here were compiled with the shadow memory's callbacks: without, races and reads
 * of what nobody wrote are not seen, and bounds are ASan's. */
bool simt_has_shadow(void);

/* Counted in the last launch, in builds with shadow memory. */
struct simt_stats {
    uint64_t loads, stores; /* accesses of a warp to global memory */
    uint64_t load_bytes;    /* asked for by its lanes */
    uint64_t store_bytes;
    uint64_t sectors;         /* of 32 bytes that those accesses touch */
    uint64_t sectors_min;     /* that they would at best */
    uint64_t unique_sectors;  /* different ones in the whole launch: the least traffic of DRAM */
    uint64_t shared_accesses; /* of a warp to shared memory */
    uint64_t bank_conflicts;  /* turns that these take beyond the least */
};
const struct simt_stats *simt_last_stats(void);

#ifdef __cplusplus
}
#endif

#endif
