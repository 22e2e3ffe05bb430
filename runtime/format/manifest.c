#include "runtime/format/manifest.h"

#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/hex.h"
#include "runtime/base/threads.h"

#define MANIFEST_VERSION "argosy-exact-1"
#define DIGEST_BYTES 32u

struct hashing {
    const unsigned char *bytes;
    size_t n;
    unsigned char (*digests)[DIGEST_BYTES]; /* (n_chunks) */
    size_t n_chunks;
    _Atomic size_t next;
    atomic_bool failed;
};

static void hash_chunks(void *arg, uint32_t thread)
{
    struct hashing *h = arg;
    (void)thread;
    for (;;) {
        size_t i = atomic_fetch_add_explicit(&h->next, 1, memory_order_relaxed);
        if (i >= h->n_chunks)
            return;
        size_t begin = i * MANIFEST_CHUNK_BYTES, left = h->n - begin;
        if (EVP_Digest(h->bytes + begin, left < MANIFEST_CHUNK_BYTES ? left : MANIFEST_CHUNK_BYTES,
                       h->digests[i], NULL, EVP_sha256(), NULL) != 1)
            atomic_store(&h->failed, true);
    }
}

static int hash_all_chunks(struct hashing *h, struct err *e)
{
    struct threads *crew;
    int rc = threads_create(h->n_chunks > 1 ? 0 : 1, &crew, e);
    if (rc < 0)
        return rc;
    threads_run(crew, hash_chunks, h);
    threads_free(crew);
    return atomic_load(&h->failed) ? err_set(e, ERR_NOMEM, "manifest: SHA-256 failed") : 0;
}

static int hash_digests(const struct hashing *h, char hex[65], struct err *e)
{
    unsigned char digest[DIGEST_BYTES];
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    /* sizeof counts the NUL: the zero byte that ends the version. */
    bool done = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(ctx, MANIFEST_VERSION, sizeof(MANIFEST_VERSION)) == 1 &&
                EVP_DigestUpdate(ctx, h->digests, h->n_chunks * DIGEST_BYTES) == 1 &&
                EVP_DigestFinal_ex(ctx, digest, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    if (!done)
        return err_set(e, ERR_NOMEM, "manifest: no memory for SHA-256");
    hex_write(digest, DIGEST_BYTES, hex);
    return 0;
}

int manifest_of_bytes(const void *bytes, size_t n, char hex[65], struct err *e)
{
    struct hashing h = {.bytes = bytes, .n = n};
    h.n_chunks = n / MANIFEST_CHUNK_BYTES + (n % MANIFEST_CHUNK_BYTES != 0);
    h.digests = calloc(h.n_chunks ? h.n_chunks : 1, sizeof(*h.digests));
    if (!h.digests)
        return err_set(e, ERR_NOMEM, "manifest: no memory for %zu chunks", h.n_chunks);
    int rc = hash_all_chunks(&h, e);
    if (rc == 0)
        rc = hash_digests(&h, hex, e);
    free(h.digests);
    return rc;
}

static int add(char hex[65], const char *what, struct err *e)
{
    unsigned char digest[DIGEST_BYTES];
    char text[256];
    int n = snprintf(text, sizeof(text), "%s%c%s", hex, 0, what);
    ASSERT(n > 0 && (size_t)n < sizeof(text));
    if (EVP_Digest(text, (size_t)n, digest, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, ERR_NOMEM, "manifest: no memory for SHA-256");
    hex_write(digest, DIGEST_BYTES, hex);
    return 0;
}

int manifest_add(char hex[65], const struct manifest_options *o, struct err *e)
{
    char what[64];
    int rc = o->kv_int8 ? add(hex, "kv=int8", e) : 0;
    if (rc < 0 || strcmp(o->fast, "off") == 0)
        return rc;
    int n = snprintf(what, sizeof(what), "fast=%s", o->fast);
    ASSERT(n > 0 && (size_t)n < sizeof(what));
    return add(hex, what, e);
}
