/* The YAML reader of config.c over every type of option. */
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/check.h"
#include "runtime/base/config.h"

struct sample {
    bool flag;
    int64_t number, bytes, ms;
    double real;
    char *text, *choice;
    struct config_list list;
};

#define OPTION(k, t, f, ...)                                                               \
    {                                                                                      \
        .key = k, .type = t, .offset = offsetof(struct sample, f), .help = "", __VA_ARGS__ \
    }

static const struct config_option options[] = {
    OPTION("flag", CONFIG_BOOL, flag, .def = NULL),
    OPTION("number", CONFIG_INT, number, .min = -10, .max = 1000),
    OPTION("bytes", CONFIG_BYTES, bytes, .def = NULL),
    OPTION("ms", CONFIG_MS, ms, .min = 1, .max = 1e9),
    OPTION("real", CONFIG_DOUBLE, real, .def = NULL),
    OPTION("text", CONFIG_STRING, text, .def = NULL),
    OPTION("choice", CONFIG_CHOICE, choice, .choices = "a|b|c"),
    OPTION("list", CONFIG_LIST, list, .def = NULL),
};
static const struct config_program program = {
    .name = "fuzz", .summary = "", .options = options, .n_options = ARRAY_LEN(options)};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct sample s = {0};
    struct err e = {0};
    int rc = config_parse_yaml(&program, (const char *)data, n, "input", &s, &e);
    if (rc == 0) {
        ASSERT((s.number >= -10 && s.number <= 1000) && s.bytes >= 0 && s.ms >= 0);
        ASSERT(s.real - s.real == 0);
    } else {
        ASSERT(e.code == rc && e.msg[0]);
    }
    config_release(&program, &s);
    return 0;
}
