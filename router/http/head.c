#include "router/http/head.h"

#include <string.h>
#include <strings.h>

#define CHUNK_LINE_BYTES_MAX 256u /* size and extensions */
#define TRAILER_BYTES_MAX 8192u

/* RFC 9110, 5.6.2. */
static bool is_token_char(unsigned char c)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
        return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

bool slice_is(struct slice s, const char *text)
{
    return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

static bool slice_is_nocase(struct slice s, const char *text)
{
    return s.n == strlen(text) && strncasecmp(s.p, text, s.n) == 0;
}

struct slice head_find(const struct head *h, const char *name)
{
    for (size_t i = 0; i < h->n_fields; i++)
        if (slice_is_nocase(h->fields[i].name, name))
            return h->fields[i].value;
    return (struct slice){NULL, 0};
}

static int refuse(const char **why, int status, const char *text)
{
    *why = text;
    return status;
}

static enum http_method method_of(struct slice s)
{
    static const struct {
        const char *name;
        enum http_method method;
    } known[] = {
        {"GET", HTTP_GET}, {"HEAD", HTTP_HEAD}, {"POST", HTTP_POST}, {"OPTIONS", HTTP_OPTIONS}};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (slice_is(s, known[i].name))
            return known[i].method;
    return HTTP_OTHER;
}

/* "http://host/path?query" and "/path?query" to "/path". False: neither. */
static bool path_of(struct slice target, enum http_method method, struct slice *path)
{
    for (size_t i = 0; i < target.n; i++)
        if (target.p[i] <= 0x20 || target.p[i] >= 0x7f || target.p[i] == '#')
            return false;
    if (slice_is(target, "*") && method == HTTP_OPTIONS) {
        *path = target;
        return true;
    }
    if (target.n > 7 && strncasecmp(target.p, "http://", 7) == 0) {
        const char *slash = memchr(target.p + 7, '/', target.n - 7);
        if (!slash)
            return false;
        target.n -= (size_t)(slash - target.p);
        target.p = slash;
    }
    if (target.n == 0 || target.p[0] != '/')
        return false;
    const char *query = memchr(target.p, '?', target.n);
    *path = (struct slice){target.p, query ? (size_t)(query - target.p) : target.n};
    return true;
}

static int parse_request_line(struct slice line, struct head *h, const char **why)
{
    const char *end = line.p + line.n;
    const char *sp1 = memchr(line.p, ' ', line.n);
    if (!sp1 || sp1 == line.p)
        return refuse(why, 400, "The request line is malformed.");
    for (const char *p = line.p; p < sp1; p++)
        if (!is_token_char((unsigned char)*p))
            return refuse(why, 400, "The request line is malformed.");
    const char *sp2 = memchr(sp1 + 1, ' ', (size_t)(end - sp1 - 1));
    if (!sp2)
        return refuse(why, 400, "The request line is malformed.");
    struct slice version = {sp2 + 1, (size_t)(end - sp2 - 1)};
    if (version.n != 8 || memcmp(version.p, "HTTP/", 5) != 0)
        return refuse(why, 400, "The request line is malformed.");
    if (slice_is(version, "HTTP/1.1"))
        h->minor = 1;
    else if (!slice_is(version, "HTTP/1.0"))
        return refuse(why, 505, "Only HTTP/1.1 and HTTP/1.0 are served.");
    h->method = method_of((struct slice){line.p, (size_t)(sp1 - line.p)});
    if (!path_of((struct slice){sp1 + 1, (size_t)(sp2 - sp1 - 1)}, h->method, &h->path))
        return refuse(why, 400, "The request target is malformed.");
    return 0;
}

static struct slice trimmed(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    return (struct slice){p, (size_t)(end - p)};
}

static int parse_field(struct slice line, struct head *h, const char **why)
{
    const char *colon = memchr(line.p, ':', line.n);
    if (!colon || colon == line.p)
        return refuse(why, 400, "A header line is malformed.");
    for (const char *p = line.p; p < colon; p++)
        if (!is_token_char((unsigned char)*p))
            return refuse(why, 400, "A header name is malformed.");
    struct slice value = trimmed(colon + 1, line.p + line.n);
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return refuse(why, 400, "A header value holds control characters.");
    }
    if (h->n_fields == HEAD_FIELDS_MAX)
        return refuse(why, 431, "The request has too many headers.");
    h->fields[h->n_fields++] = (struct head_field){{line.p, (size_t)(colon - line.p)}, value};
    return 0;
}

static bool parse_length(struct slice s, uint64_t *out)
{
    if (s.n == 0 || s.n > 18)
        return false;
    *out = 0;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9')
            return false;
        *out = *out * 10 + (uint64_t)(s.p[i] - '0');
    }
    return true;
}

/* Is `word` one of the elements of a comma-separated list? */
static bool list_has(struct slice list, const char *word)
{
    const char *p = list.p;
    const char *end = list.p + list.n;
    while (p < end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        const char *stop = comma ? comma : end;
        if (slice_is_nocase(trimmed(p, stop), word))
            return true;
        p = comma ? comma + 1 : end;
    }
    return false;
}

/* What the headers say about the message itself. */
static int read_framing(struct head *h, const char **why)
{
    bool has_length = false;
    bool has_coding = false;
    unsigned hosts = 0;
    bool close = h->minor == 0;
    for (size_t i = 0; i < h->n_fields; i++) {
        struct slice name = h->fields[i].name;
        struct slice value = h->fields[i].value;
        if (slice_is_nocase(name, "content-length")) {
            if (has_length || !parse_length(value, &h->content_length))
                return refuse(why, 400, "Content-Length is malformed.");
            has_length = true;
        } else if (slice_is_nocase(name, "transfer-encoding")) {
            if (has_coding || h->minor == 0)
                return refuse(why, 400, "Transfer-Encoding is malformed.");
            if (!slice_is_nocase(value, "chunked"))
                return refuse(why, 501, "No Transfer-Encoding but chunked is served.");
            has_coding = true;
        } else if (slice_is_nocase(name, "content-encoding")) {
            h->body_coded = h->body_coded || !slice_is_nocase(value, "identity");
        } else if (slice_is_nocase(name, "host")) {
            hosts++;
        } else if (slice_is_nocase(name, "connection")) {
            close = list_has(value, "close") ||
                    (close && !(h->minor == 0 && list_has(value, "keep-alive")));
        } else if (slice_is_nocase(name, "expect")) {
            if (!slice_is_nocase(value, "100-continue"))
                return refuse(why, 417, "No expectation but 100-continue is served.");
            h->expects_continue = h->minor == 1;
        }
    }
    if (has_length && has_coding)
        return refuse(why, 400, "Content-Length and Transfer-Encoding exclude each other.");
    if (hosts > 1 || (hosts == 0 && h->minor == 1))
        return refuse(why, 400, "A request has one Host header.");
    h->chunked = has_coding;
    h->keep_alive = !close;
    return 0;
}

int head_parse(const char *bytes, size_t n, struct head *h, const char **why)
{
    memset(h, 0, offsetof(struct head, fields));
    const char *p = bytes;
    const char *end = bytes + n;
    for (bool first = true; p < end; first = false) {
        const char *lf = memchr(p, '\n', (size_t)(end - p));
        if (!lf || lf == p || lf[-1] != '\r')
            return refuse(why, 400, "A line of the request's head does not end with CR LF.");
        struct slice line = {p, (size_t)(lf - 1 - p)};
        p = lf + 1;
        if (line.n == 0 && !first)
            return p == end ? read_framing(h, why)
                            : refuse(why, 400, "The request's head is malformed.");
        int status = first ? parse_request_line(line, h, why) : parse_field(line, h, why);
        if (status)
            return status;
    }
    return refuse(why, 400, "The request's head is malformed.");
}

/* ---- chunks --------------------------------------------------------------------------------- */

enum {
    CHUNK_SIZE_FIRST, /* wants a digit */
    CHUNK_SIZE,
    CHUNK_EXTENSION,
    CHUNK_SIZE_LF,
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_TRAILER_FIRST, /* at the start of a trailer line, or of the last, empty one */
    CHUNK_TRAILER,
    CHUNK_TRAILER_LF,
    CHUNK_LAST_LF,
};

void chunked_init(struct chunked *c)
{
    memset(c, 0, sizeof(*c));
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static enum chunked_result feed_size(struct chunked *c, char ch)
{
    int digit = hex_value(ch);
    if (++c->line > CHUNK_LINE_BYTES_MAX)
        return CHUNKED_BAD;
    if (c->state == CHUNK_EXTENSION) {
        if (ch == '\r')
            c->state = CHUNK_SIZE_LF;
        return ch == '\n' ? CHUNKED_BAD : CHUNKED_MORE;
    }
    if (digit >= 0) {
        if (c->left >> 56)
            return CHUNKED_TOO_LONG;
        c->left = c->left << 4 | (uint64_t)digit;
        c->state = CHUNK_SIZE;
        return CHUNKED_MORE;
    }
    if (c->state == CHUNK_SIZE_FIRST)
        return CHUNKED_BAD;
    if (ch == '\r')
        c->state = CHUNK_SIZE_LF;
    else if (ch == ';' || ch == ' ' || ch == '\t')
        c->state = CHUNK_EXTENSION;
    else
        return CHUNKED_BAD;
    return CHUNKED_MORE;
}

static enum chunked_result feed_trailer(struct chunked *c, char ch)
{
    if (++c->trail > TRAILER_BYTES_MAX)
        return CHUNKED_BAD;
    switch (c->state) {
    case CHUNK_TRAILER_FIRST:
        c->state = ch == '\r' ? CHUNK_LAST_LF : CHUNK_TRAILER;
        return ch == '\n' ? CHUNKED_BAD : CHUNKED_MORE;
    case CHUNK_TRAILER:
        if (ch == '\r')
            c->state = CHUNK_TRAILER_LF;
        return ch == '\n' ? CHUNKED_BAD : CHUNKED_MORE;
    case CHUNK_TRAILER_LF:
        c->state = CHUNK_TRAILER_FIRST;
        return ch == '\n' ? CHUNKED_MORE : CHUNKED_BAD;
    default:
        return ch == '\n' ? CHUNKED_DONE : CHUNKED_BAD;
    }
}

/* One byte that is not data. */
static enum chunked_result feed_framing(struct chunked *c, char ch)
{
    switch (c->state) {
    case CHUNK_SIZE_FIRST:
    case CHUNK_SIZE:
    case CHUNK_EXTENSION:
        return feed_size(c, ch);
    case CHUNK_SIZE_LF:
        c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER_FIRST;
        c->line = 0;
        return ch == '\n' ? CHUNKED_MORE : CHUNKED_BAD;
    case CHUNK_DATA_CR:
        c->state = CHUNK_DATA_LF;
        return ch == '\r' ? CHUNKED_MORE : CHUNKED_BAD;
    case CHUNK_DATA_LF:
        c->state = CHUNK_SIZE_FIRST;
        return ch == '\n' ? CHUNKED_MORE : CHUNKED_BAD;
    default:
        return feed_trailer(c, ch);
    }
}

enum chunked_result chunked_feed(struct chunked *c, const char *bytes, size_t n, struct buf *body,
                                 size_t *used)
{
    size_t i = 0;
    enum chunked_result result = CHUNKED_MORE;
    while (i < n && result == CHUNKED_MORE) {
        if (c->state != CHUNK_DATA) {
            result = feed_framing(c, bytes[i++]);
            /* A size that can't fit is refused before its data comes. */
            if (result == CHUNKED_MORE && c->state == CHUNK_DATA && body->max_bytes &&
                c->left > body->max_bytes - body->len)
                result = CHUNKED_TOO_LONG;
            continue;
        }
        size_t take = n - i < c->left ? n - i : (size_t)c->left;
        buf_add(body, bytes + i, take);
        if (body->failed)
            result = CHUNKED_TOO_LONG;
        i += take;
        c->left -= take;
        if (c->left == 0)
            c->state = CHUNK_DATA_CR;
    }
    *used = i;
    return result;
}
