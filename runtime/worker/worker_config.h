/* worker_config.h: the options of argosy-worker. Each has a line in deploy/man/argosy-worker.1. */
#ifndef ARGOSY_WORKER_WORKER_CONFIG_H
#define ARGOSY_WORKER_WORKER_CONFIG_H

#include "runtime/base/config.h"
#include "runtime/engine/engine.h"

#define WORKER_MODELS_MAX 64

struct worker_config {
    /* cluster */
    struct config_list routers; /* HOST:PORT or unix:PATH */
    char *id;                   /* NULL: random for each process */
    struct config_list labels;  /* KEY=VALUE */
    double price;
    char *tls_cert, *tls_key, *tls_ca;
    int64_t heartbeat_ms;
    int64_t backoff_min_ms, backoff_max_ms;
    int64_t keepalive_ms;
    int64_t out_bytes_max;
    int64_t drain_timeout_ms;
    bool die_with_parent;
    /* model */
    struct config_list model;    /* NAME=PATH or PATH */
    struct config_list adapters; /* NAME=PATH, of the first model */
    int64_t memory;              /* 0: no limit for one model, the machine's for several */
    int64_t load_wait_ms;
    int64_t unload_after_ms; /* 0: never */
    char *device;
    char *fast;
    char *isa;
    int64_t threads;
    int64_t tp;
    int64_t tp_timeout_ms;
    int64_t kv_bytes;
    int64_t kv_host_bytes;
    char *kv_type;
    int64_t context_max;
    int64_t sequences_max;
    int64_t waiting_max;
    int64_t step_tokens_max;
    double stall_max;
    int64_t priority_tokens;
    bool prefix_cache;
    char *speculate;
    char *draft_model; /* NULL: none */
    int64_t draft_tokens_max;
    /* log */
    char *log_level;
};

extern const struct config_program worker_program;

/* Of an item of `model`: the part before '=', or the file's name without directory and ending, and
 * with "-fast-bf16" or the like unless `fast` is "off". Cut to `cap`. */
void worker_model_name(const char *item, const char *fast, char *name, size_t cap);
const char *worker_model_path(const char *item);
/* What the options say of an engine for this model; strings are borrowed. No adapters. */
struct engine_config worker_engine_config(const struct worker_config *c, const char *path);
/* An item of `adapters`: name (cap) gets the part before '=', cut; returns the path. */
const char *worker_adapter(const char *item, char *name, size_t cap);

#endif
