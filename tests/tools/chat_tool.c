/* chat_tool: renders templates for tests in Python, which drive it over stdin and stdout.
 *
 * A request is a line of JSON: {"template": text} compiles (with "bos_token", "eos_token");
 * {"messages": …, "tools": …, "kwargs": …, "add_generation_prompt": …, "now": …} renders a
 * conversation with the last template; {"vars": {…}} renders it bare, with these variables.
 * "steps" and "memory" set limits. An answer is a line: {"ok": text} or {"error": code,
 * "message": words}; a template's has "takes_tools" in it, too.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/chat.h"

struct tool {
    struct chat_template *chat;
    struct jinja *bare;
};

static const char *get_str(struct json_object *o, const char *key)
{
    struct json_object *v;
    return json_object_object_get_ex(o, key, &v) && v ? json_object_get_string(v) : NULL;
}

static int64_t get_int(struct json_object *o, const char *key, int64_t other)
{
    struct json_object *v;
    return json_object_object_get_ex(o, key, &v) ? json_object_get_int64(v) : other;
}

static int compile(struct tool *t, struct json_object *req, struct err *e)
{
    struct json_object *text = json_object_object_get(req, "template");
    const char *p = json_object_get_string(text);
    size_t n = (size_t)json_object_get_string_len(text);
    chat_template_free(t->chat);
    jinja_free(t->bare);
    t->chat = NULL;
    t->bare = NULL;
    int rc = jinja_compile(p, n, &t->bare, e);
    if (!rc && json_object_object_get(req, "bare"))
        return 0;
    return rc ? rc
              : chat_template_compile(p, n, get_str(req, "bos_token"), get_str(req, "eos_token"),
                                      &t->chat, e);
}

static int render(struct tool *t, struct json_object *req, struct buf *out, struct err *e)
{
    struct jinja_limits lim = jinja_limits_default;
    struct json_object *vars = NULL;
    int64_t now = get_int(req, "now", 0);
    lim.steps_max = (uint64_t)get_int(req, "steps", (int64_t)lim.steps_max);
    lim.memory_bytes_max = (size_t)get_int(req, "memory", (int64_t)lim.memory_bytes_max);
    if (json_object_object_get_ex(req, "vars", &vars)) {
        struct arena a;
        struct jval v;
        arena_init(&a, lim.memory_bytes_max);
        int rc = t->bare ? jval_from_json(&a, vars, &v, e) : err_set(e, ERR_CONFIG, "no template");
        if (!rc)
            rc = jinja_render(t->bare, &a, v, now, &lim, out, e);
        arena_release(&a);
        return rc;
    }
    struct chat_options opts = {
        .add_generation_prompt = get_int(req, "add_generation_prompt", 0) != 0,
        .kwargs = json_object_object_get(req, "kwargs"),
        .now_s = now,
    };
    if (!t->chat)
        return err_set(e, ERR_CONFIG, "no template");
    return chat_render(t->chat, json_object_object_get(req, "messages"),
                       json_object_object_get(req, "tools"), &opts, &lim, out, e);
}

static void add(struct json_object *o, const char *key, struct json_object *v)
{
    json_object_object_add(o, key, v);
}

static struct json_object *answer(struct tool *t, struct json_object *req)
{
    struct json_object *a = json_object_new_object();
    struct err e = {0};
    struct buf out;
    bool is_template = json_object_object_get(req, "template") != NULL;
    buf_init(&out, 0);
    int rc = is_template ? compile(t, req, &e) : render(t, req, &out, &e);
    if (rc) {
        add(a, "error", json_object_new_string(err_name(rc)));
        add(a, "message", json_object_new_string(e.msg));
    } else {
        add(a, "ok", json_object_new_string_len(buf_str(&out), (int)out.len));
    }
    if (!rc && is_template && t->chat)
        add(a, "takes_tools", json_object_new_boolean(chat_template_takes_tools(t->chat)));
    buf_release(&out);
    return a;
}

int main(void)
{
    struct tool t = {0};
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    struct json_tokener *tok = json_tokener_new_ex(128);
    while (tok && (n = getline(&line, &cap, stdin)) > 0) {
        json_tokener_reset(tok);
        struct json_object *req = json_tokener_parse_ex(tok, line, (int)n), *a;
        a = answer(&t, req);
        puts(json_object_to_json_string_ext(a, JSON_C_TO_STRING_PLAIN));
        fflush(stdout);
        json_object_put(a);
        json_object_put(req);
    }
    json_tokener_free(tok);
    free(line);
    chat_template_free(t.chat);
    jinja_free(t.bare);
    return 0;
}
