/* key.h: an API key as it is kept: the SHA-256 of its secret, a name, and what it may use.
 *
 * Its text, one line, the same in a keys file and in Redis:
 *
 *   SHA256 name=alice requests=60 tokens=100000 concurrency=4 priority=0 pool=trust=gold
 * budget=1000000
 *
 * Everything behind the hash may be left out; a limit that is left out, or 0, is none.
 */
#ifndef ARGOSY_KEYS_KEY_H
#define ARGOSY_KEYS_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define KEY_PREFIX "ak-"
#define KEY_SECRET_BYTES 68 /* "ak-", 64 hex digits, NUL */
#define KEY_ID_BYTES 65     /* 64 hex digits, NUL */
#define KEY_HASH_BYTES 32
#define KEY_NAME_BYTES 64
#define KEY_POOL_BYTES 128
#define KEY_LINE_BYTES_MAX 1024
#define KEY_LIMIT_MAX 1000000000000000u /* a double in Redis holds it exactly */
#define KEY_PRIORITY_MAX 1000

struct key {
    uint8_t hash[KEY_HASH_BYTES]; /* SHA-256 of the secret */
    char name[KEY_NAME_BYTES];    /* for people and logs; "" is fine */
    uint64_t requests;            /* a minute */
    uint64_t tokens;              /* a minute, prompts and outputs */
    uint64_t concurrency;         /* requests at once */
    uint64_t budget;              /* tokens, for ever */
    int32_t priority;             /* lower goes first; a request may ask for a later one only */
    char pool[KEY_POOL_BYTES];    /* "LABEL=VALUE" that its workers have; "": any worker */
    int64_t created_s;
};

/* A new secret, from the system's generator. */
void key_make_secret(char secret[KEY_SECRET_BYTES]);
/* Of any text. */
int key_hash(const char *secret, size_t n, uint8_t hash[KEY_HASH_BYTES], struct err *e);
/* In time that does not depend on where they differ. */
bool key_hash_is(const uint8_t a[KEY_HASH_BYTES], const uint8_t b[KEY_HASH_BYTES]);
/* The hash in hex: how people and Redis call a key. */
void key_id(const struct key *k, char id[KEY_ID_BYTES]);

/* Sets a field by its name in the text. ERR_FORMAT, ERR_RANGE: the message says what is wrong. */
int key_set(struct key *k, const char *field, const char *value, struct err *e);
/* A line without its end. Anything may stand in it. */
int key_parse(const char *line, size_t n, struct key *k, struct err *e);
/* The line, without an end. */
void key_write(const struct key *k, struct buf *out);

#endif
