/* sanitizer.h: memory that ASan shall keep everybody from. Nothing without ASan. */
#ifndef ARGOSY_KERNELS_SIMT_SANITIZER_H
#define ARGOSY_KERNELS_SIMT_SANITIZER_H

#include "kernels/simt/internal.h"

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#define SIMT_POISON(p, bytes) ASAN_POISON_MEMORY_REGION((p), (bytes))
#define SIMT_UNPOISON(p, bytes) ASAN_UNPOISON_MEMORY_REGION((p), (bytes))
#else
#define SIMT_POISON(p, bytes) ((void)(p), (void)(bytes))
#define SIMT_UNPOISON(p, bytes) ((void)(p), (void)(bytes))
#endif

#endif
