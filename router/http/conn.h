/* conn.h: one client's connection: HTTP/1.1 over a bufferevent, one request at a time.
 *
 *            first byte      head complete   body complete      answer complete    all written
 *     IDLE ───────────► HEAD ───────────► BODY ───────────► BUSY ───────────► FLUSH ──► IDLE
 *                                                                               └────► LINGER
 *
 * Limits: header and body sizes (431, 413), a deadline for each of HEAD and BODY (408), unsent
 * output while an answer streams (closed), stalled writes (closed). LINGER has said all and reads
 * what the client still sends for a moment, so that a reset does not eat the answer.
 *
 * Nothing frees a connection but the end of the loop's turn (conn_turn), so no call has to fear
 * that its connection goes away under it: it becomes DEAD.
 */
#ifndef ARGOSY_ROUTER_HTTP_CONN_H
#define ARGOSY_ROUTER_HTTP_CONN_H

#include <event2/util.h>
#include <stdint.h>

struct conn;
struct http;
struct sockaddr;

/* Takes the socket, in every case. */
void conn_accept(struct http *h, evutil_socket_t fd, const struct sockaddr *from);
/* The end of a turn: writes, goes on with pipelined requests, frees the dead. */
void conn_turn(struct http *h);
/* Those whose answer is complete and not yet written. */
uint32_t conn_count_unwritten(const struct http *h);
/* Closes those that wait for a request. */
void conn_close_idle(struct http *h);
/* Closes and frees all. */
void conn_free_all(struct http *h);

#endif
