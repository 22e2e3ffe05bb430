/* Adapters on the emulated GPU against the CPU: engines with the same requests give the same bits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/simt/simt.h"
#include "runtime/engine/engine.h"
#include "tests/unit/runtime/model/tiny_adapter.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define ADAPTERS 3u
#define REQUESTS 6u
#define TOKENS 4u

/* What the engine said of each request. */
struct said {
    uint32_t tokens[REQUESTS][TOKENS];
    uint64_t digests[REQUESTS][TOKENS];
};

/* Two ranks, one below a block of 32 and no multiple of 4; types; one without the FFN's. */
static const struct tiny_adapter adapters[ADAPTERS] = {
    {.rank = 8, .seed = 1},
    {.rank = 5, .seed = 2, .bf16 = true},
    {.rank = 40, .seed = 3, .attention_alone = true}};

static struct engine *open_engine(const char *device, const char *model,
                                  const struct engine_adapter *a)
{
    struct engine *g = NULL;
    struct err e = {0};
    const struct engine_config c = {.isa = "auto",
                                    .device = device,
                                    .threads = 1,
                                    .sequences_max = REQUESTS,
                                    .waiting_max = REQUESTS,
                                    .step_tokens_max = 64,
                                    .model_path = model,
                                    .logits_digests = true,
                                    .adapters = a,
                                    .n_adapters = ADAPTERS};
    if (engine_open(&c, &g, &e) < 0)
        fail_msg("%s: %s", device, e.msg);
    return g;
}

/* Prompts from one token up to more than what GEMV serves, neighbours with one adapter among them.
 */
static void submit_all(struct engine *g)
{
    static const uint32_t which[REQUESTS] = {1, 1, 0, 2, 3, 1};
    uint32_t prompt[30];
    struct err e = {0};
    for (uint32_t i = 0; i < 30; i++)
        prompt[i] = 7 * i % TINY_VOCAB;
    for (uint32_t i = 0; i < REQUESTS; i++) {
        const struct engine_request r = {
            .id = i + 1,
            .prompt = prompt,
            .n_prompt = 1 + 5 * i,
            .max_tokens = TOKENS,
            .ignore_eos = true,
            .adapter = which[i],
            .sampling = {.temperature = 0.8f, .top_p = 1, .repetition_penalty = 1, .seed = i}};
        if (engine_submit(g, &r, &e) < 0)
            fail_msg("%s", e.msg);
    }
}

static void run(const char *device, const char *model, const struct engine_adapter *a,
                struct said *out)
{
    struct engine *g = open_engine(device, model, a);
    struct engine_step s;
    struct err e = {0};
    uint32_t n = 0;
    submit_all(g);
    for (bool more = true; more;) {
        more = engine_step(g, &s);
        if (engine_check(g, &e) < 0)
            fail_msg("%s", e.msg);
        for (uint32_t i = 0; i < s.n_deltas; i++) {
            const struct engine_delta *d = &s.deltas[i];
            for (uint32_t k = 0; k < d->n_tokens; k++, n++) {
                out->tokens[d->id - 1][d->index + k] = d->tokens[k];
                out->digests[d->id - 1][d->index + k] = d->logits_digests[k];
            }
        }
    }
    assert_int_equal(n, REQUESTS * TOKENS);
    engine_free(g);
}

static void compare(const struct tiny_llama *t)
{
    struct engine_adapter a[ADAPTERS];
    char folders[ADAPTERS][TINY_FOLDER_BYTES], path[TINY_PATH_BYTES];
    struct said cpu = {0}, gpu = {0};
    const struct simt_machine machine = {
        .devices = 1, .major = 8, .minor = 0, .driver = 13000, .memory = (size_t)2 << 30};
    simt_machine_set(&machine);
    tiny_llama_file(t, path);
    for (uint32_t i = 0; i < ADAPTERS; i++) {
        tiny_adapter_folder(&adapters[i], t, folders[i]);
        a[i] = (struct engine_adapter){.name = folders[i], .path = folders[i]};
    }
    run("cpu", path, a, &cpu);
    run("cuda", path, a, &gpu);
    assert_memory_equal(cpu.digests, gpu.digests, sizeof(cpu.digests));
    assert_memory_equal(cpu.tokens, gpu.tokens, sizeof(cpu.tokens));
    assert_int_equal(simt_machine_taken(), 0);
    unlink(path);
    for (uint32_t i = 0; i < ADAPTERS; i++)
        tiny_adapter_remove(folders[i]);
}

static void test_adapters_have_the_cpus_bits(void **state)
{
    (void)state;
    compare(&tiny_llama_small);
}

static void test_adapters_behind_a_bias_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.qkv_bias = true;
    t.type = KN_Q8_0;
    t.seed = 9;
    compare(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapters_have_the_cpus_bits),
        cmocka_unit_test(test_adapters_behind_a_bias_have_the_cpus_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
