#include "runtime/worker/opener.h"

#include <pthread.h>
#include <stdlib.h>

struct opener {
    void (*wake)(void *ctx);
    void *ctx;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under the lock. */
    struct opening *todo, *done; /* lists, oldest first */
    bool working, stop;
};

/* lock held. */
static void append(struct opening **list, struct opening *work)
{
    while (*list)
        list = &(*list)->next;
    work->next = NULL;
    *list = work;
}

/* lock held. */
static struct opening *remove_first(struct opening **list)
{
    struct opening *work = *list;
    if (work)
        *list = work->next;
    return work;
}

static void do_work(struct opening *work)
{
    if (work->config) {
        work->rc = engine_open(work->config, &work->engine, &work->err);
    } else {
        engine_free(work->engine);
        work->engine = NULL;
    }
}

static void *run(void *arg)
{
    struct opener *o = arg;
    pthread_mutex_lock(&o->lock);
    for (;;) {
        struct opening *work = remove_first(&o->todo);
        if (!work && o->stop)
            break;
        if (!work) {
            pthread_cond_wait(&o->changed, &o->lock);
            continue;
        }
        o->working = true;
        pthread_mutex_unlock(&o->lock);
        do_work(work);
        pthread_mutex_lock(&o->lock);
        o->working = false;
        append(&o->done, work);
        pthread_cond_broadcast(&o->changed);
        pthread_mutex_unlock(&o->lock);
        o->wake(o->ctx);
        pthread_mutex_lock(&o->lock);
    }
    pthread_mutex_unlock(&o->lock);
    return NULL;
}

int opener_create(void (*wake)(void *ctx), void *ctx, struct opener **out, struct err *e)
{
    struct opener *o = calloc(1, sizeof(*o));
    if (!o)
        return err_set(e, ERR_NOMEM, "no memory to open models");
    o->wake = wake;
    o->ctx = ctx;
    pthread_mutex_init(&o->lock, NULL);
    pthread_cond_init(&o->changed, NULL);
    if (pthread_create(&o->thread, NULL, run, o) != 0) {
        pthread_cond_destroy(&o->changed);
        pthread_mutex_destroy(&o->lock);
        free(o);
        return err_set(e, ERR_NOMEM, "no thread to open models on");
    }
    *out = o;
    return 0;
}

void opener_free(struct opener *o)
{
    if (!o)
        return;
    pthread_mutex_lock(&o->lock);
    o->stop = true;
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
    pthread_join(o->thread, NULL);
    pthread_cond_destroy(&o->changed);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

void opener_post(struct opener *o, struct opening *work)
{
    pthread_mutex_lock(&o->lock);
    append(&o->todo, work);
    pthread_cond_broadcast(&o->changed);
    pthread_mutex_unlock(&o->lock);
}

struct opening *opener_take(struct opener *o)
{
    pthread_mutex_lock(&o->lock);
    struct opening *work = remove_first(&o->done);
    pthread_mutex_unlock(&o->lock);
    return work;
}

struct opening *opener_wait(struct opener *o)
{
    struct opening *work;
    pthread_mutex_lock(&o->lock);
    while (!(work = remove_first(&o->done)))
        pthread_cond_wait(&o->changed, &o->lock);
    pthread_mutex_unlock(&o->lock);
    return work;
}

bool opener_busy(struct opener *o)
{
    pthread_mutex_lock(&o->lock);
    bool busy = o->todo || o->working;
    pthread_mutex_unlock(&o->lock);
    return busy;
}
