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

#include "tests/unit/runtime/engine/said.h"
#include "tests/unit/runtime/model/tiny_adapter.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define ADAPTERS 3u
#define REQUESTS 6u
#define TOKENS 4u

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
static void run(const char *device, const char *model, const struct engine_adapter *a,
                struct said *out)
{
    static const uint32_t which[REQUESTS] = {1, 1, 0, 2, 3, 1};
    struct engine *g = open_engine(device, model, a);
    struct engine_request requests[REQUESTS];
    uint32_t prompt[30];
    for (uint32_t i = 0; i < 30; i++)
        prompt[i] = 7 * i % TINY_VOCAB;
    for (uint32_t i = 0; i < REQUESTS; i++)
        requests[i] = (struct engine_request){
            .id = i + 1,
            .prompt = prompt,
            .n_prompt = 1 + 5 * i,
            .max_tokens = TOKENS,
            .ignore_eos = true,
            .adapter = which[i],
            .sampling = {.temperature = 0.8f, .top_p = 1, .repetition_penalty = 1, .seed = i}};
    said_run(g, requests, REQUESTS, out);
    assert_int_equal(out->n_tokens, REQUESTS * TOKENS);
    engine_free(g);
}

static void compare(const struct tiny_llama *t)
{
    struct engine_adapter a[ADAPTERS];
    char folders[ADAPTERS][TINY_FOLDER_BYTES], path[TINY_PATH_BYTES];
    struct said cpu, gpu;
    on_gpus(1);
    tiny_llama_file(t, path);
    for (uint32_t i = 0; i < ADAPTERS; i++) {
        tiny_adapter_folder(&adapters[i], t, folders[i]);
        a[i] = (struct engine_adapter){.name = folders[i], .path = folders[i]};
    }
    run("cpu", path, a, &cpu);
    run("cuda", path, a, &gpu);
    assert_same_said(&cpu, &gpu);
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
