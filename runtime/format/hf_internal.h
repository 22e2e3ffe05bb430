/* hf_internal.h: what hf_config.c (hyperparameters) and hf_rope.c (positions) share; nobody else
 * includes it.
 *
 * Getters: an absent key and null are the same. They return 1 when the value was there, 0 when not,
 * and a negative code for a value of another kind, or for none where it is required. The object may
 * be NULL. */
#ifndef ARGOSY_FORMAT_HF_INTERNAL_H
#define ARGOSY_FORMAT_HF_INTERNAL_H

#include <json-c/json.h>

#include "runtime/base/arena.h"
#include "runtime/format/hf_config.h"

enum hf_need { HF_REQUIRED, HF_OPTIONAL };

struct hf_factors {
    float *at; /* the arena's */
    uint32_t n;
};

struct hf {
    struct json_object *root;
    struct hf_layout *layout;
    struct buf kvs; /* metadata as it lies in a GGUF file */
    uint64_t n_kvs;
    uint32_t context, first_context;
    struct hf_factors long_factors, short_factors;
    struct arena arena;
};

int hf_u32(struct hf *h, struct json_object *o, const char *key, enum hf_need need, uint32_t *out,
           struct err *e);
/* An integer or a float; finite. */
int hf_number(struct hf *h, struct json_object *o, const char *key, enum hf_need need, double *out,
              struct err *e);
int hf_bool(struct hf *h, struct json_object *o, const char *key, bool *out, struct err *e);
/* NULL when it is none. */
const char *hf_string(struct json_object *o, const char *key);
struct json_object *hf_object(struct json_object *o, const char *key);
bool hf_is_number(struct json_object *v);

/* Metadata ARCH.key. */
void hf_put_u32(struct hf *h, const char *key, uint32_t v);
void hf_put_f32(struct hf *h, const char *key, double v);
void hf_put_str(struct hf *h, const char *key, const char *v);

/* "config.json: KEY is not KIND". */
int hf_wrong(struct hf *h, const char *key, const char *kind, struct err *e);
int hf_unserved(struct hf *h, const char *what, struct err *e);

int hf_rope_read(struct hf *h, struct err *e);

#endif
