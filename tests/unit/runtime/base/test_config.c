#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/base/config.h"

struct sample {
    bool on;
    int64_t count;
    int64_t memory;
    int64_t wait;
    double share;
    char *name;
    char *level;
    struct config_list peers;
};

static const struct config_option options[] = {
    {.help = "Things:"},
    {.key = "on", .type = CONFIG_BOOL, .offset = offsetof(struct sample, on), .help = "Be on"},
    {.key = "count",
     .type = CONFIG_INT,
     .offset = offsetof(struct sample, count),
     .def = "3",
     .min = -5,
     .max = 100,
     .help = "How many"},
    {.key = "kv_bytes",
     .type = CONFIG_BYTES,
     .offset = offsetof(struct sample, memory),
     .def = "64k",
     .help = "How much"},
    {.key = "wait",
     .type = CONFIG_MS,
     .offset = offsetof(struct sample, wait),
     .def = "5s",
     .help = "How long"},
    {.help = "Others:"},
    {.key = "share",
     .type = CONFIG_DOUBLE,
     .offset = offsetof(struct sample, share),
     .min = 0,
     .max = 1,
     .help = "Which part"},
    {.key = "name", .type = CONFIG_STRING, .offset = offsetof(struct sample, name), .help = "Who"},
    {.key = "level",
     .type = CONFIG_CHOICE,
     .offset = offsetof(struct sample, level),
     .def = "info",
     .choices = "debug|info",
     .help = "What"},
    {.key = "peers",
     .type = CONFIG_LIST,
     .offset = offsetof(struct sample, peers),
     .def = "here:1",
     .arg = "HOST:PORT",
     .help = "Whom"},
};

static int check_sample(const void *out, struct err *e)
{
    const struct sample *s = out;
    return s->count == 99 ? err_set(e, ERR_CONFIG, "count and the moon do not go together") : 0;
}

static const struct config_program program = {
    .name = "sample",
    .summary = "A sample.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .check = check_sample,
};

static int load(struct sample *s, struct err *e, enum config_action *action, int n, ...)
{
    char *argv[16] = {(char *)"sample"};
    va_list ap;
    va_start(ap, n);
    for (int i = 0; i < n; i++)
        argv[i + 1] = va_arg(ap, char *);
    va_end(ap);
    return config_load(&program, n + 1, argv, s, action, e);
}

static void test_config_defaults_stand_without_anything(void **state)
{
    (void)state;
    struct sample s;
    struct err e;
    enum config_action action;
    assert_int_equal(load(&s, &e, &action, 0), 0);
    assert_int_equal(action, CONFIG_RUN);
    assert_false(s.on);
    assert_int_equal(s.count, 3);
    assert_int_equal(s.memory, 65536);
    assert_int_equal(s.wait, 5000);
    assert_true(s.share == 0);
    assert_null(s.name);
    assert_string_equal(s.level, "info");
    assert_int_equal(s.peers.n, 1);
    assert_string_equal(s.peers.items[0], "here:1");
    config_release(&program, &s);
}

static const char *write_file(const char *text)
{
    static char path[64];
    snprintf(path, sizeof(path), "build/test-config-%d.yaml", (int)getpid());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static void test_config_flags_win_over_the_file(void **state)
{
    (void)state;
    struct sample s;
    struct err e;
    enum config_action action;
    const char *path = write_file("# a comment\n"
                                  "on: yes\n"
                                  "count: 7\n"
                                  "kv_bytes: 2G\n"
                                  "wait: 2m\n"
                                  "share: 0.25\n"
                                  "name: \"a b\"\n"
                                  "level: debug\n"
                                  "peers:\n  - one:1\n  - two:2\n");
    int rc = load(&s, &e, &action, 5, "--count=8", "--config", path, "--peers=three:3",
                  "--peers=four:4");
    unlink(path);
    assert_int_equal(rc, 0);
    assert_true(s.on);
    assert_int_equal(s.count, 8);
    assert_int_equal(s.memory, 2147483648);
    assert_int_equal(s.wait, 120000);
    assert_true(s.share == 0.25);
    assert_string_equal(s.name, "a b");
    assert_string_equal(s.level, "debug");
    assert_int_equal(s.peers.n, 2);
    assert_string_equal(s.peers.items[0], "three:3");
    assert_string_equal(s.peers.items[1], "four:4");
    config_release(&program, &s);
}

static void test_config_bool_flags_may_say_no(void **state)
{
    (void)state;
    struct sample s;
    enum config_action action;
    assert_int_equal(load(&s, NULL, &action, 1, "--on"), 0);
    assert_true(s.on);
    config_release(&program, &s);
    assert_int_equal(load(&s, NULL, &action, 2, "--on", "--on=no"), 0);
    assert_false(s.on);
    config_release(&program, &s);
}

static void test_config_yaml_errors_name_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *message;
    } bad[] = {
        {"on: true\ncolour: red\n", "f.yaml:2: colour: no such option"},
        {"on: perhaps\n", "f.yaml:1: on: must be true or false, not 'perhaps'"},
        {"\n\ncount: many\n", "f.yaml:3: count: must be a whole number, not 'many'"},
        {"count: 4.5\n", "f.yaml:1: count: must be a whole number, not '4.5'"},
        {"count: 101\n", "f.yaml:1: count: must be from -5 to 100, not 101"},
        {"count: 99999999999999999999\n",
         "f.yaml:1: count: must be a whole number, not '99999999999999999999'"},
        {"kv_bytes: 1X\n", "f.yaml:1: kv_bytes: must be a size like 512, 64k, 4M or 2G, not '1X'"},
        {"kv_bytes: 9223372036854775807k\n",
         "f.yaml:1: kv_bytes: must be a size like 512, 64k, 4M or 2G, not '9223372036854775807k'"},
        {"kv_bytes: -1\n", "f.yaml:1: kv_bytes: must not be negative"},
        {"wait: 3 s\n", "f.yaml:1: wait: must be a time like 500ms, 5s or 2m, not '3 s'"},
        {"share: .nan\n", "f.yaml:1: share: must be a number, not '.nan'"},
        {"share: nan\n", "f.yaml:1: share: must be a number, not 'nan'"},
        {"share: 1.5\n", "f.yaml:1: share: must be from 0 to 1, not 1.5"},
        {"level: loud\n", "f.yaml:1: level: must be one of debug|info, not 'loud'"},
        {"level: deb\n", "f.yaml:1: level: must be one of debug|info, not 'deb'"},
        {"name: [a]\n", "f.yaml:1: name: must be a plain value"},
        {"name: {a: b}\n", "f.yaml:1: name: must be a plain value"},
        {"name: \"a\\0b\"\n", "f.yaml:1: name: holds a NUL"},
        {"peers: {a: b}\n", "f.yaml:1: peers: must be a list"},
        {"peers:\n - a\n - [b]\n", "f.yaml:3: peers: must be a list of plain values"},
        {"count: 1\non: no\ncount: 2\n", "f.yaml:3: count: given twice"},
        {"count:\n", "f.yaml:1: count: has no value"},
        {"- a\n", "f.yaml:1: must be a mapping of options to values"},
        {"name: &x a\npeers: *x\n", "f.yaml:2: peers: must be a list"},
        {"on: no\n---\non: yes\n", "f.yaml:2: more than one document"},
        {"[a]: b\n", "f.yaml:1: a key must be plain text"},
        {"? [a]\n: b\n", "f.yaml:1: a key must be plain text"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct sample s = {0};
        struct err e = {0};
        int rc = config_parse_yaml(&program, bad[i].yaml, strlen(bad[i].yaml), "f.yaml", &s, &e);
        config_release(&program, &s);
        if (rc != ERR_CONFIG || strncmp(e.msg, bad[i].message, strlen(bad[i].message)) != 0)
            fail_msg("%s → %d '%s' instead of '%s'", bad[i].yaml, rc, e.msg, bad[i].message);
    }
}

static void test_config_broken_yaml_names_the_line(void **state)
{
    (void)state;
    const char text[] = "on: yes\nname: \"open\n";
    struct sample s = {0};
    struct err e;
    assert_int_equal(config_parse_yaml(&program, text, strlen(text), "f.yaml", &s, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "f.yaml:3"));
    config_release(&program, &s);
}

static void test_config_flag_errors_name_the_flag(void **state)
{
    (void)state;
    struct sample s;
    struct err e;
    enum config_action action;
    assert_int_equal(load(&s, &e, &action, 1, "--kv-bytes=lots"), ERR_CONFIG);
    assert_string_equal(e.msg, "--kv-bytes: must be a size like 512, 64k, 4M or 2G, not 'lots'");
    assert_int_equal(action, CONFIG_EXIT);
    assert_int_equal(load(&s, &e, &action, 1, "--colour=red"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "--colour=red"));
    assert_int_equal(load(&s, &e, &action, 1, "stray"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "stray"));
    assert_int_equal(load(&s, &e, &action, 1, "--count"), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "--count"));
    assert_int_equal(load(&s, &e, &action, 1, "--config=/nowhere.yaml"), ERR_IO);
    assert_non_null(strstr(e.msg, "/nowhere.yaml"));
}

static void test_config_check_says_ok_only_when_all_is_well(void **state)
{
    (void)state;
    struct sample s;
    struct err e;
    enum config_action action;
    assert_int_equal(load(&s, &e, &action, 1, "--check-config"), 0);
    assert_int_equal(action, CONFIG_EXIT);
    assert_null(s.level);
    assert_int_equal(load(&s, &e, &action, 2, "--check-config", "--count=99"), ERR_CONFIG);
    assert_string_equal(e.msg, "count and the moon do not go together");
}

static void test_config_help_shows_every_option(void **state)
{
    (void)state;
    struct sample s;
    struct err e;
    enum config_action action;
    char text[8192], path[64];
    snprintf(path, sizeof(path), "build/test-config-%d.txt", (int)getpid());
    fflush(stdout);
    int keep = dup(STDOUT_FILENO);
    assert_non_null(freopen(path, "w", stdout));
    int rc = load(&s, &e, &action, 1, "--help");
    fflush(stdout);
    dup2(keep, STDOUT_FILENO);
    close(keep);
    FILE *f = fopen(path, "r");
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    unlink(path);
    text[n] = 0;
    assert_int_equal(rc, 0);
    assert_int_equal(action, CONFIG_EXIT);
    assert_non_null(strstr(text, "A sample."));
    assert_non_null(strstr(text, " Things:"));
    assert_non_null(strstr(text, "--kv-bytes=BYTES"));
    assert_non_null(strstr(text, "How much (default: 64k)"));
    assert_non_null(strstr(text, "--on[=BOOL]"));
    assert_non_null(strstr(text, "--peers=HOST:PORT"));
    assert_non_null(strstr(text, "--check-config"));
    assert_true(strstr(text, "--kv-bytes") < strstr(text, " Others:"));
    assert_true(strstr(text, " Others:") < strstr(text, "--share"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_defaults_stand_without_anything),
        cmocka_unit_test(test_config_flags_win_over_the_file),
        cmocka_unit_test(test_config_bool_flags_may_say_no),
        cmocka_unit_test(test_config_yaml_errors_name_file_line_and_key),
        cmocka_unit_test(test_config_broken_yaml_names_the_line),
        cmocka_unit_test(test_config_flag_errors_name_the_flag),
        cmocka_unit_test(test_config_check_says_ok_only_when_all_is_well),
        cmocka_unit_test(test_config_help_shows_every_option),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
