/* intake.h: a router's Start as the engine wants it. */
#ifndef ARGOSY_WORKER_INTAKE_H
#define ARGOSY_WORKER_INTAKE_H

#include <stdbool.h>

#include "runtime/engine/engine.h"
#include "runtime/rpc/rpc.h"

struct grammar_source;

/* Fills everything but `id`; borrows the frame's arrays, and *grammar where there is one. The frame
 * has passed runtime/rpc/frame.h; here its values are checked, and what is wrong is ERR_RANGE with
 * words for the client. */
int intake_request(const Argosy__Start *s, uint64_t now_ms, struct engine_request *r,
                   struct grammar_source *grammar, struct err *e);

/* What a failed engine_submit tells the router. */
Argosy__RefusedReason intake_reason(int code);
/* engine_request.adapter of the sha256 in Start.adapter. False: it is not served here. */
bool intake_adapter(const struct engine_adapter *adapters, uint32_t n, const char *sha256,
                    uint32_t *adapter);

#endif
