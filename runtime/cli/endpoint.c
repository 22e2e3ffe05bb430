#include "runtime/cli/endpoint.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define REFUSAL_BYTES_MAX (64u << 10)
#define DEFAULT_PORT 8080

struct call {
    struct endpoint *endpoint;
    struct evhttp_request *request; /* NULL once libevent is done with it */
    endpoint_data_fn *fn;
    void *ctx;
    struct buf refusal; /* body of an answer that is no 200 */
    int status;
    int rc;
    bool ended;
    struct err *e;
};

int endpoint_init(struct endpoint *p, const char *url, struct err *e)
{
    memset(p, 0, sizeof *p);
    struct evhttp_uri *uri = evhttp_uri_parse(url);
    const char *scheme = uri ? evhttp_uri_get_scheme(uri) : NULL;
    const char *host = uri ? evhttp_uri_get_host(uri) : NULL;
    int rc = 0;
    if (!scheme || strcmp(scheme, "http") != 0 || !host || !*host ||
        strlen(host) >= sizeof p->host) {
        rc = err_set(e, ERR_CONFIG, "'%.200s' is no URL of the form http://host:port", url);
        goto out;
    }
    const char *path = evhttp_uri_get_path(uri);
    size_t n = path ? strlen(path) : 0;
    while (n && path[n - 1] == '/')
        n--;
    if (n >= sizeof p->prefix) {
        rc = err_set(e, ERR_CONFIG, "the URL's path is too long");
        goto out;
    }
    snprintf(p->host, sizeof p->host, "%s", host);
    snprintf(p->prefix, sizeof p->prefix, "%.*s", (int)(n ? n : 3), n ? path : "/v1");
    int port = evhttp_uri_get_port(uri);
    p->port = (uint16_t)(port > 0 ? port : DEFAULT_PORT);
    p->base = event_base_new();
    if (!p->base)
        rc = err_set(e, ERR_NOMEM, "can't make an event loop");
out:
    if (uri)
        evhttp_uri_free(uri);
    return rc;
}

void endpoint_release(struct endpoint *p)
{
    if (p->base)
        event_base_free(p->base);
    p->base = NULL;
}

static void stop(struct call *c, int rc)
{
    c->rc = rc;
    c->ended = true;
    event_base_loopbreak(c->endpoint->base);
}

static void on_chunk(struct evhttp_request *req, void *arg)
{
    struct call *c = arg;
    struct evbuffer *in = evhttp_request_get_input_buffer(req);
    c->status = evhttp_request_get_response_code(req);
    char bytes[8192];
    for (int n; !c->ended && (n = evbuffer_remove(in, bytes, sizeof bytes)) > 0;) {
        if (c->status != HTTP_OK) {
            buf_add(&c->refusal, bytes, (size_t)n);
            continue;
        }
        int rc = c->fn(c->ctx, bytes, (size_t)n, c->e);
        if (rc != 0)
            stop(c, rc);
    }
}

static void on_error(enum evhttp_request_error error, void *arg)
{
    struct call *c = arg;
    const char *why = error == EVREQ_HTTP_TIMEOUT ? "it was silent for too long"
                      : error == EVREQ_HTTP_EOF   ? "it closed the connection"
                                                  : "the connection broke";
    if (!c->ended)
        c->rc = err_set(c->e, ERR_PEER, "%s:%u did not answer to the end: %s", c->endpoint->host,
                        c->endpoint->port, why);
}

static void on_done(struct evhttp_request *req, void *arg)
{
    struct call *c = arg;
    c->request = NULL;
    if (req && evhttp_request_get_response_code(req) != 0) {
        c->status = evhttp_request_get_response_code(req);
        on_chunk(req, c);
    } else if (c->rc == 0 && !c->ended) {
        c->rc = err_set(c->e, ERR_PEER, "nothing answers at %s:%u. Is 'argosy up' running there?",
                        c->endpoint->host, c->endpoint->port);
    }
    c->ended = true;
    event_base_loopbreak(c->endpoint->base);
}

static void on_interrupt(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    stop(arg, ENDPOINT_INTERRUPTED);
}

/* OpenAI's error shape, else the start of whatever came. */
static int refused(const struct call *c, struct err *e)
{
    struct json_object *root = json_tokener_parse(buf_str(&c->refusal));
    struct json_object *error = NULL, *message = NULL;
    const char *words = NULL;
    if (json_object_object_get_ex(root, "error", &error) &&
        json_object_object_get_ex(error, "message", &message))
        words = json_object_get_string(message);
    int rc = words ? err_set(e, ERR_PEER, "%s (HTTP %d)", words, c->status)
                   : err_set(e, ERR_PEER, "HTTP %d: %.200s", c->status, buf_str(&c->refusal));
    json_object_put(root);
    return rc;
}

static struct evhttp_request *new_request(struct call *c, const struct buf *body)
{
    struct evhttp_request *req = evhttp_request_new(on_done, c);
    if (!req)
        return NULL;
    evhttp_request_set_chunked_cb(req, on_chunk);
    evhttp_request_set_error_cb(req, on_error);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
    char host[sizeof c->endpoint->host + 8];
    snprintf(host, sizeof host, "%s:%u", c->endpoint->host, c->endpoint->port);
    evhttp_add_header(headers, "Host", host);
    evhttp_add_header(headers, "Connection", "close");
    if (c->endpoint->authorization)
        evhttp_add_header(headers, "Authorization", c->endpoint->authorization);
    if (body) {
        evhttp_add_header(headers, "Content-Type", "application/json");
        evbuffer_add(evhttp_request_get_output_buffer(req), body->data, body->len);
    }
    return req;
}

int endpoint_call(struct endpoint *p, const char *path, const struct buf *body,
                  endpoint_data_fn *fn, void *ctx, struct err *e)
{
    struct err own = {0};
    struct call c = {.endpoint = p, .fn = fn, .ctx = ctx, .e = e ? e : &own};
    buf_init(&c.refusal, REFUSAL_BYTES_MAX);
    char uri[sizeof p->prefix + 128];
    snprintf(uri, sizeof uri, "%s%s", p->prefix, path);

    struct evhttp_connection *conn = evhttp_connection_base_new(p->base, NULL, p->host, p->port);
    struct event *interrupt = evsignal_new(p->base, SIGINT, on_interrupt, &c);
    c.request = new_request(&c, body);
    if (!conn || !interrupt || !c.request) {
        c.rc = err_set(c.e, ERR_NOMEM, "no memory for a request");
        if (c.request)
            evhttp_request_free(c.request);
        goto out;
    }
    evhttp_connection_set_timeout(conn, ENDPOINT_SILENCE_S);
    event_add(interrupt, NULL);
    if (evhttp_make_request(conn, c.request, body ? EVHTTP_REQ_POST : EVHTTP_REQ_GET, uri) != 0)
        c.rc = err_set(c.e, ERR_PEER, "can't reach %s:%u", p->host, p->port);
    while (c.rc == 0 && !c.ended)
        event_base_dispatch(p->base);
    if (c.rc == 0 && c.status != HTTP_OK)
        c.rc = refused(&c, c.e);
out:
    /* Freeing the connection frees a request that is still on it. */
    if (conn)
        evhttp_connection_free(conn);
    if (interrupt)
        event_free(interrupt);
    buf_release(&c.refusal);
    return c.rc;
}
