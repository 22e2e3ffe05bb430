#include "router/trace/traceparent.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/rng.h"

#define VERSION_AT 0
#define TRACE_AT 3
#define SPAN_AT 36
#define FLAGS_AT 53
#define TEXT_BYTES 55
#define FLAG_SAMPLED 1

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; /* upper case is refused (3.2.2) */
}

static bool read_hex(const char *text, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int hi = digit(text[2 * i]), lo = digit(text[2 * i + 1]);
        if (hi < 0 || lo < 0)
            return false;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool is_zero(const uint8_t *id, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= id[i];
    return any == 0;
}

bool traceparent_parse(const char *text, size_t n, struct traceparent *out)
{
    struct traceparent t;
    uint8_t version, flags;
    if (n < TEXT_BYTES || !read_hex(text + VERSION_AT, &version, 1) || version == 0xff)
        return false;
    if (version == 0 ? n != TEXT_BYTES : n > TEXT_BYTES && text[TEXT_BYTES] != '-')
        return false;
    if (text[TRACE_AT - 1] != '-' || text[SPAN_AT - 1] != '-' || text[FLAGS_AT - 1] != '-')
        return false;
    if (!read_hex(text + TRACE_AT, t.trace_id, sizeof(t.trace_id)) ||
        !read_hex(text + SPAN_AT, t.span_id, sizeof(t.span_id)) ||
        !read_hex(text + FLAGS_AT, &flags, 1))
        return false;
    if (is_zero(t.trace_id, sizeof(t.trace_id)) || is_zero(t.span_id, sizeof(t.span_id)))
        return false;
    t.sampled = flags & FLAG_SAMPLED;
    *out = t;
    return true;
}

void trace_hex(const uint8_t *bytes, size_t n, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = 0;
}

void traceparent_write(const struct traceparent *t, char out[TRACEPARENT_BYTES])
{
    char trace[2 * TRACE_ID_BYTES + 1], span[2 * SPAN_ID_BYTES + 1];
    trace_hex(t->trace_id, sizeof(t->trace_id), trace);
    trace_hex(t->span_id, sizeof(t->span_id), span);
    snprintf(out, TRACEPARENT_BYTES, "00-%s-%s-0%d", trace, span, t->sampled);
}

static void fill(struct rng *rng, uint8_t *id, size_t n)
{
    do
        for (size_t i = 0; i < n; i += 8) {
            uint64_t x = rng_u64(rng);
            memcpy(id + i, &x, 8);
        }
    while (is_zero(id, n));
}

void span_id_make(struct rng *rng, uint8_t id[SPAN_ID_BYTES])
{
    fill(rng, id, SPAN_ID_BYTES);
}

void trace_id_make(struct rng *rng, uint8_t id[TRACE_ID_BYTES])
{
    fill(rng, id, TRACE_ID_BYTES);
}
