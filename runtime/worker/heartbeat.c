#include "runtime/worker/heartbeat.h"

#include <stdlib.h>
#include <time.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"

/* How often the thread looks; it is woken for a heartbeat that is new. */
#define LOOK_MS_MIN 5
#define LOOK_MS_MAX 1000
#define STACK_BYTES (256u << 10)

struct heartbeat {
    struct pulse *pulses; /* list */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop;
    bool changed; /* one is due earlier than was known */
};

/* ---- one attachment's ---------------------------------------------------------------------------
 */

void pulse_init(struct pulse *p, struct rpc_client *client)
{
    *p = (struct pulse){.client = client};
    pthread_mutex_init(&p->lock, NULL);
}

/* lock held. */
static void forget(struct pulse *p)
{
    if (p->load)
        argosy__load__free_unpacked(p->load, NULL);
    p->load = NULL;
}

/* A copy that owns what it points at, the way the wire makes one. lock held. */
static void keep(struct pulse *p, const Argosy__Load *load)
{
    size_t n = argosy__load__get_packed_size(load);
    uint8_t *bytes = malloc(n ? n : 1);
    forget(p);
    if (!bytes)
        return;
    argosy__load__pack(load, bytes);
    p->load = argosy__load__unpack(NULL, n, bytes);
    free(bytes);
}

void pulse_release(struct pulse *p)
{
    forget(p);
    pthread_mutex_destroy(&p->lock);
}

/* lock held. */
static int send_load(struct pulse *p, const Argosy__Load *load, uint64_t now_ms, struct err *e)
{
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = (Argosy__Load *)load;
    p->sent_at_ms = now_ms;
    return rpc_client_send(p->client, p->stream, &f, e);
}

static void look_again(struct heartbeat *h)
{
    pthread_mutex_lock(&h->lock);
    h->changed = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
}

int pulse_send(struct pulse *p, uint64_t stream, const Argosy__Load *load, uint64_t every_ms,
               uint64_t now_ms, struct err *e)
{
    pthread_mutex_lock(&p->lock);
    bool is_new = p->stream != stream || p->every_ms > every_ms;
    p->stream = stream;
    p->every_ms = every_ms;
    keep(p, load);
    int rc = send_load(p, load, now_ms, e);
    pthread_mutex_unlock(&p->lock);
    if (is_new && p->heartbeat)
        look_again(p->heartbeat);
    return rc;
}

void pulse_end(struct pulse *p)
{
    pthread_mutex_lock(&p->lock);
    p->stream = 0;
    pthread_mutex_unlock(&p->lock);
}

/* A little late, so that the engine thread, where it gets round to it, is the one that reports. */
static uint64_t patience_ms(const struct pulse *p)
{
    return p->every_ms + p->every_ms / 8;
}

/* Returns how long it may be left alone. */
static uint64_t beat(struct pulse *p, uint64_t now_ms)
{
    uint64_t wait_ms = LOOK_MS_MAX;
    struct err e;
    pthread_mutex_lock(&p->lock);
    if (p->stream && p->load) {
        if (now_ms >= p->sent_at_ms + patience_ms(p) && send_load(p, p->load, now_ms, &e) < 0)
            p->stream = 0; /* it is closed: the engine thread will hear of it */
        uint64_t due_ms = p->sent_at_ms + patience_ms(p);
        wait_ms = due_ms > now_ms ? due_ms - now_ms : 0;
    }
    pthread_mutex_unlock(&p->lock);
    return wait_ms;
}

/* ---- the thread ---------------------------------------------------------------------------------
 */

static void wait_ms(struct heartbeat *h, uint64_t ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    until.tv_sec += (time_t)(ms / 1000) + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&h->wake, &h->lock, &until);
}

static void *run(void *arg)
{
    struct heartbeat *h = arg;
    pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        uint64_t next_ms = LOOK_MS_MAX;
        h->changed = false;
        pthread_mutex_unlock(&h->lock);
        for (struct pulse *p = h->pulses; p; p = p->next) {
            uint64_t ms = beat(p, clock_mono_ms());
            next_ms = ms < next_ms ? ms : next_ms;
        }
        pthread_mutex_lock(&h->lock);
        if (!h->stop && !h->changed)
            wait_ms(h, next_ms < LOOK_MS_MIN ? LOOK_MS_MIN : next_ms);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

int heartbeat_create(struct heartbeat **out, struct err *e)
{
    pthread_condattr_t attr;
    struct heartbeat *h = calloc(1, sizeof(*h));
    if (!h)
        return err_set(e, ERR_NOMEM, "no memory for the heartbeat");
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->wake, &attr);
    pthread_condattr_destroy(&attr);
    *out = h;
    return 0;
}

void heartbeat_add(struct heartbeat *h, struct pulse *p)
{
    ASSERT(!h->started);
    p->heartbeat = h;
    p->next = h->pulses;
    h->pulses = p;
}

int heartbeat_start(struct heartbeat *h, struct err *e)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int rc = pthread_create(&h->thread, &attr, run, h);
    pthread_attr_destroy(&attr);
    if (rc != 0)
        return err_set(e, ERR_NOMEM, "no thread for the heartbeat");
    h->started = true;
    return 0;
}

void heartbeat_free(struct heartbeat *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_signal(&h->wake);
    pthread_mutex_unlock(&h->lock);
    if (h->started)
        pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->wake);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
