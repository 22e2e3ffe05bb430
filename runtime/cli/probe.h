/* probe.h: asks a router's /ready until it says yes.
 *
 * Thread: that of the event loop. The callback comes once; it may free nothing of the probe.
 */
#ifndef ARGOSY_CLI_PROBE_H
#define ARGOSY_CLI_PROBE_H

#include <stdint.h>

struct event;
struct event_base;
struct evhttp_connection;

typedef void probe_ready_fn(void *ctx);

struct probe {
    struct event_base *base;
    const char *host; /* borrowed */
    uint16_t port;
    probe_ready_fn *on_ready;
    void *ctx;
    struct event *again;
    struct evhttp_connection *conn;
};

/* 0 or ERR_NOMEM. */
int probe_start(struct probe *p, struct event_base *base, const char *host, uint16_t port,
                probe_ready_fn *on_ready, void *ctx);
void probe_release(struct probe *p);

#endif
