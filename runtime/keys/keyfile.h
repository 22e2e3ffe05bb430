/* keyfile.h: a list of keys, and the file that holds one: a line a key, empty lines and lines that
 * begin with # are passed over. */
#ifndef ARGOSY_KEYS_KEYFILE_H
#define ARGOSY_KEYS_KEYFILE_H

#include "runtime/keys/key.h"

#define KEYS_MAX 10000u
#define KEYFILE_BYTES_MAX (8u << 20)

/* Sorted by hash, each hash once. Zeroed memory is an empty list. */
struct keylist {
    struct key *items;
    size_t n, max;
};

void keylist_release(struct keylist *l);
/* Adds a copy. ERR_LIMIT: KEYS_MAX are there; ERR_RANGE: one with this hash is. */
int keylist_add(struct keylist *l, const struct key *k, struct err *e);
/* NULL: it has none of this hash. */
const struct key *keylist_find(const struct keylist *l, const uint8_t hash[KEY_HASH_BYTES]);

/* Text to a list; messages name `name` and the line. On failure nothing is to be released. */
int keyfile_parse(const char *text, size_t n, const char *name, struct keylist *out, struct err *e);
/* ERR_NOT_FOUND: there is no such file. */
int keyfile_read(const char *path, struct keylist *out, struct err *e);

/* Adds the key to the file, which is made (mode 0600) if it is not there: whoever reads it sees the
 * old or the new file, whole. ERR_BUSY: somebody else changes it. */
int keyfile_append(const char *path, const struct key *k, struct err *e);
/* Takes the key with that hash out; comments stay. ERR_NOT_FOUND: it is not in. */
int keyfile_remove(const char *path, const uint8_t hash[KEY_HASH_BYTES], struct err *e);

#endif
