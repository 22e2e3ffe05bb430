#include "runtime/format/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#define MANIFEST_VERSION "argosy-exact-1"
#define READ_BYTES (1u << 20)
#define DIGEST_BYTES 32u

static int hash_begin(EVP_MD_CTX **ctx, struct err *e)
{
    *ctx = EVP_MD_CTX_new();
    /* sizeof counts the NUL: the zero byte that ends the version. */
    if (!*ctx || EVP_DigestInit_ex(*ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(*ctx, MANIFEST_VERSION, sizeof(MANIFEST_VERSION)) != 1)
        return err_set(e, ERR_NOMEM, "manifest: no memory for SHA-256");
    return 0;
}

static int hash_end(EVP_MD_CTX *ctx, char hex[65], struct err *e)
{
    unsigned char digest[DIGEST_BYTES];
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        return err_set(e, ERR_NOMEM, "manifest: SHA-256 failed");
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[2 * DIGEST_BYTES] = '\0';
    return 0;
}

static int hash_fd(EVP_MD_CTX *ctx, int fd, const char *path, struct err *e)
{
    int rc = 0;
    unsigned char *bytes = malloc(READ_BYTES);
    if (!bytes)
        return err_set(e, ERR_NOMEM, "manifest: no memory");
    for (;;) {
        ssize_t n = read(fd, bytes, READ_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_sys(e, errno, "%s", path);
        else if (n > 0 && EVP_DigestUpdate(ctx, bytes, (size_t)n) != 1)
            rc = err_set(e, ERR_NOMEM, "manifest: SHA-256 failed");
        if (n <= 0 || rc < 0)
            break;
    }
    free(bytes);
    return rc;
}

int manifest_of_file(const char *path, char hex[65], struct err *e)
{
    EVP_MD_CTX *ctx = NULL;
    int rc = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, errno, "%s", path);
    rc = hash_begin(&ctx, e);
    if (rc == 0)
        rc = hash_fd(ctx, fd, path, e);
    if (rc == 0)
        rc = hash_end(ctx, hex, e);
    EVP_MD_CTX_free(ctx);
    close(fd);
    return rc;
}

int manifest_of_bytes(const void *bytes, size_t n, char hex[65], struct err *e)
{
    EVP_MD_CTX *ctx = NULL;
    int rc = hash_begin(&ctx, e);
    if (rc == 0 && EVP_DigestUpdate(ctx, bytes, n) != 1)
        rc = err_set(e, ERR_NOMEM, "manifest: SHA-256 failed");
    if (rc == 0)
        rc = hash_end(ctx, hex, e);
    EVP_MD_CTX_free(ctx);
    return rc;
}
