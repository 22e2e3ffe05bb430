#include "router/trace/traceparent.h"

#include <string.h>

#include "runtime/base/hex.h"
#include "runtime/base/rng.h"

#define VERSION_AT 0
#define TRACE_AT 3
#define SPAN_AT 36
#define FLAGS_AT 53
#define TEXT_BYTES 55
#define FLAG_SAMPLED 1

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
    if (n < TEXT_BYTES || !hex_read(text + VERSION_AT, &version, 1) || version == 0xff)
        return false;
    if (version == 0 ? n != TEXT_BYTES : n > TEXT_BYTES && text[TEXT_BYTES] != '-')
        return false;
    if (text[TRACE_AT - 1] != '-' || text[SPAN_AT - 1] != '-' || text[FLAGS_AT - 1] != '-')
        return false;
    if (!hex_read(text + TRACE_AT, t.trace_id, sizeof(t.trace_id)) ||
        !hex_read(text + SPAN_AT, t.span_id, sizeof(t.span_id)) ||
        !hex_read(text + FLAGS_AT, &flags, 1))
        return false;
    if (is_zero(t.trace_id, sizeof(t.trace_id)) || is_zero(t.span_id, sizeof(t.span_id)))
        return false;
    t.sampled = flags & FLAG_SAMPLED;
    *out = t;
    return true;
}

void traceparent_write(const struct traceparent *t, char out[TRACEPARENT_BYTES])
{
    hex_write(t->trace_id, sizeof(t->trace_id), mempcpy(out, "00-", TRACE_AT));
    out[SPAN_AT - 1] = '-';
    hex_write(t->span_id, sizeof(t->span_id), out + SPAN_AT);
    memcpy(out + FLAGS_AT - 1, t->sampled ? "-01" : "-00", 4);
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
