/* detok.h: token ids to text as they come, in whole UTF-8 characters.
 *
 * A token may be half a character. What may still become one is held back (at most 3 bytes); what
 * can never become one is U+FFFD. Over any sequence of feeds and a final flush, the output is
 * exactly bytes.decode("utf-8", errors="replace") of the tokens' bytes put together. Plain data of
 * fixed size: copy it, put it anywhere, nothing to release. One owner.
 */
#ifndef ARGOSY_TEXT_DETOK_H
#define ARGOSY_TEXT_DETOK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/text/tokenizer.h"

struct detok {
    unsigned char held[4]; /* the start of a character */
    uint8_t n_held;        /* 0 to 3 */
    bool special;          /* control tokens appear by name instead of not at all */
};

void detok_init(struct detok *d, bool special);

/* Appends what is complete. The caller checks out->failed. */
void detok_feed(struct detok *d, const struct tokenizer *t, uint32_t id, struct buf *out);
void detok_feed_bytes(struct detok *d, const char *bytes, size_t n, struct buf *out);
/* At the end of the text: what is held can no longer be completed. Leaves d as after init. */
void detok_flush(struct detok *d, struct buf *out);

#endif
