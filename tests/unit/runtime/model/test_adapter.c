/* Adapters that fit and that do not: every refusal names what is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/base/threads.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/adapter.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/model/tiny_adapter.h"

static struct model model;
static struct threads *crew;

static int setup(void **state)
{
    struct checkpoint *file = NULL;
    struct err e;
    char path[TINY_PATH_BYTES];
    (void)state;
    tiny_llama_file(&tiny_llama_small, path);
    int rc = threads_create(1, &crew, &e);
    if (rc == 0)
        rc = checkpoint_open(path, &file, &e);
    if (rc == 0)
        rc = model_load(&model, file, KN_ISA_REF, crew, &e);
    checkpoint_close(file);
    unlink(path);
    return rc;
}

static int teardown(void **state)
{
    (void)state;
    model_release(&model);
    threads_free(crew);
    return 0;
}

static int load(const struct tiny_adapter *t, struct adapter *out, struct err *e)
{
    char folder[TINY_FOLDER_BYTES];
    tiny_adapter_folder(t, &tiny_llama_small, folder);
    int rc = adapter_load(&model, "a", folder, out, e);
    tiny_adapter_remove(folder);
    return rc;
}

static void expect_refused(const struct tiny_adapter *t, int code, const char *words)
{
    struct adapter a;
    struct err e = {0};
    int rc = load(t, &a, &e);
    if (rc != code || !strstr(e.msg, words))
        fail_msg("%d '%s', wanted %d with '%s'", rc, e.msg, code, words);
    assert_null(a.matrices);
    assert_null(a.block);
}

static void expect_config_refused(const char *config, int code, const char *words)
{
    expect_refused(&(struct tiny_adapter){.rank = 4, .config = config}, code, words);
}

#define LORA "\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":8"

static void test_adapter_has_its_matrices(void **state)
{
    (void)state;
    struct adapter a;
    struct err e;
    assert_int_equal(load(&(struct tiny_adapter){.rank = 4, .attention_alone = true}, &a, &e), 0);
    assert_int_equal(a.rank, 4);
    assert_true(a.scale == 4); /* 16 / 4 */
    assert_int_equal(a.n_matrices, 2 * 4);
    const struct model_layer *y = &model.layers[1];
    const struct adapter_matrix *k = adapter_find(&a, &model, &y->k);
    assert_non_null(k);
    assert_int_equal(k->a.rows, 4);
    assert_int_equal(k->a.cols, 64);
    assert_int_equal(k->b.rows, 32);
    assert_int_equal(k->b.cols, 4);
    assert_ptr_not_equal(k, adapter_find(&a, &model, &model.layers[0].k));
    assert_null(adapter_find(&a, &model, &y->up));
    assert_null(adapter_find(&a, &model, &model.head));
    adapter_release(&a);
}

/* transformers has pairs half a head apart, a GGUF Llama side by side. */
static void test_adapter_rows_go_where_the_models_are(void **state)
{
    (void)state;
    struct adapter a;
    struct err e;
    const struct tiny_adapter t = {.rank = 1, .seed = 5};
    char folder[TINY_FOLDER_BYTES];
    float file[1 << 14];
    tiny_adapter_folder(&t, &tiny_llama_small, folder);
    assert_int_equal(adapter_load(&model, "a", folder, &a, &e), 0);
    char path[128];
    snprintf(path, sizeof(path), "%s/adapter_model.safetensors", folder);
    FILE *f = fopen(path, "rb");
    uint64_t head;
    assert_int_equal(fread(&head, 8, 1, f), 1);
    fseek(f, (long)head, SEEK_CUR);
    assert_true(fread(file, sizeof(float), 64 + 64 + 64 + 32 + 64 + 32, f) == 320);
    fclose(f);
    tiny_adapter_remove(folder);
    const float *q_b = file + 64, *v_b = file + 64 + 64 + 64 + 32 + 64;
    const float *q = adapter_find(&a, &model, &model.layers[0].q)->b.data;
    const float *v = adapter_find(&a, &model, &model.layers[0].v)->b.data;
    for (int i = 0; i < 64; i++) /* heads of 16: 0 8 1 9 ... */
        assert_true(q[i] == q_b[i / 16 * 16 + i % 2 * 8 + i % 16 / 2]);
    assert_memory_equal(v, v_b, 32 * sizeof(float));
    adapter_release(&a);
}

static void test_adapter_hash_is_of_config_and_tensors(void **state)
{
    (void)state;
    const struct tiny_adapter t[] = {{.rank = 4, .seed = 1, .config = "{" LORA "}"},
                                     {.rank = 4, .seed = 1, .config = "{" LORA "}"},
                                     {.rank = 4, .seed = 2, .config = "{" LORA "}"},
                                     {.rank = 4, .seed = 1, .config = "{" LORA " }"}};
    struct adapter a[ARRAY_LEN(t)];
    struct err e;
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        assert_int_equal(load(&t[i], &a[i], &e), 0);
    assert_int_equal(strlen(a[0].sha256), 64);
    assert_string_equal(a[0].sha256, a[1].sha256);
    assert_string_not_equal(a[0].sha256, a[2].sha256);
    assert_string_not_equal(a[0].sha256, a[3].sha256);
    for (size_t i = 0; i < ARRAY_LEN(t); i++)
        adapter_release(&a[i]);
}

static void test_adapter_config_that_is_served(void **state)
{
    (void)state;
    struct adapter a;
    struct err e;
    const char *config =
        "{" LORA ",\"use_rslora\":true,\"use_dora\":false,\"bias\":\"none\","
        "\"rank_pattern\":{ },\"modules_to_save\":null,\"layer_replication\":null,"
        "\"init_lora_weights\":true,\"lora_dropout\":0.1,\"target_modules\":[\"x\"],"
        "\"of_later\":[],\"task_type\":\"CAUSAL_LM\"}";
    assert_int_equal(load(&(struct tiny_adapter){.rank = 4, .config = config}, &a, &e), 0);
    assert_true(a.scale == 4); /* 8 / sqrt(4) */
    adapter_release(&a);
}

static void test_adapter_refuses_what_is_not_served_by_name(void **state)
{
    (void)state;
    expect_config_refused("{" LORA ",\"use_dora\":true}", ERR_UNSUPPORTED, "use_dora");
    expect_config_refused("{" LORA ",\"modules_to_save\":[\"lm_head\"]}", ERR_UNSUPPORTED,
                          "modules_to_save");
    expect_config_refused("{" LORA ",\"bias\":\"all\"}", ERR_UNSUPPORTED, "bias");
    expect_config_refused("{" LORA ",\"rank_pattern\":{\"q_proj\":2}}", ERR_UNSUPPORTED,
                          "rank_pattern");
    expect_config_refused("{" LORA ",\"alpha_pattern\":{\"q_proj\":2}}", ERR_UNSUPPORTED,
                          "alpha_pattern");
    expect_config_refused("{" LORA ",\"fan_in_fan_out\":true}", ERR_UNSUPPORTED, "fan_in_fan_out");
    expect_config_refused("{" LORA ",\"init_lora_weights\":\"pissa\"}", ERR_UNSUPPORTED,
                          "init_lora_weights");
    expect_config_refused("{" LORA ",\"of_later\":1}", ERR_UNSUPPORTED, "of_later");
    expect_config_refused("{\"peft_type\":\"IA3\",\"r\":4,\"lora_alpha\":8}", ERR_UNSUPPORTED,
                          "peft_type");
    expect_config_refused("{\"r\":4,\"lora_alpha\":8}", ERR_FORMAT, "peft_type");
    expect_config_refused("{\"peft_type\":\"LORA\",\"lora_alpha\":8}", ERR_RANGE, "r is 0");
    expect_config_refused("{\"peft_type\":\"LORA\",\"r\":4}", ERR_FORMAT, "lora_alpha");
    expect_config_refused("{\"peft_type\":\"LORA\",\"r\":5000,\"lora_alpha\":8}", ERR_RANGE,
                          "5000");
    expect_config_refused("{\"peft_type\":\"LORA\",\"r\":4,\"lora_alpha\":1e300}", ERR_RANGE,
                          "lora_alpha");
    expect_config_refused("[]", ERR_FORMAT, "adapter_config.json");
    expect_config_refused("{" LORA, ERR_FORMAT, "adapter_config.json");
}

static void test_adapter_refuses_tensors_that_do_not_fit(void **state)
{
    (void)state;
    struct tiny_adapter t = {.rank = 4, .bent = true};
    expect_refused(&t, ERR_FORMAT, "is not (4, 64)");
    t = (struct tiny_adapter){.rank = 3, .config = "{" LORA "}"};
    expect_refused(&t, ERR_FORMAT, "is not (4, 96)");
    t = (struct tiny_adapter){.rank = 4, .left_out = "layers.1.mlp.up_proj.lora_B.weight"};
    expect_refused(&t, ERR_FORMAT, "layer 1: mlp.up_proj");
    t = (struct tiny_adapter){.rank = 4, .left_out = "weight"};
    expect_refused(&t, ERR_FORMAT, "no tensors");
    t = (struct tiny_adapter){.rank = 4, .odd_dtype = true};
    expect_refused(&t, ERR_UNSUPPORTED, "I8");
    static const char *const names[] = {
        "base_model.model.lm_head.lora_A.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.99999999999.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.gate_up_proj.lora_A.weight",
        "base_model.model.model.layers.0.mlp.experts.0.w1.lora_A.weight",
        "base_model.model.model.layers..self_attn.q_proj.lora_A.weight",
        "x"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        t = (struct tiny_adapter){.rank = 4, .renamed = names[i]};
        expect_refused(&t, ERR_UNSUPPORTED, names[i]);
    }
}

static void test_adapter_that_is_not_there(void **state)
{
    (void)state;
    struct adapter a;
    struct err e;
    assert_int_equal(adapter_load(&model, "a", "/nowhere", &a, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "/nowhere"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapter_has_its_matrices),
        cmocka_unit_test(test_adapter_rows_go_where_the_models_are),
        cmocka_unit_test(test_adapter_hash_is_of_config_and_tensors),
        cmocka_unit_test(test_adapter_config_that_is_served),
        cmocka_unit_test(test_adapter_refuses_what_is_not_served_by_name),
        cmocka_unit_test(test_adapter_refuses_tensors_that_do_not_fit),
        cmocka_unit_test(test_adapter_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
