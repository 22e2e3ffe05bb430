/* The front of the templates: what a request's messages become. */
#include <json-c/json.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/text/chat.h"

/* Shows what the template sees. */
static const char show[] = "{{ bos_token }}{% for m in messages %}{{ m|tojson }}\n{% endfor %}";
static const char strings_only[] =
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
static const char either[] =
    "{% for m in messages %}[{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}]{% endfor %}";
static const char parts_only[] = "{% for m in messages %}[{% for p in m.content %}{{ p.text + '' }}"
                                 "{% endfor %}]{% endfor %}";

static int render(const char *text, const char *messages, const char *kwargs, struct buf *out,
                  struct err *e)
{
    struct chat_template *t = NULL;
    struct chat_options o = {.kwargs = kwargs ? json_tokener_parse(kwargs) : NULL};
    struct json_object *m = json_tokener_parse(messages);
    int rc = chat_template_compile(text, strlen(text), "<s>", NULL, &t, e);
    if (!rc)
        rc = chat_render(t, m, NULL, &o, NULL, out, e);
    chat_template_free(t);
    json_object_put(m);
    json_object_put(o.kwargs);
    return rc;
}

static void check(const char *text, const char *messages, const char *want)
{
    struct err e = {0};
    struct buf out;
    buf_init(&out, 0);
    int rc = render(text, messages, NULL, &out, &e);
    if (rc || strcmp(buf_str(&out), want))
        fail_msg("%s\n  want: %s\n  got:  %s %s", messages, want, buf_str(&out), e.msg);
    buf_release(&out);
}

static void check_fails(const char *messages, const char *kwargs, int code, const char *words)
{
    struct err e = {0};
    struct buf out;
    buf_init(&out, 0);
    int rc = render(show, messages, kwargs, &out, &e);
    if (rc != code || !strstr(e.msg, words) || out.len)
        fail_msg("%s\n  want: %s '%s'\n  got:  %s '%s'", messages, err_name(code), words,
                 err_name(rc), e.msg);
    buf_release(&out);
}

#define PARTS "[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]"

static void test_chat_joins_parts_for_templates_of_strings(void **state)
{
    (void)state;
    check(strings_only, "[{\"role\":\"user\",\"content\":" PARTS "}]", "[user:a\nb]");
    check(strings_only, "[{\"role\":\"user\",\"content\":[]}]", "[user:]");
}

static void test_chat_passes_parts_to_templates_that_take_them(void **state)
{
    (void)state;
    check(either,
          "[{\"role\":\"user\",\"content\":" PARTS "},{\"role\":\"tool\",\"content\":\"c\"}]",
          "[user:ab][tool:c]");
}

static void test_chat_wraps_strings_for_templates_of_parts(void **state)
{
    (void)state;
    check(parts_only, "[{\"role\":\"user\",\"content\":\"hi\"}]", "[hi]");
}

static void test_chat_parses_arguments_that_hold_an_object(void **state)
{
    (void)state;
    check(show,
          "[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"1\",\"function\":{"
          "\"name\":\"f\",\"arguments\":"
          "\" {\\\"b\\\": 1, \\\"a\\\": [1.0]} \"}}]}]",
          "<s>{\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"id\": \"1\", "
          "\"function\": {\"name\": \"f\", "
          "\"arguments\": {\"b\": 1, \"a\": [1.0]}}}]}\n");
    check(show,
          "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":\"{broken\"}}]}]",
          "<s>{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"arguments\": "
          "\"{broken\"}}]}\n");
    check(show,
          "[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"arguments\":\"[1]\"}},{"
          "\"function\":{\"arguments\":\"{} x\"}}]}]",
          "<s>{\"role\": \"assistant\", \"tool_calls\": [{\"function\": {\"arguments\": \"[1]\"}}, "
          "{\"function\": {\"arguments\": \"{} x\"}}]}\n");
}

static void test_chat_gives_reasoning_under_its_other_names(void **state)
{
    (void)state;
    check(show, "[{\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":\"r\"}]",
          "<s>{\"thinking\": \"r\", \"role\": \"assistant\", \"content\": \"a\", \"reasoning\": "
          "\"r\", \"reasoning_content\": \"r\"}\n");
}

static void test_chat_refuses_what_it_cannot_show(void **state)
{
    (void)state;
    check_fails("[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{}}]}]",
                NULL, ERR_UNSUPPORTED, "messages[0]: content of type 'image_url'");
    check_fails("[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]", NULL, ERR_FORMAT,
                "'text'");
    check_fails("[{\"role\":\"user\",\"content\":[\"a\"]}]", NULL, ERR_FORMAT, "content part");
    check_fails("[{\"role\":\"user\",\"content\":5}]", NULL, ERR_FORMAT, "content must be");
    check_fails("[{\"role\":\"user\",\"content\":\"a\"},{\"content\":\"a\"}]", NULL, ERR_FORMAT,
                "messages[1]: a message must");
    check_fails("[5]", NULL, ERR_FORMAT, "a message must be an object");
    check_fails("{}", NULL, ERR_FORMAT, "messages must be a list");
    check_fails("[{\"role\":\"user\",\"content\":\"\xff\"}]", NULL, ERR_FORMAT, "UTF-8");
    check_fails("[{\"role\":\"user\",\"x\":99999999999999999999}]", NULL, ERR_LIMIT, "64 bits");
}

static void test_chat_keeps_clients_from_what_is_ours(void **state)
{
    (void)state;
    static const char *const taken[] = {"messages",  "tools",     "chat_template",
                                        "bos_token", "eos_token", "add_generation_prompt"};
    for (size_t i = 0; i < ARRAY_LEN(taken); i++) {
        struct buf kwargs;
        buf_init(&kwargs, 0);
        buf_addf(&kwargs, "{\"%s\": \"x\"}", taken[i]);
        check_fails("[]", buf_str(&kwargs), ERR_UNSUPPORTED, taken[i]);
        buf_release(&kwargs);
    }
    check_fails("[]", "[1]", ERR_FORMAT, "must be an object");
}

static void test_chat_knows_whether_a_template_takes_tools(void **state)
{
    (void)state;
    static const char with[] = "{% if tools %}{{ tools }}{% endif %}";
    struct chat_template *t = NULL;
    assert_int_equal(chat_template_compile(with, strlen(with), NULL, NULL, &t, NULL), 0);
    assert_true(chat_template_takes_tools(t));
    chat_template_free(t);
    assert_int_equal(chat_template_compile(show, strlen(show), NULL, NULL, &t, NULL), 0);
    assert_false(chat_template_takes_tools(t));
    chat_template_free(t);
}

static void test_chat_keeps_within_the_memory_it_is_given(void **state)
{
    (void)state;
    struct jinja_limits lim = jinja_limits_default;
    struct chat_template *t = NULL;
    struct chat_options o = {0};
    struct err e = {0};
    struct buf out;
    struct json_object *m = json_object_new_array();
    buf_init(&out, 0);
    for (int i = 0; i < 10000; i++)
        json_object_array_add(m, json_tokener_parse("{\"role\":\"user\",\"content\":\"x\"}"));
    assert_int_equal(chat_template_compile(show, strlen(show), NULL, NULL, &t, &e), 0);
    assert_int_equal(chat_render(t, m, NULL, &o, &lim, &out, &e), 0);
    lim.memory_bytes_max = 1u << 20;
    buf_clear(&out);
    assert_int_equal(chat_render(t, m, NULL, &o, &lim, &out, &e), ERR_LIMIT);
    chat_template_free(t);
    json_object_put(m);
    buf_release(&out);
}

struct shared {
    const struct chat_template *t;
    struct json_object *messages;
    const char *want;
    bool wrong;
};

static void *render_many(void *arg)
{
    struct shared *s = arg;
    struct chat_options o = {0};
    struct buf out;
    buf_init(&out, 0);
    for (int i = 0; i < 300; i++) {
        buf_clear(&out);
        int rc = chat_render(s->t, s->messages, NULL, &o, NULL, &out, NULL);
        s->wrong = s->wrong || rc || strcmp(buf_str(&out), s->want);
    }
    buf_release(&out);
    return NULL;
}

static void test_chat_template_serves_many_threads_at_once(void **state)
{
    (void)state;
    struct shared s[4];
    pthread_t thread[4];
    struct chat_template *t = NULL;
    struct json_object *m[4];
    assert_int_equal(chat_template_compile(either, strlen(either), NULL, NULL, &t, NULL), 0);
    for (int i = 0; i < 4; i++) {
        m[i] = json_tokener_parse("[{\"role\":\"user\",\"content\":" PARTS "}]");
        s[i] = (struct shared){.t = t, .messages = m[i], .want = "[user:ab]"};
        assert_int_equal(pthread_create(&thread[i], NULL, render_many, &s[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_false(s[i].wrong);
        json_object_put(m[i]);
    }
    chat_template_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_joins_parts_for_templates_of_strings),
        cmocka_unit_test(test_chat_passes_parts_to_templates_that_take_them),
        cmocka_unit_test(test_chat_wraps_strings_for_templates_of_parts),
        cmocka_unit_test(test_chat_parses_arguments_that_hold_an_object),
        cmocka_unit_test(test_chat_gives_reasoning_under_its_other_names),
        cmocka_unit_test(test_chat_refuses_what_it_cannot_show),
        cmocka_unit_test(test_chat_keeps_clients_from_what_is_ours),
        cmocka_unit_test(test_chat_knows_whether_a_template_takes_tools),
        cmocka_unit_test(test_chat_keeps_within_the_memory_it_is_given),
        cmocka_unit_test(test_chat_template_serves_many_threads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
