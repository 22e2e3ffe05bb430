/* safetensors_internal.h: what safetensors.c (files and folders) and safetensors_header.c (one
 * file's header) share; nobody else includes it. */
#ifndef ARGOSY_FORMAT_SAFETENSORS_INTERNAL_H
#define ARGOSY_FORMAT_SAFETENSORS_INTERNAL_H

#include "runtime/base/arena.h"
#include "runtime/format/safetensors.h"
#include "runtime/format/shown.h"

/* A growing table; its names are in an arena. */
struct tensor_table {
    struct safetensors_tensor *at;
    size_t n, cap;
};

/* Appends the tensors of one file's bytes, sorted by name. */
int safetensors_parse(const unsigned char *bytes, size_t n, struct tensor_table *t,
                      struct arena *names, struct err *e);
/* Sorts by name; ERR_FORMAT when one is there twice. */
int safetensors_sort(struct safetensors_tensor *at, size_t n, struct err *e);

#endif
