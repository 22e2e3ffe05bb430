/* top_view.h: what `argosy top` shows: the router's snapshot (/explorer/snapshot) as a struct, and
 * as lines of text. Pure. What workers say of themselves is printable ASCII afterwards, so that no
 * name can steer the terminal.
 */
#ifndef ARGOSY_CLI_TOP_VIEW_H
#define ARGOSY_CLI_TOP_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define TOP_WORKERS_MAX 1024
#define TOP_NAME_BYTES 64

struct top_worker {
    char id[TOP_NAME_BYTES], device[TOP_NAME_BYTES], region[TOP_NAME_BYTES], state[16];
    uint32_t running, waiting, sequences_max;
    double kv; /* 0 to 1 */
    double tokens_per_s, price;
    uint64_t attached_s;
};

struct top_view {
    char version[16], state[16];
    uint64_t up_s, moves;
    uint32_t n_attached; /* workers, those not listed included */
    uint32_t running, waiting;
    double requests_per_s, failed_per_s, tokens_per_s, prompt_tokens_per_s;
    double first_ms[2], each_ms[2]; /* 50 and 95 %; below 0: none */
    struct top_worker *workers;     /* (n) */
    uint32_t n;
};

enum top_order { TOP_BY_NAME, TOP_BY_TOKENS, TOP_BY_USE, TOP_ORDERS };

/* Zeroed before the first call; what the last one read is released. On an error the view is empty.
 */
int top_view_read(struct top_view *v, const char *json, size_t n, struct err *e);
void top_view_release(struct top_view *v);
void top_view_sort(struct top_view *v, enum top_order order);

/* Lines of at most `columns` characters, `rows` of them at most (0: no limit), each ended by
 * `line_end`. `color`: with ANSI colours. `first`: the worker that the list begins with. */
void top_draw(const struct top_view *v, uint32_t columns, uint32_t rows, uint32_t first, bool color,
              const char *line_end, struct buf *out);

#endif
