/* key_store.h: where keys are kept: a file, or Redis, whose keys are
 *
 *   argosy:{CLUSTER}:keys           hash: id, line (runtime/keys/key.h)
 *   argosy:{CLUSTER}:keys:version   counted up with each change: routers look at it
 *
 * Every call waits for the file or for Redis, a few seconds at most.
 */
#ifndef ARGOSY_CLI_KEY_STORE_H
#define ARGOSY_CLI_KEY_STORE_H

#include "runtime/base/err.h"
#include "runtime/keys/keyfile.h"

struct redisContext;

struct key_store {
    const char *file; /* or NULL: Redis */
    const char *cluster;
    struct redisContext *redis;
};

/* One of file and url is given. Strings are borrowed, `password` (or NULL) for the call. */
int key_store_open(struct key_store *s, const char *file, const char *url, const char *password,
                   const char *cluster, struct err *e);
void key_store_close(struct key_store *s);
int key_store_add(struct key_store *s, const struct key *k, struct err *e);
/* Its budget's account goes too. ERR_NOT_FOUND: it is not there. */
int key_store_remove(struct key_store *s, const struct key *k, struct err *e);
/* Lines that are no key are an error: this is where people look for them. */
int key_store_list(struct key_store *s, struct keylist *out, struct err *e);

#endif
