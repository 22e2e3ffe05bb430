#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/base/err.h"
#include "runtime/worker/worker_config.h"

static int load(struct worker_config *c, struct err *e, int n, ...)
{
    enum config_action action;
    char *argv[16] = {(char *)"argosy-worker"};
    va_list ap;
    va_start(ap, n);
    for (int i = 0; i < n; i++)
        argv[i + 1] = va_arg(ap, char *);
    va_end(ap);
    return config_load(&worker_program, n + 1, argv, c, &action, e);
}

static void test_worker_config_defaults_are_valid(void **state)
{
    (void)state;
    struct worker_config c;
    struct err e;
    if (load(&c, &e, 1, "--model=a.gguf") < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(c.routers.n, 1);
    assert_string_equal(c.routers.items[0], "127.0.0.1:9090");
    assert_null(c.id);
    assert_int_equal(c.heartbeat_ms, 500);
    assert_int_equal(c.backoff_min_ms, 100);
    assert_int_equal(c.backoff_max_ms, 10000);
    assert_int_equal(c.out_bytes_max, 16 << 20);
    assert_int_equal(c.drain_timeout_ms, 30000);
    assert_string_equal(c.isa, "auto");
    assert_false(c.die_with_parent);
    assert_true(c.prefix_cache);
    assert_int_equal(c.tp, 1);
    assert_int_equal(c.tp_timeout_ms, 10000);
    assert_true(c.stall_max > 1.59 && c.stall_max < 1.61);
    assert_int_equal(c.priority_tokens, 65536);
    assert_string_equal(c.speculate, "auto");
    assert_null(c.draft_model);
    assert_int_equal(c.draft_tokens_max, 4);
    assert_string_equal(c.kv_type, "f16");
    assert_int_equal(c.kv_host_bytes, 0);
    assert_int_equal(c.model.n, 1);
    assert_int_equal(c.memory, 0);
    assert_int_equal(c.load_wait_ms, 60000);
    assert_int_equal(c.unload_after_ms, 0);
    config_release(&worker_program, &c);
}

static void test_worker_config_names_the_model(void **state)
{
    (void)state;
    static const struct {
        const char *model, *name, *path;
    } cases[] = {
        {"smol=/models/x.gguf", "smol", "/models/x.gguf"},
        {"/models/SmolLM2.Q4_1.gguf", "SmolLM2.Q4_1", "/models/SmolLM2.Q4_1.gguf"},
        {"plain", "plain", "plain"},
        {"/models/Tiny-1.1B/", "Tiny-1.1B", "/models/Tiny-1.1B/"},
        {"folder//", "folder", "folder//"},
        {"/a=b/c.gguf", "c", "/a=b/c.gguf"},
        {"org-name=rel/x.gguf", "org-name", "rel/x.gguf"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char name[64];
        worker_model_name(cases[i].model, "off", name, sizeof(name));
        assert_string_equal(name, cases[i].name);
        assert_string_equal(worker_model_path(cases[i].model), cases[i].path);
    }
}

/* A name that the operator chose stays: then only the manifest tells. */
static void test_worker_config_fast_mode_is_in_the_name(void **state)
{
    (void)state;
    char name[64];
    struct worker_config c;
    struct err e;
    worker_model_name("/models/Tiny-1.1B/", "bf16", name, sizeof(name));
    assert_string_equal(name, "Tiny-1.1B-fast-bf16");
    worker_model_name("tiny=/models/Tiny-1.1B/", "bf16", name, sizeof(name));
    assert_string_equal(name, "tiny");
    if (load(&c, &e, 2, "--model=a", "--fast=bf16") < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(worker_engine_config(&c, "a").fast, FAST_BF16);
    config_release(&worker_program, &c);
    if (load(&c, &e, 1, "--model=a") < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(worker_engine_config(&c, "a").fast, FAST_OFF);
    config_release(&worker_program, &c);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--fast=fp32"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 3, "--model=a", "--fast=bf16", "--tp=2"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "fast=bf16: several ranks (tp) are not served so"));
    assert_int_equal(load(&c, &e, 3, "--model=a", "--fast=bf16", "--adapters=x=y"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "fast=bf16: adapters are not served so"));
}

static void test_worker_config_refuses_what_does_not_fit_together(void **state)
{
    (void)state;
    struct worker_config c;
    struct err e;
    assert_int_equal(load(&c, &e, 0), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "model"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--backoff-min=20s"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "backoff_min"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--tp=17"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "tp"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--tls-cert=x"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "tls_key"));
    assert_int_equal(load(&c, &e, 3, "--model=a", "--tls-cert=x", "--tls-key=y"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "tls_ca"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--labels=eu"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "'eu' is not KEY=VALUE"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--id="), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model==x", "--price=1"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--price=-1"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--heartbeat=2s"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--sequences-max=0"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--stall-max=0.5"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "stall_max"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--priority-tokens=0"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--speculate=draft"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "draft_model"));
    assert_int_equal(load(&c, &e, 3, "--model=a", "--speculate=lookup", "--draft-model=b"),
                     ERR_CONFIG);
    assert_non_null(strstr(e.msg, "speculate=lookup"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--speculate=maybe"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--draft-tokens-max=17"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--kv-type=int4"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--kv-host-bytes=-1"), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 2, "--model=a", "--kv-host-bytes=2M"), 0);
    assert_int_equal(worker_engine_config(&c, "a").kv_host_bytes, 2 << 20);
    config_release(&worker_program, &c);
    assert_int_equal(load(&c, &e, 2, "--model=a=x", "--model=a=y"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "two are called a"));
    assert_int_equal(load(&c, &e, 2, "--model=a=x", "--model=b="), ERR_CONFIG);
    assert_int_equal(load(&c, &e, 3, "--model=a=x", "--model=b=y", "--draft-model=z"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "one model"));
    assert_int_equal(load(&c, &e, 2, "--model=a", "--load-wait=2h"), ERR_CONFIG);
}

/* The page is troff: a dash is written \-. */
static void test_worker_config_every_option_is_in_the_manual(void **state)
{
    (void)state;
    static char page[65536];
    FILE *f = fopen("deploy/man/argosy-worker.1", "r");
    assert_non_null(f);
    size_t n = fread(page, 1, sizeof(page) - 1, f);
    fclose(f);
    page[n] = 0;
    for (size_t i = 0; i < worker_program.n_options; i++) {
        const struct config_option *o = &worker_program.options[i];
        char flag[128] = "\\-\\-";
        if (!o->key)
            continue;
        for (const char *c = o->key; *c; c++)
            strcat(flag, *c == '_' ? "\\-" : (char[]){*c, 0});
        strcat(flag, o->type == CONFIG_BOOL ? " [" : "= ");
        if (!strstr(page, flag))
            fail_msg("the manual has no %s", flag);
        assert_true(o->help && o->help[0]);
    }
}

static void test_worker_config_lists_models(void **state)
{
    (void)state;
    struct worker_config c;
    struct err e;
    if (load(&c, &e, 5, "--model=a=x.gguf", "--model=y.gguf", "--memory=16G", "--unload-after=5m",
             "--load-wait=30s") < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(c.model.n, 2);
    assert_string_equal(worker_model_path(c.model.items[1]), "y.gguf");
    assert_true(c.memory == (int64_t)16 << 30);
    assert_int_equal(c.unload_after_ms, 300000);
    assert_int_equal(c.load_wait_ms, 30000);
    assert_string_equal(worker_engine_config(&c, "p").model_path, "p");
    config_release(&worker_program, &c);
}

static void test_worker_config_lists_adapters(void **state)
{
    (void)state;
    struct worker_config c;
    struct err e;
    char name[256];
    if (load(&c, &e, 3, "--model=a.gguf", "--adapters=sql=/x/a=b", "--adapters=fr=y") < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(c.adapters.n, 2);
    assert_string_equal(worker_adapter(c.adapters.items[0], name, sizeof(name)), "/x/a=b");
    assert_string_equal(name, "sql");
    config_release(&worker_program, &c);
    assert_int_equal(load(&c, &e, 2, "--model=a.gguf", "--adapters=x"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "'x' is not NAME=PATH"));
    assert_int_equal(load(&c, &e, 2, "--model=a.gguf", "--adapters==x"), ERR_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_config_defaults_are_valid),
        cmocka_unit_test(test_worker_config_names_the_model),
        cmocka_unit_test(test_worker_config_fast_mode_is_in_the_name),
        cmocka_unit_test(test_worker_config_refuses_what_does_not_fit_together),
        cmocka_unit_test(test_worker_config_every_option_is_in_the_manual),
        cmocka_unit_test(test_worker_config_lists_models),
        cmocka_unit_test(test_worker_config_lists_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
