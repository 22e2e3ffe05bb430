/* conn_internal.h: a connection's state, for the three files that share it: conn.c (life, events,
 * output), conn_read.c (input to requests), request.c (answers). */
#ifndef ARGOSY_ROUTER_HTTP_CONN_INTERNAL_H
#define ARGOSY_ROUTER_HTTP_CONN_INTERNAL_H

#include <event2/util.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/http/head.h"
#include "runtime/base/buf.h"

struct bufferevent;
struct client;
struct event;
struct http;
struct request;

enum conn_state {
    CONN_IDLE,
    CONN_HEAD,
    CONN_BODY,
    CONN_BUSY,
    CONN_FLUSH,
    CONN_LINGER,
    CONN_DEAD,
};

struct conn {
    struct http *http;
    struct client *client; /* whose it is */
    uint32_t n_answers;    /* that it has carried */
    struct conn *prev, *next;
    struct conn *dirty_next; /* of http.dirty */
    struct bufferevent *bev;
    struct event *timer;
    evutil_socket_t fd;
    enum conn_state state;
    bool dirty;
    bool keep_alive;
    bool chunked_out; /* the answer under way goes out in chunks */
    bool chunked_in;
    bool stream;
    bool last_chunk; /* the chunk that says the end is due */
    bool eof;        /* the client sends no more */
    size_t scanned;  /* bytes of a head that hold no end of it */
    uint64_t body_left;
    struct chunked chunks;
    struct buf out; /* not sent yet: `plain` bytes as they are, the rest is one chunk */
    size_t plain;
    struct request *request;
};

/* It is to be looked at when this turn of the loop ends. */
void conn_mark(struct conn *c);
void conn_set_timer(struct conn *c, uint32_t ms);
/* Output that the socket did not take yet. */
size_t conn_unsent_bytes(const struct conn *c);
/* It is over, now. Its request's owner is told. */
void conn_close(struct conn *c);
/* Does what the input allows, one request at most. */
void conn_advance(struct conn *c);
/* Answers with an error and ends the connection: what the client still sends is not understood. */
void conn_refuse(struct conn *c, int status, const char *code, const char *message);
bool conn_make_request(struct conn *c);
void conn_release_request(struct conn *c);

#endif
