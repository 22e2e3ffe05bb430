/* The emulated CUDA runtime: what a stream promises and what it does not, graphs, memory, errors.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda_kernels.h"
#include "kernels/simt/cuda_api.h"
#include "kernels/simt/simt.h"

#define N 64

struct setup {
    cudaStream_t stream;
    float *host, *x, *w, *y; /* host: pinned, (2 N) */
};

static const struct simt_machine a100 = {
    .devices = 1, .major = 8, .minor = 0, .driver = 13000, .memory = 1 << 20};

static void begin(struct setup *s, bool eager)
{
    *s = (struct setup){0};
    simt_machine_set(&a100);
    simt_set(&(struct simt_options){.seed = 3, .eager_copies = eager});
    assert_int_equal(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaMallocHost((void **)&s->host, 2 * N * sizeof(float)), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&s->x, N * sizeof(float)), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&s->w, N * sizeof(float)), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&s->y, N * sizeof(float)), cudaSuccess);
}

static void end(struct setup *s)
{
    cudaStreamDestroy(s->stream);
    cudaFreeHost(s->host);
    cudaFree(s->x);
    cudaFree(s->w);
    cudaFree(s->y);
    assert_int_equal(simt_machine_taken(), 0);
}

/* x (all v) and w (all 1) up, y = rmsnorm(x), y down to the second half of host. */
static void queue(struct setup *s, float v)
{
    static const float ones = 1.0f;
    float w[N];

    for (int i = 0; i < N; i++) {
        s->host[i] = v;
        w[i] = ones;
    }
    cudaMemcpyAsync(s->w, w, sizeof w, cudaMemcpyHostToDevice, s->stream);
    cudaMemcpyAsync(s->x, s->host, sizeof w, cudaMemcpyHostToDevice, s->stream);
    assert_int_equal(kn_cuda_rmsnorm(s->x, s->w, 0, 0, 1, N, s->y, s->stream), 0);
    assert_int_equal(
        cudaMemcpyAsync(s->host + N, s->y, sizeof w, cudaMemcpyDeviceToHost, s->stream),
        cudaSuccess);
}

static void test_a_stream_does_things_in_order(void **state)
{
    (void)state;
    for (int eager = 0; eager < 2; eager++) {
        struct setup s;
        begin(&s, eager != 0);
        queue(&s, -3.0f);
        assert_int_equal(cudaStreamSynchronize(s.stream), cudaSuccess);
        assert_true(s.host[N] == -1.0f && s.host[2 * N - 1] == -1.0f);
        end(&s);
    }
}

/* Late: what the host writes before the wait is what goes up, and nothing has come down. */
static void test_copies_land_late(void **state)
{
    struct setup s;
    (void)state;
    begin(&s, false);
    queue(&s, 2.0f);
    assert_true(s.host[N] != 1.0f);
    for (int i = 0; i < N; i++) {
        s.host[i] = -2.0f;
    }
    cudaStreamSynchronize(s.stream);
    assert_true(s.host[N] == -1.0f);
    end(&s);
}

static void test_copies_land_at_once(void **state)
{
    struct setup s;
    (void)state;
    begin(&s, true);
    queue(&s, 2.0f);
    assert_true(s.host[N] == 1.0f);
    end(&s);
}

static void test_a_graph_is_replayed(void **state)
{
    struct setup s;
    cudaGraph_t g;
    cudaGraphExec_t exec;
    float w[N];
    (void)state;
    begin(&s, false);
    queue(&s, 1.0f);
    cudaStreamSynchronize(s.stream);
    assert_int_equal(cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal),
                     cudaSuccess);
    cudaMemcpyAsync(s.x, s.host, sizeof w, cudaMemcpyHostToDevice, s.stream);
    assert_int_equal(kn_cuda_rmsnorm(s.x, s.w, 0, 0, 1, N, s.y, s.stream), 0);
    cudaMemcpyAsync(s.host + N, s.y, sizeof w, cudaMemcpyDeviceToHost, s.stream);
    assert_int_equal(cudaStreamEndCapture(s.stream, &g), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
    cudaGraphDestroy(g);
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < N; j++) {
            s.host[j] = i % 2 ? 5.0f : -5.0f;
        }
        assert_int_equal(cudaGraphLaunch(exec, s.stream), cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(s.stream), cudaSuccess);
        assert_true(s.host[N] == (i % 2 ? 1.0f : -1.0f));
    }
    cudaGraphExecDestroy(exec);
    end(&s);
}

/* Another stream's work is there for who waits for its event, up to the recording, and for nobody
 * else. */
static void test_an_event_orders_two_streams(void **state)
{
    (void)state;
    for (int waits = 0; waits < 2; waits++) {
        struct setup s;
        cudaStream_t other;
        cudaEvent_t event;
        begin(&s, false);
        assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
        assert_int_equal(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
        assert_int_equal(cudaStreamWaitEvent(s.stream, event, 0), cudaSuccess); /* never recorded */
        for (int i = 0; i < N; i++) {
            s.host[i] = 3.0f;
            s.host[N + i] = 4.0f;
        }
        cudaMemsetAsync(s.x, 0, N * sizeof(float), s.stream);
        cudaStreamSynchronize(s.stream);
        cudaMemcpyAsync(s.x, s.host, N * sizeof(float), cudaMemcpyHostToDevice, other);
        assert_int_equal(cudaEventRecord(event, other), cudaSuccess);
        if (waits) {
            assert_int_equal(cudaStreamWaitEvent(s.stream, event, 0), cudaSuccess);
        }
        cudaMemcpyAsync(s.y, s.x, N * sizeof(float), cudaMemcpyDeviceToDevice, s.stream);
        cudaMemcpyAsync(s.x, s.host + N, N * sizeof(float), cudaMemcpyHostToDevice, other);
        cudaEventRecord(event, other); /* a wait is for the recording before it */
        cudaStreamSynchronize(s.stream);
        assert_int_equal(cudaStreamQuery(other), cudaSuccess);
        cudaMemcpyAsync(s.host, s.y, N * sizeof(float), cudaMemcpyDeviceToHost, s.stream);
        cudaStreamSynchronize(s.stream);
        assert_true(s.host[N - 1] == (waits ? 3.0f : 0.0f));
        cudaStreamDestroy(other);
        cudaEventDestroy(event);
        end(&s);
    }
}

/* A copy down may come to where one before it, in the same stream, goes up from. */
static void test_a_place_on_the_host_is_read_and_then_written(void **state)
{
    struct setup s;
    (void)state;
    begin(&s, false);
    for (int i = 0; i < N; i++) {
        s.host[i] = 7.0f;
    }
    cudaMemsetAsync(s.y, 0, N * sizeof(float), s.stream);
    cudaMemcpyAsync(s.x, s.host, N * sizeof(float), cudaMemcpyHostToDevice, s.stream);
    cudaMemcpyAsync(s.host, s.y, N * sizeof(float), cudaMemcpyDeviceToHost, s.stream);
    cudaMemcpyAsync(s.host + N, s.x, N * sizeof(float), cudaMemcpyDeviceToHost, s.stream);
    cudaStreamSynchronize(s.stream);
    assert_true(s.host[0] == 0.0f && s.host[N] == 7.0f && s.host[2 * N - 1] == 7.0f);
    end(&s);
}

static void test_nobody_waits_while_a_stream_records(void **state)
{
    struct setup s;
    cudaGraph_t g;
    (void)state;
    begin(&s, false);
    cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal);
    assert_int_equal(cudaStreamSynchronize(s.stream), cudaErrorStreamCaptureUnsupported);
    assert_int_equal(cudaStreamEndCapture(s.stream, &g), cudaErrorStreamCaptureInvalidated);
    end(&s);
}

static void test_memory_ends(void **state)
{
    struct setup s;
    void *p, *q;
    size_t left, total;
    (void)state;
    begin(&s, false);
    cudaMemGetInfo(&left, &total);
    assert_int_equal(total - left, 3 * N * sizeof(float));
    assert_int_equal(cudaMalloc(&p, left + 1), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    struct simt_machine m = a100;
    m.fail_malloc = 2;
    simt_machine_set(&m);
    assert_int_equal(cudaMalloc(&p, 1), cudaSuccess);
    assert_int_equal(cudaMallocHost(&q, 1), cudaErrorMemoryAllocation);
    cudaFree(p);
    assert_int_equal(cudaFree(&s), cudaErrorInvalidValue);
    /* past the end of a buffer */
    assert_int_equal(cudaMemsetAsync(s.x, 0, N * sizeof(float) + 1, s.stream),
                     cudaErrorInvalidValue);
    end(&s);
}

static void test_machines_that_cannot_be_used(void **state)
{
    struct simt_machine m = a100;
    int n = 7;
    (void)state;
    m.devices = 0;
    simt_machine_set(&m);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    assert_int_equal(n, 0);
    m.devices = 1;
    m.driver = 11080;
    simt_machine_set(&m);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    simt_machine_set(&a100);
    assert_int_equal(cudaSetDevice(1), cudaErrorInvalidDevice);
}

/* A kernel that reads past a buffer: told at the wait, and by everything after. */
static void test_a_fault_stays(void **state)
{
    struct setup s;
    (void)state;
    if (!simt_has_shadow()) {
        skip();
    }
    begin(&s, false);
    queue(&s, 1.0f);
    assert_int_equal(kn_cuda_rmsnorm(s.x, s.w, 0, 0, 1, 2 * N, s.y, s.stream), 0);
    assert_int_equal(cudaStreamSynchronize(s.stream), cudaErrorLaunchFailure);
    assert_non_null(strstr(cudaGetErrorString(cudaErrorLaunchFailure), "out of bounds"));
    assert_int_equal(cudaStreamSynchronize(s.stream), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchFailure);
    end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stream_does_things_in_order),
        cmocka_unit_test(test_copies_land_late),
        cmocka_unit_test(test_copies_land_at_once),
        cmocka_unit_test(test_a_graph_is_replayed),
        cmocka_unit_test(test_an_event_orders_two_streams),
        cmocka_unit_test(test_a_place_on_the_host_is_read_and_then_written),
        cmocka_unit_test(test_nobody_waits_while_a_stream_records),
        cmocka_unit_test(test_memory_ends),
        cmocka_unit_test(test_machines_that_cannot_be_used),
        cmocka_unit_test(test_a_fault_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
