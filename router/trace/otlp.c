#include "router/trace/otlp.h"

#include <arpa/inet.h>
#include <event2/buffer.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/json.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/base/version.h"

#define PERIOD_MS 1000
/* A queue that is so long goes at once. */
#define BATCH_BYTES (256u << 10)
#define TIMEOUT_S 10
#define TRIES_MAX 5
/* Of one request. */
#define SPANS_BYTES_MAX (64u << 10)
#define ANSWER_BYTES_MAX (64 << 10)
#define DEFAULT_PORT 4318
#define DEFAULT_PATH "/v1/traces"

struct otlp {
    struct event_base *base;
    struct evdns_base *dns; /* NULL: the host is an address */
    struct evhttp_connection *conn;
    struct event *timer;
    char host[256];
    char path[256];
    uint16_t port;
    struct rng ids;
    struct buf head; /* of every batch: the resource */
    size_t queue_bytes_max;
    struct buf spans; /* of the request that is added */
    struct buf queue; /* spans with commas between them */
    uint32_t n_queued;
    struct buf batch; /* what is under way, or comes again */
    uint32_t n_batch; /* 0: nothing */
    uint32_t tries;
    bool on_the_way;
    struct otlp_counts counts;
};

/* ---- the address ------------------------------------------------------------------------------
 */

static int read_url(const char *url, struct otlp *o, struct err *e)
{
    struct evhttp_uri *uri = evhttp_uri_parse(url);
    const char *scheme = uri ? evhttp_uri_get_scheme(uri) : NULL;
    const char *host = uri ? evhttp_uri_get_host(uri) : NULL;
    const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
    int port = uri ? evhttp_uri_get_port(uri) : -1;
    int rc = 0;
    if (scheme && strcmp(scheme, "https") == 0)
        rc = err_set(e, ERR_CONFIG, "'%.200s': only http is spoken to a collector", url);
    else if (!scheme || strcmp(scheme, "http") != 0 || !host || !*host ||
             strlen(host) >= sizeof(o->host) || (path && strlen(path) >= sizeof(o->path)) ||
             evhttp_uri_get_query(uri) || port == 0)
        rc = err_set(e, ERR_CONFIG, "'%.200s' is no URL of the form http://HOST:PORT/PATH", url);
    if (rc == 0) {
        snprintf(o->host, sizeof(o->host), "%s", host);
        snprintf(o->path, sizeof(o->path), "%s",
                 path && strcmp(path, "/") > 0 ? path : DEFAULT_PATH);
        o->port = (uint16_t)(port > 0 ? port : DEFAULT_PORT);
    }
    if (uri)
        evhttp_uri_free(uri);
    return rc;
}

int otlp_check_url(const char *url, struct err *e)
{
    struct otlp o;
    return read_url(url, &o, e);
}

static bool is_address(const char *host)
{
    struct in6_addr a;
    return inet_pton(AF_INET, host, &a) == 1 || inet_pton(AF_INET6, host, &a) == 1 ||
           host[0] == '[';
}

/* ---- batches ----------------------------------------------------------------------------------
 */

static void put_resource(struct json *w, const char *key, const char *value)
{
    json_obj(w);
    json_key(w, "key");
    json_str(w, key);
    json_key(w, "value");
    json_obj(w);
    json_key(w, "stringValue");
    json_str(w, value);
    json_obj_end(w);
    json_obj_end(w);
}

static void write_head(struct buf *out, const char *instance)
{
    struct json w;
    buf_adds(out, "{\"resourceSpans\":[{\"resource\":{\"attributes\":");
    json_init(&w, out);
    json_arr(&w);
    put_resource(&w, "service.name", "argosy-router");
    put_resource(&w, "service.version", ARGOSY_VERSION);
    put_resource(&w, "service.instance.id", instance);
    json_arr_end(&w);
    buf_adds(out, "},\"scopeSpans\":[{\"scope\":{\"name\":\"argosy\",\"version\":\"" ARGOSY_VERSION
                  "\"},\"spans\":[");
}

static void set_timer(struct otlp *o, uint32_t ms)
{
    struct timeval tv = {ms / 1000, (suseconds_t)(ms % 1000) * 1000};
    evtimer_add(o->timer, &tv);
}

static void end_batch(struct otlp *o, uint64_t *count)
{
    *count += o->n_batch;
    o->n_batch = 0;
    o->tries = 0;
    buf_clear(&o->batch);
}

/* 429 and these may do better later (OTLP, "Failures"); 0: there was no answer. */
static bool may_come_again(int status)
{
    return status == 0 || status == 429 || status == 502 || status == 503 || status == 504;
}

static void on_answer(struct evhttp_request *req, void *ctx)
{
    struct otlp *o = ctx;
    int status = req ? evhttp_request_get_response_code(req) : 0;
    o->on_the_way = false;
    if (status >= 200 && status < 300) {
        end_batch(o, &o->counts.sent);
    } else {
        o->counts.failures++;
        if (o->tries == 1)
            log_warn("spans were not taken", "collector=%s:%u status=%d spans=%u", o->host, o->port,
                     status, o->n_batch);
        if (!may_come_again(status) || o->tries >= TRIES_MAX)
            end_batch(o, &o->counts.dropped);
    }
    if (o->n_batch)
        set_timer(o, PERIOD_MS << (o->tries - 1));
    else if (o->n_queued)
        set_timer(o, PERIOD_MS);
}

static int post(struct otlp *o)
{
    struct evhttp_request *req = evhttp_request_new(on_answer, o);
    if (!req)
        return -1;
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    char host[sizeof(o->host) + 8];
    snprintf(host, sizeof(host), "%s:%u", o->host, o->port);
    if (evhttp_add_header(headers, "Host", host) ||
        evhttp_add_header(headers, "Content-Type", "application/json") ||
        evbuffer_add(evhttp_request_get_output_buffer(req), o->batch.data, o->batch.len)) {
        evhttp_request_free(req);
        return -1;
    }
    /* When it fails the request is gone. */
    return evhttp_make_request(o->conn, req, EVHTTP_REQ_POST, o->path);
}

/* What waits becomes the batch. */
static void take_queue(struct otlp *o)
{
    buf_clear(&o->batch);
    buf_add(&o->batch, o->head.data, o->head.len);
    buf_add(&o->batch, o->queue.data, o->queue.len);
    buf_adds(&o->batch, "]}]}]}");
    o->n_batch = o->n_queued;
    o->n_queued = 0;
    buf_clear(&o->queue);
}

static void send_batch(struct otlp *o)
{
    if (o->on_the_way)
        return;
    if (o->n_batch == 0 && o->n_queued)
        take_queue(o);
    if (o->n_batch == 0)
        return;
    if (o->batch.failed) {
        /* No memory. */
        end_batch(o, &o->counts.dropped);
        return;
    }
    o->tries++;
    o->on_the_way = true;
    if (post(o) != 0)
        on_answer(NULL, o);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    send_batch(ctx);
}

void otlp_add(struct otlp *o, const struct journal *j, const struct span_request *r)
{
    size_t before = o->queue.len;
    buf_clear(&o->spans);
    uint32_t n = span_write(j, r, &o->ids, &o->spans);
    if (o->spans.failed || before + 1 + o->spans.len > o->queue_bytes_max) {
        o->counts.dropped += n;
        return;
    }
    if (before)
        buf_addc(&o->queue, ',');
    buf_add(&o->queue, o->spans.data, o->spans.len);
    o->n_queued += n;
    if (o->on_the_way || o->n_batch)
        return; /* on_answer goes on with it */
    if (o->queue.len >= BATCH_BYTES)
        set_timer(o, 0);
    else if (before == 0)
        set_timer(o, PERIOD_MS);
}

void otlp_flush(struct otlp *o)
{
    if (!o->on_the_way && o->tries == 0)
        send_batch(o);
}

bool otlp_is_idle(const struct otlp *o)
{
    return o->n_batch == 0 && o->n_queued == 0;
}

struct otlp_counts otlp_counts(const struct otlp *o)
{
    return o->counts;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int dial(struct otlp *o, struct err *e)
{
    if (!is_address(o->host)) {
        o->dns = evdns_base_new(o->base, EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                             EVDNS_BASE_DISABLE_WHEN_INACTIVE);
        if (!o->dns)
            return err_set(e, ERR_CONFIG, "no resolver for '%.200s': give its address", o->host);
    }
    o->conn = evhttp_connection_base_new(o->base, o->dns, o->host, o->port);
    o->timer = evtimer_new(o->base, on_timer, o);
    if (!o->conn || !o->timer)
        return err_set(e, ERR_NOMEM, "no memory for the spans");
    evhttp_connection_set_timeout(o->conn, TIMEOUT_S);
    evhttp_connection_set_max_body_size(o->conn, ANSWER_BYTES_MAX);
    evhttp_connection_set_max_headers_size(o->conn, ANSWER_BYTES_MAX);
    return 0;
}

int otlp_open(const struct otlp_config *c, struct event_base *base, struct otlp **out,
              struct err *e)
{
    struct otlp *o = calloc(1, sizeof(*o));
    uint64_t seed;
    *out = NULL;
    if (!o)
        return err_set(e, ERR_NOMEM, "no memory for the spans");
    o->base = base;
    rng_entropy(&seed, sizeof(seed));
    rng_init(&o->ids, seed);
    buf_init(&o->head, 0);
    buf_init(&o->batch, 0);
    buf_init(&o->queue, 0);
    buf_init(&o->spans, SPANS_BYTES_MAX);
    o->queue_bytes_max = c->queue_bytes_max;
    write_head(&o->head, c->instance);
    int rc = read_url(c->url, o, e);
    if (rc == 0)
        rc = dial(o, e);
    if (rc == 0 && o->head.failed)
        rc = err_set(e, ERR_NOMEM, "no memory for the spans");
    if (rc < 0)
        otlp_free(o);
    else
        *out = o;
    return rc;
}

void otlp_free(struct otlp *o)
{
    if (!o)
        return;
    /* A request that is on it goes with it. */
    if (o->conn)
        evhttp_connection_free(o->conn);
    if (o->dns)
        evdns_base_free(o->dns, 0);
    if (o->timer)
        event_free(o->timer);
    buf_release(&o->head);
    buf_release(&o->queue);
    buf_release(&o->spans);
    buf_release(&o->batch);
    free(o);
}
