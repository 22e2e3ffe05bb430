/* The field `argosy`: what is taken, and what is refused with the name of the part. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "router/http/fields.h"
#include "router/policy/policy.h"
#include "tests/unit/router/http/tiny_model.h"

struct fixture {
    struct model_texts texts;
    struct http_config limits;
    struct arena arena;
    struct api_request a;
    struct api_error e;
};

static int read_wants(struct fixture *f, const char *value)
{
    static char body[8192];
    struct api_context ctx = {&f->limits, &f->texts, &f->arena, 1700000000, false};
    f->e = (struct api_error){0};
    snprintf(body, sizeof(body), "{\"model\":\"tiny\",\"prompt\":\"hi\",\"argosy\":%s}", value);
    return api_request_read(&f->a, API_TEXT, body, strlen(body), &ctx, &f->e);
}

static int setup(void **state)
{
    static struct fixture f;
    f.limits = http_config_default();
    tiny_model_init(&f.texts);
    arena_init(&f.arena, f.limits.request_bytes_max);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    arena_release(&f->arena);
    model_texts_release(&f->texts);
    return 0;
}

static void test_labels_and_price_are_taken(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(
        read_wants(f, "{\"wants\":{\"region\":\"eu\",\"device\":\"cuda\"},\"price_max\":2.5}"), 0);
    assert_int_equal(f->a.n_wants, 2);
    assert_string_equal(f->a.wants[0].key, "region");
    assert_string_equal(f->a.wants[0].value, "eu");
    assert_string_equal(f->a.wants[1].key, "device");
    assert_string_equal(f->a.wants[1].value, "cuda");
    assert_true(f->a.price_max == 2.5);
    assert_int_equal(read_wants(f, "{\"wants\":null}"), 0);
    assert_int_equal(f->a.n_wants, 0);
    assert_true(f->a.price_max == 0);
}

static void test_what_is_wrong_is_named(void **state)
{
    static const struct {
        const char *value, *param;
    } wrong[] = {
        {"{\"labels\":{}}", "argosy.labels"},
        {"{\"wants\":[]}", "argosy.wants"},
        {"{\"wants\":{\"region\":1}}", "argosy.wants"},
        {"{\"wants\":{\"region\":null}}", "argosy.wants"},
        {"{\"wants\":{\"region\":\"\"}}", "argosy.wants"},
        {"{\"wants\":{\"\":\"eu\"}}", "argosy.wants"},
        {"{\"wants\":{\"region\":\"e\\u0000u\"}}", "argosy.wants"},
        {"{\"price_max\":0}", "argosy.price_max"},
        {"{\"price_max\":-1}", "argosy.price_max"},
        {"{\"price_max\":\"2\"}", "argosy.price_max"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        assert_int_not_equal(read_wants(f, wrong[i].value), 0);
        assert_int_equal(f->e.status, 400);
        assert_string_equal(f->e.param, wrong[i].param);
    }
}

static void test_labels_are_bounded(void **state)
{
    char value[4096] = "{\"wants\":{";
    struct fixture *f = *state;
    for (int i = 0; i <= API_WANTS_MAX; i++) {
        size_t n = strlen(value);
        snprintf(value + n, sizeof(value) - n, "%s\"k%d\":\"v\"", i ? "," : "", i);
    }
    size_t n = strlen(value);
    snprintf(value + n, sizeof(value) - n, "}}");
    assert_int_not_equal(read_wants(f, value), 0);
    assert_string_equal(f->e.param, "argosy.wants");
    snprintf(value, sizeof(value), "{\"wants\":{\"k\":\"%0256d\"}}", 0);
    assert_int_not_equal(read_wants(f, value), 0);
    snprintf(value, sizeof(value), "{\"wants\":{\"k\":\"%0255d\"}}", 0);
    assert_int_equal(read_wants(f, value), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_labels_and_price_are_taken),
        cmocka_unit_test(test_what_is_wrong_is_named),
        cmocka_unit_test(test_labels_are_bounded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
