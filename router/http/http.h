/* http.h: the router's HTTP server: OpenAI's API in front of a pool.
 *
 * What: reads requests, checks every field, renders and tokenises, starts generations in the pool,
 * turns tokens into text and text into JSON or server-sent events. A client that goes away cancels
 * its generations at once.
 *
 * Thread: the event loop, for every call. Memory: a connection holds at most header_bytes_max +
 * body_bytes_max of input and output_bytes_max of output, and what its request's arena holds
 * (request_bytes_max).
 */
#ifndef ARGOSY_ROUTER_HTTP_HTTP_H
#define ARGOSY_ROUTER_HTTP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct event_base;
struct http;
struct keyring;
struct model_texts;
struct otlp;
struct pool;

/* Limits. http_config_default gives each a value that suits one machine. Strings are copied by
 * http_open. */
struct http_config {
    const char *address; /* numeric, IPv4 or IPv6 */
    uint16_t port;       /* 0: the system chooses, http_port tells */
    uint32_t connections_max;
    uint32_t client_connections_max;  /* from one address */
    uint32_t connection_requests_max; /* after so many a connection is closed */
    uint32_t header_bytes_max;        /* request line and headers: 431 past it */
    uint32_t body_bytes_max;          /* 413 past it */
    uint64_t bodies_bytes_max;        /* of all requests together: 503 past it */
    uint32_t request_bytes_max; /* memory that one request may take while it is checked and runs */
    uint32_t output_bytes_max;  /* unsent output of a connection: past it the client is too slow */
    uint32_t header_timeout_ms; /* from a request's first byte to the end of its headers: 408 */
    uint32_t body_timeout_ms;   /* from there to the end of its body: 408 */
    uint32_t idle_timeout_ms;   /* between requests */
    uint32_t write_timeout_ms;  /* nothing could be written for so long: the client is gone */
    uint32_t choices_max;       /* n, and prompts × n */
    uint32_t stop_max;          /* stop strings of a request */
    uint32_t stop_bytes_max;    /* of one of them */
    uint32_t deadline_ms;       /* of a generation; 0: the pool's */
    struct keyring *keys;       /* who may ask; borrowed; NULL: everybody */
    bool metrics_open;          /* /metrics wants no key */
    struct otlp *otlp;          /* where spans go, borrowed; NULL: nowhere */
    bool explorer;              /* serve /explorer */
    bool metrics;               /* serve /metrics */
    uint32_t viewers_max;       /* of the explorer, at once */
    const char *cors_origin;    /* Access-Control-Allow-Origin; NULL: none is sent */
};

struct http_config http_config_default(void);

/* Listens. `pool` and `texts` are borrowed and outlive the server. The number of models is fixed
 * from here on. */
int http_open(struct event_base *base, const struct http_config *config, struct pool *pool,
              const struct model_texts *texts, struct http **out, struct err *e);
/* Closes every connection and cancels what runs. NULL is fine. */
void http_free(struct http *h);

/* The port that it listens on. */
uint16_t http_port(const struct http *h);
/* No further connection is taken, idle ones are closed, and an answer that is under way is its
 * connection's last. /ready says 503. */
void http_stop_accepting(struct http *h);
/* Requests whose answer is not complete: 0 is when a draining router may end. */
uint32_t http_requests_running(const struct http *h);

#endif
