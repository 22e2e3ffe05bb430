#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/config.h"
#include "router/policy/policy.h"
#include "runtime/base/check.h"

static int load(struct router_config *c, struct err *e, int n, ...)
{
    enum config_action action;
    char *argv[16] = {(char *)"argosy-router"};
    va_list ap;
    va_start(ap, n);
    for (int i = 0; i < n; i++)
        argv[i + 1] = va_arg(ap, char *);
    va_end(ap);
    return config_load(&router_program, n + 1, argv, c, &action, e);
}

static void test_router_config_defaults_are_valid(void **state)
{
    (void)state;
    struct router_config c;
    struct err e;
    if (load(&c, &e, 1, "--models=m=a.gguf") < 0)
        fail_msg("%s", e.msg);
    assert_string_equal(c.listen, "127.0.0.1:8080");
    assert_string_equal(c.rpc_listen, "127.0.0.1:9090");
    assert_string_equal(c.policy, "predicted");
    assert_string_equal(c.cluster, "default");
    assert_null(c.redis);
    assert_int_equal(c.lease_ms, 700);
    assert_int_equal(c.worker_wait_ms, 10000);
    assert_int_equal(c.body_bytes_max, 8 << 20);
    assert_int_equal(c.moves_max, 3);
    assert_string_equal(c.kv_type, "f16");
    assert_string_equal(c.fast, "off");
    assert_false(c.die_with_parent);
    config_release(&router_program, &c);
}

/* A slip in the table that types cannot find. */
static void test_router_config_every_option_has_its_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < router_program.n_options; i++)
        for (size_t j = 0; j < i; j++) {
            const struct config_option *a = &router_program.options[i];
            const struct config_option *b = &router_program.options[j];
            if (a->key && b->key) {
                assert_string_not_equal(a->key, b->key);
                assert_int_not_equal(a->offset, b->offset);
            }
        }
}

static void assert_wrong(const char *flag, const char *words)
{
    struct router_config c;
    struct err e;
    assert_int_equal(load(&c, &e, 2, "--models=m=a.gguf", flag), ERR_CONFIG);
    if (!strstr(e.msg, words))
        fail_msg("%s: '%s' is not in '%s'", flag, words, e.msg);
}

static void test_router_config_refuses_what_does_not_fit_together(void **state)
{
    (void)state;
    struct router_config c;
    struct err e;
    assert_int_equal(load(&c, &e, 0), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "models"));
    assert_wrong("--models=x", "'x' is not NAME=PATH");
    assert_wrong("--listen=8080", "listen");
    assert_wrong("--listen=a:99999", "port");
    assert_wrong("--rpc-listen=::1:80", "rpc_listen");
    assert_wrong("--cluster=a b", "cluster");
    assert_wrong("--router-id=", "router_id");
    assert_wrong("--tls-cert=x", "tls_key");
    assert_wrong("--tls-ca=x", "tls_cert");
    assert_wrong("--redis-password-file=x", "redis");
    assert_wrong("--policy=fastest", "policy");
    assert_wrong("--kv-type=int4", "kv-type");
    assert_wrong("--lease=1ms", "lease");
    assert_wrong("--generations-max=0", "generations-max");
    assert_wrong("--worker-wait=-1", "worker-wait");
}

static void test_router_config_splits_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        int port; /* -1: refused */
    } cases[] = {
        {"127.0.0.1:8080", "127.0.0.1", 8080},
        {"[::1]:0", "::1", 0},
        {"host:65535", "host", 65535},
        {"host:65536", NULL, -1},
        {"host:", NULL, -1},
        {":80", NULL, -1},
        {"host", NULL, -1},
        {"::1:80", NULL, -1},
        {"[::1:80", NULL, -1},
        {"[]:80", NULL, -1},
        {"host: 80", NULL, -1},
        {"host:80x", NULL, -1},
        {"", NULL, -1},
        {"a-name-too-long:80", NULL, -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char host[12];
        uint16_t port = 1;
        int rc = router_split_address(cases[i].text, host, sizeof(host), &port, NULL);
        if ((rc == 0) != (cases[i].port >= 0))
            fail_msg("%s gives %d", cases[i].text, rc);
        if (rc < 0)
            continue;
        assert_string_equal(host, cases[i].host);
        assert_int_equal(port, cases[i].port);
    }
}

static void in_choices(void *ctx, const struct policy *p)
{
    if (!strstr(ctx, p->name))
        fail_msg("--policy does not take %s", p->name);
}

static void test_router_config_takes_every_policy(void **state)
{
    (void)state;
    for (size_t i = 0; i < router_program.n_options; i++)
        if (router_program.options[i].key && strcmp(router_program.options[i].key, "policy") == 0)
            policy_each(in_choices, (void *)router_program.options[i].choices);
}

/* The page is troff: a dash is written \-. */
static void test_router_config_every_option_is_in_the_manual(void **state)
{
    (void)state;
    static char page[65536];
    FILE *f = fopen("deploy/man/argosy-router.1", "r");
    assert_non_null(f);
    size_t n = fread(page, 1, sizeof(page) - 1, f);
    fclose(f);
    page[n] = 0;
    for (size_t i = 0; i < router_program.n_options; i++) {
        const struct config_option *o = &router_program.options[i];
        char flag[128] = "\\-\\-";
        size_t at = strlen(flag);
        if (!o->key)
            continue;
        for (const char *c = o->key; *c; c++)
            at += (size_t)snprintf(flag + at, sizeof(flag) - at, *c == '_' ? "\\-" : "%c", *c);
        snprintf(flag + at, sizeof(flag) - at, o->type == CONFIG_BOOL ? " [" : "= ");
        char *entry = strstr(page, flag);
        if (!entry)
            fail_msg("the manual has no %s", flag);
        assert_true(o->help && o->help[0]);
        char def[128];
        char *end = strstr(entry, "\n.TP");
        if (!o->def || o->type == CONFIG_BOOL)
            continue;
        snprintf(def, sizeof(def), "%s.", o->def);
        char *told = strstr(entry, def);
        if (!told || (end && told > end))
            fail_msg("the manual does not say that %s is %s", o->key, o->def);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_router_config_defaults_are_valid),
        cmocka_unit_test(test_router_config_every_option_has_its_field),
        cmocka_unit_test(test_router_config_refuses_what_does_not_fit_together),
        cmocka_unit_test(test_router_config_splits_addresses),
        cmocka_unit_test(test_router_config_takes_every_policy),
        cmocka_unit_test(test_router_config_every_option_is_in_the_manual),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
