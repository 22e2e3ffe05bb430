/* stream.c: streams and graphs of the emulated device: queues of launches, copies and fillings. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/cuda_api.h"
#include "kernels/simt/internal.h"

enum task_kind {
    TASK_LAUNCH,
    TASK_COPY,
    TASK_FILL,
    TASK_CALL,
    TASK_LIBRARY,
    TASK_RECORD,
    TASK_WAIT,
};

struct task {
    struct task *next;
    enum task_kind kind;
    void *to; /* of a copy or filling */
    const void *from;
    size_t bytes;
    enum cudaMemcpyKind direction;
    int value;
    const struct simt_call *call;
    void *call_argument;
    struct simt_event *event;
    uint64_t ticket;              /* of the recording, or that is waited for */
    struct simt_stream *recorded; /* of a wait: where that recording is */
    struct simt_work work;        /* of a launch; body and argument, of a library's */
    max_align_t argument[];       /* work.argument */
};

struct tasks {
    struct task *first, **end;
};

struct simt_stream {
    struct tasks queue;
    struct simt_graph *captures; /* what it records into, in place of doing it */
};

struct simt_event {
    struct simt_stream *stream;  /* of the last recording */
    uint64_t recorded, happened; /* recordings: asked for, done */
};

struct simt_graph {
    struct tasks tasks;
    bool broken; /* something was asked for that cannot be recorded */
};

static struct simt_stream *capturing;

/* ---- tasks ----------------------------------------------------------------------------------- */

static void *get(size_t bytes)
{
    void *p = calloc(1, bytes);

    if (p == NULL) {
        perror("simt: no memory");
        abort();
    }
    return p;
}

static void init(struct tasks *q)
{
    q->first = NULL;
    q->end = &q->first;
}

static void append(struct tasks *q, struct task *t)
{
    t->next = NULL;
    *q->end = t;
    q->end = &t->next;
}

static void free_task(struct task *t)
{
    if (t->kind == TASK_CALL) {
        t->call->free(t->call_argument);
    }
    free(t);
}

static void clear(struct tasks *q)
{
    for (struct task *t = q->first, *next; t != NULL; t = next) {
        next = t->next;
        free_task(t);
    }
    init(q);
}

static struct task *copy_of(const struct task *t)
{
    size_t bytes = sizeof *t + t->work.bytes;
    struct task *copy = get(bytes);

    memcpy(copy, t, bytes);
    copy->work.argument = copy->argument;
    if (t->kind == TASK_CALL) {
        copy->call_argument = t->call->copy(t->call_argument);
    }
    return copy;
}

static void copy_between(const struct task *t)
{
    switch (t->direction) {
    case cudaMemcpyHostToDevice:
        simt_upload(t->to, t->from, t->bytes);
        break;
    case cudaMemcpyDeviceToHost: /* what nobody wrote may be copied, like on the device */
        (void)simt_download(t->to, t->from, t->bytes);
        simt_fault_clear();
        break;
    default:
        simt_move(t->to, t->from, t->bytes);
        break;
    }
}

static bool step(struct simt_stream *s);

/* The other stream goes as far as the recording, and no further. */
static bool await(const struct task *t)
{
    while (t->event->happened < t->ticket) {
        if (!step(t->recorded)) {
            return false;
        }
    }
    return true;
}

/* Whether it is done. */
static bool perform(const struct task *t)
{
    if (simt_runtime_failed()) {
        return true;
    }
    switch (t->kind) {
    case TASK_LAUNCH:
        if (simt_run(&t->work) != 0) {
            simt_runtime_fail();
        }
        break;
    case TASK_COPY:
        copy_between(t);
        break;
    case TASK_FILL:
        simt_fill(t->to, t->value, t->bytes);
        break;
    case TASK_LIBRARY:
        t->work.body(t->work.argument);
        break;
    case TASK_CALL:
        return t->call->advance(t->call_argument);
    case TASK_RECORD:
        t->event->happened = t->ticket;
        break;
    case TASK_WAIT:
        return await(t);
    }
    return true;
}

/* Its first task, if there is one and it need not wait for others. */
static bool step(struct simt_stream *s)
{
    struct task *t = s->queue.first;

    if (t == NULL || !perform(t)) {
        return false;
    }
    s->queue.first = t->next;
    if (t->next == NULL) {
        s->queue.end = &s->queue.first;
    }
    free_task(t);
    return true;
}

/* As far as it goes without waiting for others. Whether all is done. */
static bool drain(struct simt_stream *s)
{
    while (step(s)) {
    }
    return s->queue.first == NULL;
}

/* Takes t. */
static cudaError_t give(struct simt_stream *s, struct task *t)
{
    if (s->captures != NULL) {
        append(&s->captures->tasks, t);
        return cudaSuccess;
    }
    append(&s->queue, t);
    if (simt_options.eager_copies) {
        drain(s);
    }
    return simt_runtime_result(cudaSuccess);
}

static int give_work(struct simt_stream *s, enum task_kind kind, const struct simt_work *w)
{
    struct task *t = get(sizeof *t + w->bytes);

    t->kind = kind;
    t->work = *w;
    memcpy(t->argument, w->argument, w->bytes);
    t->work.argument = t->argument;
    return (int)give(s, t);
}

int simt_stream_launch(struct simt_stream *s, const struct simt_work *w)
{
    if (!simt_can_launch(w)) {
        return (int)simt_runtime_result(cudaErrorInvalidConfiguration);
    }
    return give_work(s, TASK_LAUNCH, w);
}

int simt_stream_run(struct simt_stream *s, void (*run)(const void *), const void *argument,
                    size_t bytes)
{
    const struct simt_work w = {.body = run, .argument = argument, .bytes = bytes};

    return give_work(s, TASK_LIBRARY, &w);
}

int simt_stream_call(struct simt_stream *s, const struct simt_call *call, void *argument)
{
    struct task *t = get(sizeof *t);

    *t = (struct task){.kind = TASK_CALL, .call = call, .call_argument = argument};
    return (int)give(s, t);
}

/* ---- streams --------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags)
{
    if (flags != cudaStreamNonBlocking) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    *s = get(sizeof **s);
    init(&(*s)->queue);
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    drain(s);
    clear(&s->queue);
    free(s);
    return simt_runtime_result(cudaSuccess);
}

/* Nothing may wait while a stream records. */
bool simt_stream_refuses(void)
{
    if (capturing != NULL) {
        capturing->captures->broken = true;
    }
    return capturing != NULL;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (simt_stream_refuses()) {
        return simt_runtime_result(cudaErrorStreamCaptureUnsupported);
    }
    while (!drain(s)) {
        sched_yield();
    }
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    if (simt_stream_refuses()) {
        return simt_runtime_result(cudaErrorStreamCaptureUnsupported);
    }
    bool done = drain(s);
    return simt_runtime_result(done ? cudaSuccess : cudaErrorNotReady);
}

/* Whether a copy that is queued, and so goes before the next, still has to read some of it. */
static bool will_read(const struct simt_stream *s, const char *p, size_t bytes)
{
    for (const struct task *t = s->queue.first; t != NULL; t = t->next) {
        const char *from = t->from;
        if (t->kind == TASK_COPY && t->direction == cudaMemcpyHostToDevice && from < p + bytes &&
            p < from + t->bytes) {
            return true;
        }
    }
    return false;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s)
{
    bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    bool pinned = simt_pinned(up ? from : to, bytes);
    struct task *t;

    if ((!up && !simt_on_device(from, bytes)) || (!down && !simt_on_device(to, bytes))) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    if ((up || down) && !pinned && simt_stream_refuses()) {
        return simt_runtime_result(cudaErrorStreamCaptureUnsupported);
    }
    t = get(sizeof *t);
    *t =
        (struct task){.kind = TASK_COPY, .to = to, .from = from, .bytes = bytes, .direction = kind};
    if (down && s->captures == NULL && !will_read(s, to, bytes)) {
        memset(to, 0xa5, bytes); /* who reads it before the wait shall notice */
    }
    cudaError_t rc = give(s, t);
    if ((up || down) && !pinned) {
        while (!drain(s)) {
            sched_yield();
        }
    }
    return rc;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    struct task *t;

    if (!simt_on_device(p, bytes)) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    t = get(sizeof *t);
    *t = (struct task){.kind = TASK_FILL, .to = p, .value = value, .bytes = bytes};
    return give(s, t);
}

/* ---- events ---------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    if (flags != cudaEventDisableTiming) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    *event = get(sizeof **event);
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return simt_runtime_result(cudaSuccess);
}

/* Recordings of graphs are not served. */
static cudaError_t give_event(struct simt_stream *s, enum task_kind kind, struct simt_event *event)
{
    struct task *t;

    if (simt_stream_refuses()) {
        return simt_runtime_result(cudaErrorStreamCaptureUnsupported);
    }
    t = get(sizeof *t);
    *t = (struct task){
        .kind = kind, .event = event, .ticket = event->recorded, .recorded = event->stream};
    return give(s, t);
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s)
{
    event->recorded++;
    event->stream = s;
    return give_event(s, TASK_RECORD, event);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t event, unsigned flags)
{
    if (flags != 0) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    return event->recorded == 0 ? simt_runtime_result(cudaSuccess)
                                : give_event(s, TASK_WAIT, event);
}

/* ---- graphs ---------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode)
{
    if (mode != cudaStreamCaptureModeThreadLocal || capturing != NULL) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    s->captures = get(sizeof *s->captures);
    init(&s->captures->tasks);
    capturing = s;
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    struct simt_graph *g = s->captures;

    *graph = NULL;
    if (g == NULL) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    s->captures = NULL;
    capturing = NULL;
    if (g->broken) {
        cudaGraphDestroy(g);
        return simt_runtime_result(cudaErrorStreamCaptureInvalidated);
    }
    *graph = g;
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    if (flags != 0) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    struct simt_graph *copy = get(sizeof *copy);
    init(&copy->tasks);
    for (const struct task *t = graph->tasks.first; t != NULL; t = t->next) {
        append(&copy->tasks, copy_of(t));
    }
    *exec = copy;
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    clear(&graph->tasks);
    free(graph);
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    return cudaGraphDestroy(exec);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    cudaError_t rc = cudaSuccess;

    for (const struct task *t = exec->tasks.first; t != NULL && rc == cudaSuccess; t = t->next) {
        rc = give(s, copy_of(t));
    }
    return rc;
}
