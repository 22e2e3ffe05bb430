#include "runtime/cli/sse.h"

#include <string.h>

void sse_init(struct sse *s)
{
    memset(s, 0, sizeof *s);
    buf_init(&s->line, SSE_LINE_BYTES_MAX);
    buf_init(&s->data, SSE_LINE_BYTES_MAX);
}

void sse_release(struct sse *s)
{
    buf_release(&s->line);
    buf_release(&s->data);
}

static int end_event(struct sse *s, sse_event_fn *fn, void *ctx, struct err *e)
{
    if (!s->has_data)
        return 0;
    int rc = fn(ctx, buf_str(&s->data), s->data.len, e);
    buf_clear(&s->data);
    s->has_data = false;
    return rc;
}

static int end_line(struct sse *s, sse_event_fn *fn, void *ctx, struct err *e)
{
    const char *line = buf_str(&s->line);
    size_t n = s->line.len;
    int rc = 0;
    if (n == 0) {
        rc = end_event(s, fn, ctx, e);
    } else if (n >= 5 && !memcmp(line, "data:", 5)) {
        size_t skip = n > 5 && line[5] == ' ' ? 6 : 5;
        if (s->has_data)
            buf_addc(&s->data, '\n');
        buf_add(&s->data, line + skip, n - skip);
        s->has_data = true;
    }
    buf_clear(&s->line);
    return rc;
}

int sse_feed(struct sse *s, const char *bytes, size_t n, sse_event_fn *fn, void *ctx, struct err *e)
{
    for (size_t i = 0; i < n;) {
        if (s->skip_lf && bytes[i] == '\n') {
            s->skip_lf = false;
            i++;
            continue;
        }
        s->skip_lf = false;
        size_t start = i;
        while (i < n && bytes[i] != '\n' && bytes[i] != '\r')
            i++;
        buf_add(&s->line, bytes + start, i - start);
        if (s->line.failed || s->data.failed)
            return err_set(e, ERR_LIMIT, "the server sent an event of over %u bytes",
                           SSE_LINE_BYTES_MAX);
        if (i == n)
            break;
        s->skip_lf = bytes[i++] == '\r';
        int rc = end_line(s, fn, ctx, e);
        if (rc != 0)
            return rc;
    }
    return 0;
}
