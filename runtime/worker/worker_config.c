#include "runtime/worker/worker_config.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/model/shard.h"

#define AT(f) .offset = offsetof(struct worker_config, f)

static const struct config_option options[] = {
    {.help = "Cluster:"},
    {"routers", CONFIG_LIST, AT(routers), "127.0.0.1:9090", 0, 0, NULL, "HOST:PORT",
     "Router to attach to, or unix:PATH; the worker attaches to all of them"},
    {"id", CONFIG_STRING, AT(id), NULL, 0, 0, NULL, "NAME",
     "Name of this worker in the cluster; without it, random for each process"},
    {"labels", CONFIG_LIST, AT(labels), NULL, 0, 0, NULL, "KEY=VALUE",
     "What routers may choose by: region, trust pool"},
    {"price", CONFIG_DOUBLE, AT(price), "0", 0, 1e12, NULL, "NUMBER",
     "Price of a million tokens in the pool's unit; 0 is not priced"},
    {"tls_cert", CONFIG_STRING, AT(tls_cert), NULL, 0, 0, NULL, "FILE",
     "This worker's certificate (PEM), for mTLS"},
    {"tls_key", CONFIG_STRING, AT(tls_key), NULL, 0, 0, NULL, "FILE", "The key of tls_cert (PEM)"},
    {"tls_ca", CONFIG_STRING, AT(tls_ca), NULL, 0, 0, NULL, "FILE",
     "Certificates that routers are checked against (PEM); turns TLS on"},
    {"heartbeat", CONFIG_MS, AT(heartbeat_ms), "500ms", 20, 500, NULL, "TIME",
     "Longest silence between load reports; a router's lease may shorten it"},
    {"backoff_min", CONFIG_MS, AT(backoff_min_ms), "100ms", 10, 600000, NULL, "TIME",
     "Shortest wait before dialling a router again"},
    {"backoff_max", CONFIG_MS, AT(backoff_max_ms), "10s", 10, 600000, NULL, "TIME",
     "Longest wait before dialling a router again"},
    {"keepalive", CONFIG_MS, AT(keepalive_ms), "5s", 100, 600000, NULL, "TIME",
     "Interval of HTTP/2 pings; a dead router is noticed within two"},
    {"out_bytes_max", CONFIG_BYTES, AT(out_bytes_max), "16M", 1 << 20, 1 << 30, NULL, "BYTES",
     "What may wait to be sent to one router; a router that does not read is dropped"},
    {"drain_timeout", CONFIG_MS, AT(drain_timeout_ms), "30s", 0, 86400000, NULL, "TIME",
     "How long running requests may go on after SIGTERM"},
    {"die_with_parent", CONFIG_BOOL, AT(die_with_parent), "no", 0, 0, NULL, NULL,
     "Drain when the process that started this one ends"},
    {.help = "Model:"},
    {"model", CONFIG_LIST, AT(model), NULL, 0, 0, NULL, "[NAME=]PATH",
     "GGUF file or folder to serve, and the name that requests call it; by default the file's; may "
     "be repeated: the first is loaded at start, the others when they are asked for"},
    {"adapters", CONFIG_LIST, AT(adapters), NULL, 0, 0, NULL, "NAME=PATH",
     "A LoRA adapter of the first model: a folder as PEFT saves it; may be repeated"},
    {"memory", CONFIG_BYTES, AT(memory), "0", 0, 1e15, NULL, "BYTES",
     "For weights and KV pages of all models; who needs the room unloads those that nobody uses; 0 "
     "is all of the machine's"},
    {"load_wait", CONFIG_MS, AT(load_wait_ms), "60s", 0, 3600000, NULL, "TIME",
     "How long a request waits for its model to be loaded"},
    {"unload_after", CONFIG_MS, AT(unload_after_ms), "0", 0, 86400000000, NULL, "TIME",
     "A model that nobody used for so long leaves the memory; 0 is never"},
    {"device", CONFIG_STRING, AT(device), "auto", 0, 0, NULL, "auto|cpu|cuda[:N]",
     "What computes: the CPU or an NVIDIA GPU, with the same bits; auto is GPU 0 where there is "
     "one "
     "that can be used, else the CPU"},
    {"fast", CONFIG_CHOICE, AT(fast), "off", 0, 0, "off|bf16|fp8", NULL,
     "Compute folders of safetensors on a GPU in bf16 or fp8 by cuBLASLt: faster, and not exact; "
     "routers "
     "must ask for it too"},
    {"isa", CONFIG_CHOICE, AT(isa), "auto", 0, 0, "auto|ref|avx2|avx512|amx", NULL,
     "Instruction set of the kernels; every one gives the same bits"},
    {"threads", CONFIG_INT, AT(threads), "0", 0, 1024, NULL, "N",
     "Threads that compute, in each process; 0 is one a core, shared out over the processes"},
    {"tp", CONFIG_INT, AT(tp), "1", 1, SHARD_RANKS_MAX, NULL, "N",
     "Processes that share the model out (tensor parallelism), on GPUs one each from device on; "
     "every number gives the same bits"},
    {"tp_timeout", CONFIG_MS, AT(tp_timeout_ms), "10s", 100, 600000, NULL, "TIME",
     "How long one of them may keep the others waiting before the worker gives up"},
    {"kv_bytes", CONFIG_BYTES, AT(kv_bytes), "0", 0, 1e15, NULL, "BYTES",
     "Memory for KV pages, of all processes; 0 is room for 4 contexts, at most a quarter of the "
     "memory"},
    {"kv_host_bytes", CONFIG_BYTES, AT(kv_host_bytes), "0", 0, 1e15, NULL, "BYTES",
     "Of a GPU: memory of the host for KV pages of the prefix cache that the GPU has no room for"},
    {"kv_type", CONFIG_CHOICE, AT(kv_type), "f16", 0, 0, "f16|int8", NULL,
     "Of KV pages; int8 takes half the memory and changes answers, so routers must ask for it too"},
    {"context_max", CONFIG_INT, AT(context_max), "0", 0, 1 << 20, NULL, "N",
     "Tokens of one request at most; 0 is what the model was trained for"},
    {"sequences_max", CONFIG_INT, AT(sequences_max), "32", 1, 4096, NULL, "N",
     "Requests that run at once"},
    {"waiting_max", CONFIG_INT, AT(waiting_max), "64", 0, 65536, NULL, "N",
     "Requests that wait; one more is refused"},
    {"step_tokens_max", CONFIG_INT, AT(step_tokens_max), "256", 1, 65536, NULL, "N",
     "Tokens that one step computes; bounds how long a step takes"},
    {"stall_max", CONFIG_DOUBLE, AT(stall_max), "1.6", 0, 1000, NULL, "TIMES",
     "While answers run, prompts may make a step so many times as long at most; 0 is no limit"},
    {"priority_tokens", CONFIG_INT, AT(priority_tokens), "65536", 1, 1 << 30, NULL, "N",
     "A request passes those of one priority less that came up to so many computed tokens before"},
    {"prefix_cache", CONFIG_BOOL, AT(prefix_cache), "yes", 0, 0, NULL, NULL,
     "Keep the KV of prompts for others that begin the same, in pages that are free"},
    {"speculate", CONFIG_CHOICE, AT(speculate), "auto", 0, 0, "off|lookup|draft|auto", NULL,
     "How tokens are guessed ahead, where that is faster; they stay the same"},
    {"draft_model", CONFIG_STRING, AT(draft_model), NULL, 0, 0, NULL, "PATH",
     "GGUF file of a small model with the same tokens, to guess with"},
    {"draft_tokens_max", CONFIG_INT, AT(draft_tokens_max), "4", 1, 16, NULL, "N",
     "Tokens guessed ahead for one request in one step"},
    {.help = "Log:"},
    {"log_level", CONFIG_CHOICE, AT(log_level), "info", 0, 0, "debug|info|warn|error|off", NULL,
     "Least level that is logged to stderr"},
};

static int check_labels(const struct config_list *l, struct err *e)
{
    if (l->n > 64)
        return err_set(e, ERR_CONFIG, "labels: has %zu items, at most 64 are allowed", l->n);
    for (size_t i = 0; i < l->n; i++) {
        const char *eq = strchr(l->items[i], '=');
        if (!eq || eq == l->items[i])
            return err_set(e, ERR_CONFIG, "labels: '%.80s' is not KEY=VALUE", l->items[i]);
        if (eq - l->items[i] > 255 || strlen(eq + 1) > 255)
            return err_set(e, ERR_CONFIG, "labels: '%.80s…' is over 255 bytes", l->items[i]);
    }
    return 0;
}

static int check_adapters(const struct config_list *l, struct err *e)
{
    if (l->n > ENGINE_ADAPTERS_MAX)
        return err_set(e, ERR_CONFIG, "adapters: has %zu items, at most %u are allowed", l->n,
                       ENGINE_ADAPTERS_MAX);
    for (size_t i = 0; i < l->n; i++) {
        const char *eq = strchr(l->items[i], '=');
        if (!eq || eq == l->items[i] || !eq[1] || eq - l->items[i] > 255)
            return err_set(e, ERR_CONFIG, "adapters: '%.80s' is not NAME=PATH", l->items[i]);
    }
    return 0;
}

static int check_models(const struct worker_config *c, struct err *e)
{
    char name[512], other[512];
    const struct config_list *l = &c->model;
    if (l->n == 0)
        return err_set(e, ERR_CONFIG, "model: which GGUF file or folder to serve is not said");
    if (l->n > WORKER_MODELS_MAX)
        return err_set(e, ERR_CONFIG, "model: has %zu items, at most %d are allowed", l->n,
                       WORKER_MODELS_MAX);
    if (l->n > 1 && c->draft_model)
        return err_set(e, ERR_CONFIG, "draft_model is for a worker of one model");
    for (size_t i = 0; i < l->n; i++) {
        if (!*worker_model_path(l->items[i]))
            return err_set(e, ERR_CONFIG, "model: which GGUF file or folder to serve is not said");
        worker_model_name(l->items[i], c->fast, name, sizeof(name));
        if (!*name || strlen(name) > 255)
            return err_set(e, ERR_CONFIG, "model: its name must have 1 to 255 bytes");
        for (size_t k = 0; k < i; k++) {
            worker_model_name(l->items[k], c->fast, other, sizeof(other));
            if (strcmp(name, other) == 0)
                return err_set(e, ERR_CONFIG, "model: two are called %s", name);
        }
    }
    return 0;
}

static int check(const void *out, struct err *e)
{
    const struct worker_config *c = out;
    int rc = check_models(c, e);
    if (rc < 0)
        return rc;
    if (c->stall_max > 0 && c->stall_max < 1)
        return err_set(e, ERR_CONFIG, "stall_max is %g: wanted 0, or at least 1", c->stall_max);
    if (c->routers.n == 0)
        return err_set(e, ERR_CONFIG, "routers: none is given");
    if (c->backoff_min_ms > c->backoff_max_ms)
        return err_set(e, ERR_CONFIG, "backoff_min is over backoff_max");
    if (!c->tls_cert != !c->tls_key)
        return err_set(e, ERR_CONFIG, "tls_cert and tls_key go together");
    if (c->tls_cert && !c->tls_ca)
        return err_set(e, ERR_CONFIG, "tls_cert without tls_ca: routers could not be checked");
    bool may_draft = !strcmp(c->speculate, "draft") || !strcmp(c->speculate, "auto");
    if (!strcmp(c->speculate, "draft") && !c->draft_model)
        return err_set(e, ERR_CONFIG, "speculate=draft: which draft_model is not said");
    if (c->draft_model && !may_draft)
        return err_set(e, ERR_CONFIG, "draft_model is not used with speculate=%s", c->speculate);
    if (strcmp(c->fast, "off") != 0 && (c->tp > 1 || c->adapters.n > 0))
        return err_set(e, ERR_CONFIG, "fast=%s: %s not served so", c->fast,
                       c->tp > 1 ? "several ranks (tp) are" : "adapters are");
    if (c->id && (!*c->id || strlen(c->id) > 255))
        return err_set(e, ERR_CONFIG, "id: must have 1 to 255 bytes");
    rc = check_adapters(&c->adapters, e);
    return rc == 0 ? check_labels(&c->labels, e) : rc;
}

const struct config_program worker_program = {
    .name = "argosy-worker",
    .summary = "Runs models and serves them to the routers it attaches to.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .check = check,
};

/* A '=' behind a '/' belongs to the path. */
static const char *name_end(const char *model)
{
    const char *eq = strchr(model, '=');
    const char *slash = strchr(model, '/');
    return eq && (!slash || eq < slash) ? eq : NULL;
}

const char *worker_model_path(const char *item)
{
    const char *eq = name_end(item);
    return eq ? eq + 1 : item;
}

void worker_model_name(const char *item, const char *fast, char *name, size_t cap)
{
    const char *start = item, *end = name_end(item);
    bool marked = !end && strcmp(fast, "off") != 0;
    if (!end) {
        end = start + strlen(start);
        while (end > start && end[-1] == '/') /* a folder may end in one */
            end--;
        for (const char *p = start; p < end; p++)
            start = *p == '/' ? p + 1 : start;
        if (end - start > 5 && strcmp(end - 5, ".gguf") == 0)
            end -= 5;
    }
    snprintf(name, cap, "%.*s%s%s", (int)(end - start), start, marked ? "-fast-" : "",
             marked ? fast : "");
}

static enum engine_speculation speculation(const char *name)
{
    static const char *const names[] = {[ENGINE_SPECULATE_OFF] = "off",
                                        [ENGINE_SPECULATE_LOOKUP] = "lookup",
                                        [ENGINE_SPECULATE_DRAFT] = "draft"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return (enum engine_speculation)i;
    return ENGINE_SPECULATE_AUTO;
}

struct engine_config worker_engine_config(const struct worker_config *c, const char *path)
{
    return (struct engine_config){
        .model_path = path,
        .device = c->device,
        .isa = c->isa,
        .threads = (uint32_t)c->threads,
        .ranks = (uint32_t)c->tp,
        .ranks_patience_ms = (uint32_t)c->tp_timeout_ms,
        .kv_bytes = (uint64_t)c->kv_bytes,
        .kv_host_bytes = (uint64_t)c->kv_host_bytes,
        .kv_type = strcmp(c->kv_type, "int8") == 0 ? KN_KV_INT8 : KN_KV_F16,
        .fast = fast_of(c->fast),
        .context_max = (uint32_t)c->context_max,
        .sequences_max = (uint32_t)c->sequences_max,
        .waiting_max = (uint32_t)c->waiting_max,
        .step_tokens_max = (uint32_t)c->step_tokens_max,
        .stall_max = c->stall_max,
        .priority_tokens = (uint32_t)c->priority_tokens,
        .prefix_cache = c->prefix_cache,
        .speculate = speculation(c->speculate),
        .draft_model = c->draft_model,
        .draft_tokens_max = (uint32_t)c->draft_tokens_max,
    };
}

const char *worker_adapter(const char *item, char *name, size_t cap)
{
    const char *eq = strchr(item, '=');
    snprintf(name, cap, "%.*s", (int)(eq - item), item);
    return eq + 1;
}
