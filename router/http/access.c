#include "router/http/access.h"

#include "router/http/http_internal.h"
#include "router/http/request.h"
#include "router/http/route.h"
#include "router/trace/otlp.h"
#include "runtime/base/clock.h"
#include "runtime/base/hex.h"
#include "runtime/base/log.h"

const char *access_error(int status)
{
    switch (status) {
    case 429:
        return "busy";
    case 502:
        return "worker_failed";
    case 503:
        return "unavailable";
    case 504:
        return "deadline";
    default:
        return status < 500 ? "invalid_request" : "internal";
    }
}

static double ms_between(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? (double)(to_ns - from_ns) / 1e6 : 0;
}

/* Never a prompt, an answer or a path as it was sent: names of ours, and the request's id, which is
 * plain. */
static void write_line(const struct request *r)
{
    const struct journal *j = &r->journal;
    const char *path = r->route ? r->route->path : "-";
    char trace[2 * TRACE_ID_BYTES + 1];
    hex_write(j->trace.trace_id, TRACE_ID_BYTES, trace);
    double ms = ms_between(j->start_ns, j->end_ns);
    if (j->model)
        log_info("request",
                 "id=%s path=%s model=\"%s\" status=%d error=%s prompt_tokens=%u cached_tokens=%u "
                 "output_tokens=%u ttft_ms=%.1f ms=%.1f worker=%s moves=%u trace=%s",
                 r->id, path, j->model, j->status, j->error ? j->error : "-", j->prompt_tokens,
                 j->cached_tokens, j->output_tokens, ms_between(j->start_ns, j->first_ns), ms,
                 *journal_worker(j) ? journal_worker(j) : "-", j->moves, trace);
    else if (j->error || (r->route && r->route->methods == HTTP_POST))
        log_info("request", "id=%s path=%s status=%d error=%s ms=%.1f trace=%s", r->id, path,
                 j->status, j->error ? j->error : "-", ms, trace);
    else
        log_debug("request", "id=%s path=%s status=%d ms=%.1f", r->id, path, j->status, ms);
}

/* OPTIONS and the like come here too. */
static const char *method_name(enum http_method m)
{
    return m == HTTP_POST ? "POST" : "_OTHER";
}

static void send_spans(const struct request *r)
{
    struct span_request of = {.method = method_name(r->method),
                              .route = r->route->path,
                              .id = r->id,
                              .wall_ns = clock_wall_ns()};
    otlp_add(r->http->config.otlp, &r->journal, &of);
}

void access_end(struct request *r)
{
    r->journal.end_ns = clock_mono_ns();
    metrics_request(&r->http->metrics, &r->journal);
    if (r->journal.model)
        history_request(&r->http->explorer.history, r->journal.error != NULL,
                        r->journal.prompt_tokens);
    write_line(r);
    if (r->http->config.otlp && r->journal.trace.sampled && r->route &&
        r->route->methods == HTTP_POST)
        send_spans(r);
}
