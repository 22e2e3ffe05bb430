/* attachment.h: this worker's tie to one router: dial, Hello, load reports, back-off.
 *
 *      WAITING ──dial──► DIALLING ──opened: Hello──► ATTACHED ──closed──► WAITING
 *         ▲                  └────────closed────────────────────────────────┘
 *         └─ the wait is drawn from [backoff_min, backoff_min × 2^failures], at most backoff_max
 *
 * A router that answers Hello with nothing, as one of another protocol does, is left after
 * ATTACHMENT_WELCOME_MS and dialled again like one that failed.
 *
 * Every attachment carries a higher epoch than the one before. Engine thread only.
 */
#ifndef ARGOSY_WORKER_ATTACHMENT_H
#define ARGOSY_WORKER_ATTACHMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/rng.h"
#include "runtime/rpc/rpc.h"
#include "runtime/worker/device.h"
#include "runtime/worker/heartbeat.h"
#include "runtime/worker/roster.h"
#include "runtime/worker/worker_config.h"

/* Shorter than a router's patience with a stream that it understands nothing of: the log says why.
 */
#define ATTACHMENT_WELCOME_MS 5000

/* What Hello says of this worker; borrowed by every attachment. */
struct identity {
    char id[256];
    struct device device;
    const struct roster *roster;
    const struct worker_config *config;
};

/* What Load says: numbers alone, so that two can be compared as bytes. */
struct load_report {
    uint32_t running, waiting, kv_pages_used;
    bool draining;
    struct model_report {
        int32_t state; /* Argosy__ModelState */
        uint32_t running, waiting, kv_pages_used, kv_pages, kv_host_pages;
        uint64_t kv_host_bytes_used, kv_pages_out, kv_pages_in;
    } models[WORKER_MODELS_MAX]; /* of the roster's offers */
};

enum attachment_state { ATTACHMENT_WAITING, ATTACHMENT_DIALLING, ATTACHMENT_ATTACHED };

struct attachment {
    const char *address;
    const struct identity *identity;
    struct rpc_client *client;
    struct pulse pulse;
    enum attachment_state state;
    uint64_t stream;
    uint64_t epoch;
    struct rng rng;
    uint32_t failures;
    uint64_t dial_at_ms; /* WAITING */
    uint64_t attached_at_ms;
    bool welcomed;
    uint64_t welcome_by_ms;  /* UINT64_MAX: it came, or is not waited for any more */
    struct load_report load; /* the last */
    uint64_t load_at_ms;
    /* What cachefeed.c has told of the prefix caches since it was attached. */
    uint32_t cache_offer; /* the model it is at */
    uint32_t cache_cursor;
    bool cache_told;       /* all that was there */
    uint64_t heartbeat_ms; /* the option's, or a third of the router's lease */
};

int attachment_init(struct attachment *a, const char *address, const struct identity *identity,
                    struct mailbox *events, struct err *e);
/* No event comes afterwards; those in the mailbox stay the caller's. */
void attachment_release(struct attachment *a);

/* The three kinds of event. A closed one goes to WAITING; cancelling its requests is the caller's.
 */
void attachment_opened(struct attachment *a, const struct rpc_event *ev, uint64_t now_ms);
void attachment_welcome(struct attachment *a, const Argosy__Welcome *w);
void attachment_closed(struct attachment *a, const struct rpc_event *ev, uint64_t now_ms);

/* Dials when it is time, reports the load when it changed or silence has lasted. Returns when it
 * wants to be called again. While draining nothing is dialled. */
uint64_t attachment_tick(struct attachment *a, const struct load_report *load, uint64_t steps,
                         uint64_t now_ms);
/* What a model is to a router. */
Argosy__ModelState attachment_state_of(const struct offer *o);

/* A frame that cannot be sent is lost with its stream: RPC_CLOSED follows. */
void attachment_send(struct attachment *a, const Argosy__FromWorker *frame);
void attachment_refuse(struct attachment *a, uint64_t request, Argosy__RefusedReason reason,
                       const char *detail, uint32_t retry_after_ms);

#endif
