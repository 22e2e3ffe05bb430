#include "benchmarks/policy/sim/trace.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const char *at, *end;
    size_t line;
    size_t max_requests, max_hashes;
};

static bool take(struct reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool take_number(struct reader *r, uint64_t max, uint64_t *out)
{
    const char *start = r->at;
    uint64_t x = 0;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') {
        x = x * 10 + (uint64_t)(*r->at++ - '0');
        if (x > max)
            return false;
    }
    *out = x;
    return r->at > start;
}

static int wrong(const struct reader *r, struct err *e)
{
    return err_set(e, ERR_FORMAT, "line %zu of the trace is not MS,PROMPT,OUTPUT[,BLOCKS]",
                   r->line);
}

static void *grow(void *items, size_t n, size_t *max, size_t size)
{
    if (n < *max)
        return items;
    size_t more = *max ? *max * 2 : 1024;
    void *p = realloc(items, more * size);
    if (p)
        *max = more;
    return p;
}

/* Numbers of blocks are names: spread over 64 bits they are hashes, as good as those of tokens. */
static uint64_t hash_of(uint64_t name)
{
    uint64_t h = (name + 1) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32) * 0xff51afd7ed558ccdu;
    return (h ^ h >> 29) | 1;
}

static int add_hash(struct trace *t, struct reader *r, uint64_t name, struct err *e)
{
    uint64_t *more = grow(t->hashes, t->n_hashes, &r->max_hashes, sizeof(*more));
    if (!more || t->n_hashes >= TRACE_BLOCKS_MAX)
        return err_set(e, ERR_LIMIT, "the trace has more than %u blocks", TRACE_BLOCKS_MAX);
    t->hashes = more;
    t->hashes[t->n_hashes++] = hash_of(name);
    return 0;
}

/* No more than the prompt has, the last one may be a part. */
static int read_blocks(struct trace *t, struct reader *r, size_t max, struct err *e)
{
    size_t end = t->n_hashes + max;
    do {
        uint64_t first, last;
        if (!take_number(r, UINT32_MAX, &first))
            return wrong(r, e);
        last = first;
        if (take(r, '-') && (!take_number(r, UINT32_MAX, &last) || last < first))
            return wrong(r, e);
        if (last - first >= end - t->n_hashes)
            return err_set(e, ERR_FORMAT, "line %zu of the trace has more blocks than its prompt",
                           r->line);
        for (uint64_t b = first; b <= last; b++) {
            int rc = add_hash(t, r, b, e);
            if (rc < 0)
                return rc;
        }
    } while (take(r, ' '));
    return 0;
}

static int read_request(struct trace *t, struct reader *r, struct err *e)
{
    uint64_t ms, prompt, output;
    struct trace_request *more = grow(t->requests, t->n, &r->max_requests, sizeof(*more));
    if (!more || t->n >= TRACE_REQUESTS_MAX)
        return err_set(e, ERR_LIMIT, "the trace has more than %u requests", TRACE_REQUESTS_MAX);
    t->requests = more;
    if (!take_number(r, UINT32_MAX, &ms) || !take(r, ',') ||
        !take_number(r, TRACE_TOKENS_MAX, &prompt) || !take(r, ',') ||
        !take_number(r, TRACE_TOKENS_MAX, &output))
        return wrong(r, e);
    struct trace_request *q = &t->requests[t->n];
    *q = (struct trace_request){.at_s = (double)ms / 1000,
                                .prompt = prompt ? (uint32_t)prompt : 1,
                                .output = output ? (uint32_t)output : 1,
                                .first_block = t->n_hashes};
    if (t->n > 0 && q->at_s < q[-1].at_s)
        return err_set(e, ERR_FORMAT, "line %zu of the trace is before the last one", r->line);
    size_t blocks = t->block_tokens ? (size_t)q->prompt / t->block_tokens + 1 : 0;
    int rc = take(r, ',') ? read_blocks(t, r, blocks, e) : 0;
    if (rc < 0)
        return rc;
    size_t named = t->n_hashes - q->first_block;
    size_t whole = t->block_tokens ? (q->prompt - 1) / t->block_tokens : 0;
    q->n_blocks = (uint32_t)(named < whole ? named : whole);
    t->n++;
    return take(r, '\n') || r->at == r->end ? 0 : wrong(r, e);
}

int trace_read(const char *text, size_t n, struct trace *out, struct err *e)
{
    static const char head[] = "# block_tokens ";
    struct reader r = {.at = text, .end = text + n, .line = 1};
    struct trace t = {0};
    int rc = 0;
    *out = t;
    if (n > sizeof(head) && memcmp(text, head, sizeof(head) - 1) == 0) {
        uint64_t tokens;
        r.at += sizeof(head) - 1;
        if (!take_number(&r, TRACE_TOKENS_MAX, &tokens) || !take(&r, '\n'))
            return wrong(&r, e);
        t.block_tokens = (uint32_t)tokens;
        r.line++;
    }
    for (; rc == 0 && r.at < r.end; r.line++)
        rc = read_request(&t, &r, e);
    if (rc < 0)
        trace_release(&t);
    *out = t;
    return rc;
}

int trace_open(const char *path, struct trace *out, struct err *e)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, ERR_CONFIG, "%s: cannot be opened", path);
    size_t n = 0, max = 0;
    char *text = NULL;
    for (size_t got = 1; got > 0; n += got) {
        char *more = grow(text, n + 65536, &max, 1);
        while (more && max < n + 65536)
            more = grow(more, max, &max, 1);
        if (!more)
            break;
        text = more;
        got = fread(text + n, 1, 65536, f);
    }
    fclose(f);
    int rc = trace_read(text ? text : "", n, out, e);
    free(text);
    return rc < 0 ? err_prefix(e, "%s", path) : 0;
}

void trace_release(struct trace *t)
{
    free(t->requests);
    free(t->hashes);
    *t = (struct trace){0};
}
