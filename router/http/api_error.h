/* api_error.h: what a client is told when a request fails, in OpenAI's shape. */
#ifndef ARGOSY_ROUTER_HTTP_API_ERROR_H
#define ARGOSY_ROUTER_HTTP_API_ERROR_H

#include <stdbool.h>
#include <stdint.h>

#include "router/pool/pool.h"
#include "runtime/base/buf.h"

#define API_PARAM_BYTES 80

struct api_error {
    int status;                  /* HTTP */
    const char *code;            /* a constant, or NULL */
    char param[API_PARAM_BYTES]; /* "messages[3].role"; "": none */
    char message[ERR_MSG_BYTES + 120];
    uint32_t retry_after_ms; /* 0: not said */
    bool never;              /* the same request will fail again: clients are told not to retry */
};

/* Fills e and returns -1. `param` may be NULL; it is cut when it is long. */
int api_error_set(struct api_error *e, int status, const char *code, const char *param,
                  const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* How a generation that could not be run is told. */
void api_error_of_fault(struct api_error *e, enum gen_fault fault, const char *detail,
                        uint32_t retry_after_ms);
/* {"error": {…}} */
void api_error_write(const struct api_error *e, struct buf *out);

#endif
