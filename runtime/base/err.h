/* err.h: how a function says what went wrong.
 *
 * A function that can fail returns 0 or a negative enum err_code and takes a
 * `struct err *` last. It fills the err exactly once, at the place where the
 * fault is known; callers pass it through or prefix it. `err` may be NULL when
 * the caller does not want the words.
 *
 * Clients, peers, files, Redis and full pools are never asserted: they get an
 * err. ASSERT (check.h) is for our own mistakes.
 */
#ifndef ARGOSY_BASE_ERR_H
#define ARGOSY_BASE_ERR_H

#include <stdarg.h>

enum err_code {
    ERR_OK = 0,
    ERR_NOMEM = -1,       /* an allocation failed or a memory budget is spent */
    ERR_IO = -2,          /* the system refused: message carries strerror */
    ERR_FORMAT = -3,      /* bytes that are not what they should be */
    ERR_RANGE = -4,       /* a value outside its bounds */
    ERR_LIMIT = -5,       /* a configured limit was reached */
    ERR_UNSUPPORTED = -6, /* well-formed, but not served here */
    ERR_NOT_FOUND = -7,
    ERR_BUSY = -8,   /* full now, may work later */
    ERR_PEER = -9,   /* the other end vanished or broke the protocol */
    ERR_CONFIG = -10 /* a bad option, file or flag */
};

#define ERR_MSG_BYTES 400

struct err {
    int code; /* enum err_code */
    char msg[ERR_MSG_BYTES];
};

/* Records the fault and returns `code`, so that `return err_set(...)` reads well. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Like err_set, and adds ": " and the words of `errnum`. */
int err_sys(struct err *e, int errnum, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "what: " in front of the message that is there. Returns e's code. */
int err_prefix(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* The name of a code, for logs: "ERR_LIMIT". */
const char *err_name(int code);

#endif
