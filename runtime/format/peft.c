#include "runtime/format/peft.h"

#include <math.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/hex.h"
#include "runtime/base/mapping.h"
#include "runtime/format/jsonpull.h"
#include "runtime/format/manifest.h"
#include "runtime/format/shown.h"

#define CONFIG "adapter_config.json"
#define TENSORS "adapter_model.safetensors"
#define SCALE_MAX 0x1p20

/* ---- the config -------------------------------------------------------------------------------
 */

/* Without effect on what a loaded adapter computes: where it came from, how it was trained, and
 * which matrices it has, which its tensors tell. */
static const char *const ignored[] = {
    "auto_mapping",      "base_model_name_or_path",
    "corda_config",      "eva_config",
    "exclude_modules",   "inference_mode",
    "layers_pattern",    "layers_to_transform",
    "loftq_config",      "lora_dropout",
    "megatron_core",     "peft_version",
    "qalora_group_size", "revision",
    "runtime_config",    "target_modules",
    "task_type",
};

struct reading {
    struct jsonpull json;
    bool is_lora;
    uint64_t rank;
    double alpha;
    bool has_alpha, rslora;
    struct err *e;
};

static bool is_ignored(const struct jsonpull_str *key)
{
    for (size_t i = 0; i < ARRAY_LEN(ignored); i++)
        if (jsonpull_is(key, ignored[i]))
            return true;
    return false;
}

/* null, false, or an object or array of nothing. */
static bool is_neutral(const struct jsonpull_str *raw)
{
    if (jsonpull_is(raw, "null") || jsonpull_is(raw, "false"))
        return true;
    if (raw->n < 2 || (raw->s[0] != '{' && raw->s[0] != '['))
        return false;
    for (size_t i = 1; i + 1 < raw->n; i++)
        if (!strchr(" \t\r\n", raw->s[i]))
            return false;
    return true;
}

/* Initialisations that changed the weights of the base model: the adapter alone is not enough. */
static int read_init(struct reading *r)
{
    struct jsonpull_str s;
    if (jsonpull_peek(&r->json) != '"')
        return jsonpull_skip(&r->json, NULL);
    int rc = jsonpull_string(&r->json, &s);
    if (rc < 0)
        return rc;
    if (jsonpull_is(&s, "gaussian") || jsonpull_is(&s, "eva") || jsonpull_is(&s, "orthogonal") ||
        jsonpull_is(&s, "loftq"))
        return 0;
    return jsonpull_fail(&r->json, ERR_UNSUPPORTED,
                         "init_lora_weights may have changed the base model: not served");
}

static int read_word(struct reading *r, const char *word, const char *why)
{
    struct jsonpull_str s;
    int rc = jsonpull_string(&r->json, &s);
    if (rc == 0 && !jsonpull_is(&s, word))
        rc = jsonpull_fail(&r->json, ERR_UNSUPPORTED, why);
    return rc;
}

/* key's text goes with the next call of jsonpull. */
static int read_other(struct reading *r, const struct jsonpull_str *key)
{
    char name[64], words[128];
    struct jsonpull_str raw;
    bool skipped = is_ignored(key);
    snprintf(name, sizeof(name), "%.*s", (int)(key->n < 60 ? key->n : 60), key->s);
    int rc = jsonpull_skip(&r->json, &raw);
    if (rc < 0 || skipped || is_neutral(&raw))
        return rc;
    snprintf(words, sizeof(words), "%s is not served", name);
    return jsonpull_fail(&r->json, ERR_UNSUPPORTED, words);
}

static int read_field(struct reading *r, const struct jsonpull_str *key)
{
    if (jsonpull_is(key, "peft_type")) {
        r->is_lora = true;
        return read_word(r, "LORA", "peft_type is not LORA");
    }
    if (jsonpull_is(key, "bias"))
        return read_word(r, "none", "bias is not \"none\": not served");
    if (jsonpull_is(key, "r"))
        return jsonpull_u64(&r->json, &r->rank);
    if (jsonpull_is(key, "lora_alpha")) {
        r->has_alpha = true;
        return jsonpull_double(&r->json, &r->alpha);
    }
    if (jsonpull_is(key, "use_rslora"))
        return jsonpull_bool(&r->json, &r->rslora);
    if (jsonpull_is(key, "init_lora_weights"))
        return read_init(r);
    return read_other(r, key);
}

static int check_config(const struct reading *r, struct peft_config *out, struct err *e)
{
    if (!r->is_lora)
        return err_set(e, ERR_FORMAT, CONFIG ": peft_type is missing");
    if (r->rank < 1 || r->rank > PEFT_RANK_MAX)
        return err_set(e, ERR_RANGE, CONFIG ": r is %llu, wanted 1 to %u",
                       (unsigned long long)r->rank, PEFT_RANK_MAX);
    if (!r->has_alpha)
        return err_set(e, ERR_FORMAT, CONFIG ": lora_alpha is missing");
    double rank = (double)r->rank, scale = r->alpha / (r->rslora ? sqrt(rank) : rank);
    if (!(fabs(scale) <= SCALE_MAX))
        return err_set(e, ERR_RANGE, CONFIG ": lora_alpha is out of range");
    *out = (struct peft_config){.rank = (uint32_t)r->rank, .scale = (float)scale};
    return 0;
}

int peft_config_read(const char *text, size_t n, struct peft_config *out, struct err *e)
{
    struct reading r = {.e = e};
    struct jsonpull_str key;
    struct err why = {0};
    if (n > PEFT_CONFIG_BYTES_MAX)
        return err_set(e, ERR_LIMIT, CONFIG " has %zu bytes, at most %u are read", n,
                       PEFT_CONFIG_BYTES_MAX);
    jsonpull_init(&r.json, text, n, CONFIG, &why);
    int more, rc = jsonpull_object(&r.json);
    while (rc == 0 && (more = jsonpull_key(&r.json, &key)) != 0)
        rc = more < 0 ? more : read_field(&r, &key);
    if (rc == 0)
        rc = jsonpull_end(&r.json);
    jsonpull_release(&r.json);
    return rc < 0 ? err_set(e, rc, "%s", why.msg) : check_config(&r, out, e);
}

/* ---- the folder -------------------------------------------------------------------------------
 */

static int hash_of(const struct mapping *config, const struct safetensors *s, char hex[65],
                   struct err *e)
{
    static const char version[] = "argosy-lora-1"; /* hashed with its NUL */
    char parts[sizeof(version) + 2 * 64 + 1];
    unsigned char digest[EVP_MAX_MD_SIZE];
    struct safetensors_file file = safetensors_file_at(s, 0);
    memcpy(parts, version, sizeof(version));
    int rc = manifest_of_bytes(config->bytes, config->n, parts + sizeof(version), e);
    if (rc == 0)
        rc = manifest_of_bytes(file.bytes, file.n, parts + sizeof(version) + 64, e);
    if (rc < 0)
        return rc;
    if (EVP_Digest(parts, sizeof(parts) - 1, digest, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_NOMEM, "no memory for SHA-256");
    hex_write(digest, 32, hex);
    return 0;
}

static int file_in(const char *folder, const char *name, char *path, size_t n, struct err *e)
{
    if ((size_t)snprintf(path, n, "%s/%s", folder, name) >= n)
        return err_set(e, ERR_LIMIT, "the path is too long");
    return 0;
}

int peft_open(const char *folder, struct peft *out, struct err *e)
{
    struct mapping config = {0};
    struct peft p = {0};
    char path[4096];
    int rc = file_in(folder, CONFIG, path, sizeof(path), e);
    if (rc == 0)
        rc = mapping_open(&config, path, e);
    if (rc == 0)
        rc = peft_config_read(config.bytes, config.n, &p.config, e);
    if (rc == 0)
        rc = file_in(folder, TENSORS, path, sizeof(path), e);
    if (rc == 0)
        rc = safetensors_open(path, &p.tensors, e);
    if (rc == 0)
        rc = hash_of(&config, p.tensors, p.sha256, e);
    mapping_release(&config);
    if (rc < 0)
        peft_close(&p);
    else
        *out = p;
    return rc;
}

void peft_close(struct peft *p)
{
    safetensors_close(p->tensors);
    *p = (struct peft){0};
}
