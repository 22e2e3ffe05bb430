#include "runtime/keys/key.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/hex.h"
#include "runtime/base/rng.h"

void key_make_secret(char secret[KEY_SECRET_BYTES])
{
    uint8_t bytes[32];
    rng_entropy(bytes, sizeof(bytes));
    memcpy(secret, KEY_PREFIX, sizeof(KEY_PREFIX));
    hex_write(bytes, sizeof(bytes), secret + strlen(KEY_PREFIX));
    OPENSSL_cleanse(bytes, sizeof(bytes));
}

int key_hash(const char *secret, size_t n, uint8_t hash[KEY_HASH_BYTES], struct err *e)
{
    if (!EVP_Digest(secret, n, hash, NULL, EVP_sha256(), NULL))
        return err_set(e, ERR_NOMEM, "no memory to hash a key");
    return 0;
}

bool key_hash_is(const uint8_t a[KEY_HASH_BYTES], const uint8_t b[KEY_HASH_BYTES])
{
    return CRYPTO_memcmp(a, b, KEY_HASH_BYTES) == 0;
}

void key_id(const struct key *k, char id[KEY_ID_BYTES])
{
    hex_write(k->hash, KEY_HASH_BYTES, id);
}

/* ---- fields ---------------------------------------------------------------------------------- */

static int read_number(const char *field, const char *s, uint64_t max, uint64_t *out, struct err *e)
{
    uint64_t v = 0;
    size_t n = strlen(s);
    if (n == 0 || n > 16 || strspn(s, "0123456789") != n)
        return err_set(e, ERR_FORMAT, "%s: '%.40s' is not a number", field, s);
    for (; *s; s++)
        v = v * 10 + (uint64_t)(*s - '0');
    if (v > max)
        return err_set(e, ERR_RANGE, "%s: more than %" PRIu64, field, max);
    *out = v;
    return 0;
}

static int set_priority(struct key *k, const char *s, struct err *e)
{
    uint64_t v = 0;
    bool minus = *s == '-';
    int rc = read_number("priority", s + minus, KEY_PRIORITY_MAX, &v, e);
    if (rc == 0)
        k->priority = minus ? -(int32_t)v : (int32_t)v;
    return rc;
}

/* Visible ASCII without what would end a field. */
static bool is_plain(const char *s)
{
    for (; *s; s++)
        if (*s <= ' ' || *s > '~' || *s == '"' || *s == '\\')
            return false;
    return true;
}

static int set_text(char *out, size_t max, const char *field, const char *s, struct err *e)
{
    size_t n = strlen(s);
    if (n >= max)
        return err_set(e, ERR_RANGE, "%s: more than %zu characters", field, max - 1);
    if (!is_plain(s))
        return err_set(e, ERR_FORMAT,
                       "%s: only visible ASCII characters, no space, quote or backslash", field);
    memcpy(out, s, n + 1);
    return 0;
}

static int set_pool(struct key *k, const char *s, struct err *e)
{
    const char *eq = strchr(s, '=');
    if (*s && (!eq || eq == s || !eq[1]))
        return err_set(e, ERR_FORMAT, "pool: '%.40s' is not LABEL=VALUE", s);
    return set_text(k->pool, sizeof(k->pool), "pool", s, e);
}

static int set_created(struct key *k, const char *s, struct err *e)
{
    uint64_t v = 0;
    int rc = read_number("created", s, INT64_MAX, &v, e);
    if (rc == 0)
        k->created_s = (int64_t)v;
    return rc;
}

int key_set(struct key *k, const char *field, const char *value, struct err *e)
{
    static const struct {
        const char *name;
        size_t offset;
    } limits[] = {
        {"requests", offsetof(struct key, requests)},
        {"tokens", offsetof(struct key, tokens)},
        {"concurrency", offsetof(struct key, concurrency)},
        {"budget", offsetof(struct key, budget)},
    };
    for (size_t i = 0; i < ARRAY_LEN(limits); i++)
        if (strcmp(field, limits[i].name) == 0)
            return read_number(field, value, KEY_LIMIT_MAX,
                               (uint64_t *)(void *)((char *)k + limits[i].offset), e);
    if (strcmp(field, "name") == 0)
        return set_text(k->name, sizeof(k->name), "name", value, e);
    if (strcmp(field, "priority") == 0)
        return set_priority(k, value, e);
    if (strcmp(field, "pool") == 0)
        return set_pool(k, value, e);
    if (strcmp(field, "created") == 0)
        return set_created(k, value, e);
    return err_set(e, ERR_FORMAT, "a key has no '%.40s'", field);
}

/* ---- the line -------------------------------------------------------------------------------- */

int key_parse(const char *line, size_t n, struct key *k, struct err *e)
{
    char copy[KEY_LINE_BYTES_MAX + 1];
    char *save = NULL;
    memset(k, 0, sizeof(*k));
    if (n > KEY_LINE_BYTES_MAX)
        return err_set(e, ERR_FORMAT, "a line of more than %d bytes", KEY_LINE_BYTES_MAX);
    memcpy(copy, line, n);
    copy[n] = 0;
    if (strlen(copy) != n)
        return err_set(e, ERR_FORMAT, "a NUL in the line");
    char *word = strtok_r(copy, " \t", &save);
    if (!word || strlen(word) != 2 * KEY_HASH_BYTES || !hex_read(word, k->hash, KEY_HASH_BYTES))
        return err_set(e, ERR_FORMAT, "it does not begin with a SHA-256 of 64 hex digits");
    unsigned seen = 0;
    while ((word = strtok_r(NULL, " \t", &save))) {
        static const char *const fields[] = {"name",     "requests", "tokens", "concurrency",
                                             "priority", "pool",     "budget", "created"};
        char *eq = strchr(word, '=');
        if (!eq)
            return err_set(e, ERR_FORMAT, "'%.40s' is not written FIELD=VALUE", word);
        *eq = 0;
        int rc = key_set(k, word, eq + 1, e);
        if (rc < 0)
            return rc;
        for (unsigned i = 0; i < ARRAY_LEN(fields); i++)
            if (strcmp(word, fields[i]) == 0 && (seen & 1u << i))
                return err_set(e, ERR_FORMAT, "%s stands there twice", word);
            else if (strcmp(word, fields[i]) == 0)
                seen |= 1u << i;
    }
    return 0;
}

static void write_number(struct buf *out, const char *field, uint64_t v)
{
    if (v)
        buf_addf(out, " %s=%" PRIu64, field, v);
}

void key_write(const struct key *k, struct buf *out)
{
    char id[KEY_ID_BYTES];
    key_id(k, id);
    buf_adds(out, id);
    if (k->name[0])
        buf_addf(out, " name=%s", k->name);
    write_number(out, "requests", k->requests);
    write_number(out, "tokens", k->tokens);
    write_number(out, "concurrency", k->concurrency);
    if (k->priority)
        buf_addf(out, " priority=%d", k->priority);
    if (k->pool[0])
        buf_addf(out, " pool=%s", k->pool);
    write_number(out, "budget", k->budget);
    write_number(out, "created", (uint64_t)k->created_s);
}
