/* An engine on the emulated GPU beside one on the CPU: long prompts and long contexts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/runtime/engine/said.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define PROMPT (KN_ATTN_SPLIT + 40)
#define TOKENS 4u

/* One prompt of 64 tokens in one step, one that is longer than a split of attention, one of a
 * token; a layer, because the emulator takes its time over contexts. */
static void run(const char *device, const struct tiny_llama *t, struct said *out)
{
    static const uint32_t lengths[] = {64, PROMPT, 1};
    uint32_t prompt[PROMPT];
    struct engine_request requests[3];
    struct engine *g = NULL;
    struct err e = {0};
    char path[TINY_PATH_BYTES];
    tiny_llama_file(t, path);
    const struct engine_config c = {.isa = "auto",
                                    .device = device,
                                    .threads = 1,
                                    .sequences_max = 3,
                                    .waiting_max = 3,
                                    .step_tokens_max = 64,
                                    .model_path = path,
                                    .logits_digests = true};
    if (engine_open(&c, &g, &e) < 0)
        fail_msg("%s: %s", device, e.msg);
    unlink(path);
    for (uint32_t i = 0; i < PROMPT; i++)
        prompt[i] = (13 * i + i / 7) % TINY_VOCAB;
    for (uint32_t i = 0; i < 3; i++)
        requests[i] = (struct engine_request){.id = i + 1,
                                              .prompt = prompt,
                                              .n_prompt = lengths[i],
                                              .max_tokens = TOKENS,
                                              .ignore_eos = true,
                                              .sampling = {.top_p = 1, .repetition_penalty = 1}};
    said_run(g, requests, 3, out);
    assert_int_equal(engine_check(g, &e), 0);
    assert_int_equal(out->n_tokens, 3 * TOKENS);
    engine_free(g);
}

static void compare(const struct tiny_llama *t)
{
    struct said cpu, gpu;
    on_gpus(1);
    run("cpu", t, &cpu);
    run("cuda", t, &gpu);
    assert_same_said(&cpu, &gpu);
    assert_int_equal(simt_machine_taken(), 0);
}

static void test_long_prompts_and_contexts_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.n_layers = 1;
    t.context = 1024;
    compare(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_long_prompts_and_contexts_have_the_cpus_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
