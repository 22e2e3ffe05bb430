/* stopmatch.h: finds stop strings in text that comes in pieces, and never lets a part of one out.
 *
 * The worker feeds it what the detokeniser gives, to stop generating; the router, to trim. What it
 * reports depends on the text alone, not on how the text was cut into pieces:
 *   - the match is the one that ends first; of those that end at the same byte, the longest;
 *   - the text before the match is let out, the match and what follows are not;
 *   - until there is a match, the longest tail that some stop string starts with is held back.
 * Pieces of whole UTF-8 characters and stop strings of whole characters give output of whole
 * characters.
 *
 * An Aho-Corasick automaton over all strings. Memory is one block at init, 29 bytes for each byte
 * of the strings; the tail that is held is a place in the automaton, not a copy. One owner.
 */
#ifndef ARGOSY_TEXT_STOPMATCH_H
#define ARGOSY_TEXT_STOPMATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define STOPMATCH_NONE UINT32_MAX

struct stopmatch_limits {
    uint32_t max_strings;
    uint32_t max_bytes; /* of all strings together; at most 1 MiB */
};

struct stopmatch {
    struct stop_node *nodes; /* NULL without stop strings: everything is let out at once */
    char *text;              /* the strings, one after the other; in the block of nodes */
    uint32_t state;          /* the node that the held tail leads to */
    uint32_t hit;            /* index of the stop string that matched, or STOPMATCH_NONE */
};

/* Copies n strings of lens[i] bytes. ERR_LIMIT past a limit, ERR_RANGE for an empty string. */
int stopmatch_init(struct stopmatch *m, const char *const *strings, const size_t *lens, size_t n,
                   const struct stopmatch_limits *lim, struct err *e);
void stopmatch_release(struct stopmatch *m);
/* Back to the start of a text, with the same strings. */
void stopmatch_clear(struct stopmatch *m);

/* Appends to out what is safe to show by now. True once there was a match (m->hit says of which
 * string, the first of equal ones): what is fed after it is dropped. */
bool stopmatch_feed(struct stopmatch *m, const char *piece, size_t n, struct buf *out);
/* The text ended without a match: appends what is held. */
void stopmatch_flush(struct stopmatch *m, struct buf *out);
/* Bytes held back now. */
size_t stopmatch_held_bytes(const struct stopmatch *m);

#endif
