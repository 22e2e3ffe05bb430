#include "runtime/text/chat.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

#define ARGUMENTS_DEPTH_MAX 100

enum role { ROLE_USER, ROLE_SYSTEM, ROLE_ASSISTANT, ROLE_TOOL, N_ROLES };

static const char *const role_names[N_ROLES] = {"user", "system", "assistant", "tool"};

struct chat_template {
    struct jinja *j;
    char *bos_token, *eos_token; /* NULL: the model has none */
    bool takes_tools;
    bool parts[N_ROLES]; /* handles content as a list for that role as it does a string */
    bool parts_only;     /* and does not handle strings */
    struct speech_form speech;
};

/* One render. */
struct chat {
    const struct chat_template *t;
    struct arena arena;
    struct json_object *keep; /* parsed arguments, whose strings are borrowed */
    struct err *e;
};

static int chat_nomem(struct chat *c)
{
    return err_set(c->e, ERR_LIMIT, "the request needs too much memory to render");
}

static int set_cstr(struct chat *c, struct jval dict, const char *key, struct jval v)
{
    struct jval k;
    if (!jval_str_borrow(&c->arena, key, strlen(key), UINT32_MAX, &k) ||
        !jdict_set(&c->arena, dict.dict, k, v))
        return chat_nomem(c);
    return 0;
}

/* ---- content ------------------------------------------------------------------------------ */

/* The text of a {type: "text", text: …} part. */
static int part_text(struct chat *c, struct json_object *part, struct json_object **text)
{
    struct json_object *type;
    if (!json_object_is_type(part, json_type_object) ||
        !json_object_object_get_ex(part, "type", &type) ||
        !json_object_is_type(type, json_type_string))
        return err_set(c->e, ERR_FORMAT, "a content part must be an object with a type");
    if (strcmp(json_object_get_string(type), "text"))
        return err_set(c->e, ERR_UNSUPPORTED, "content of type '%.40s' is not supported; only text",
                       json_object_get_string(type));
    if (!json_object_object_get_ex(part, "text", text) ||
        !json_object_is_type(*text, json_type_string))
        return err_set(c->e, ERR_FORMAT, "a text part must have a string in 'text'");
    return 0;
}

static int join_parts(struct chat *c, struct json_object *content, struct jval *out)
{
    size_t n = json_object_array_length(content), len = 0;
    struct json_object *text;
    struct buf b;
    buf_init(&b, c->arena.max_bytes);
    for (size_t i = 0; i < n; i++) {
        int rc = part_text(c, json_object_array_get_idx(content, i), &text);
        if (rc) {
            buf_release(&b);
            return rc;
        }
        if (i)
            buf_addc(&b, '\n');
        buf_add(&b, json_object_get_string(text), (size_t)json_object_get_string_len(text));
    }
    len = b.len;
    struct json_object *joined =
        b.failed ? NULL : json_object_new_string_len(buf_str(&b), (int)len);
    buf_release(&b);
    if (!joined || json_object_array_add(c->keep, joined))
        return chat_nomem(c);
    return jval_from_json(&c->arena, joined, out, c->e);
}

static int wrap_text(struct chat *c, struct jval text, struct jval *out)
{
    struct jval part, type;
    if (!jval_seq(&c->arena, JT_LIST, 1, out) || !jval_dict(&c->arena, 2, &part) ||
        !jval_str(&c->arena, "text", &type))
        return chat_nomem(c);
    int rc = set_cstr(c, part, "type", type);
    if (!rc)
        rc = set_cstr(c, part, "text", text);
    out->list->v[0] = part;
    return rc;
}

static int content_value(struct chat *c, int role, struct json_object *content, struct jval *out)
{
    struct json_object *text;
    struct jval v;
    if (json_object_is_type(content, json_type_array)) {
        bool as_list = c->t->parts_only || (role < N_ROLES && c->t->parts[role]);
        if (!as_list)
            return join_parts(c, content, out);
        for (size_t i = 0; i < json_object_array_length(content); i++) {
            int rc = part_text(c, json_object_array_get_idx(content, i), &text);
            if (rc)
                return rc;
        }
        return jval_from_json(&c->arena, content, out, c->e);
    }
    if (content && !json_object_is_type(content, json_type_string))
        return err_set(c->e, ERR_FORMAT, "content must be a string, a list of parts or null");
    int rc = jval_from_json(&c->arena, content, &v, c->e);
    if (rc || !content || !c->t->parts_only) {
        *out = v;
        return rc;
    }
    return wrap_text(c, v, out);
}

/* ---- tool calls --------------------------------------------------------------------------- */

static bool only_space(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr(" \t\r\n", p[i]) || !p[i])
            return false;
    return true;
}

/* The object in a JSON text, or NULL when it holds none. */
static struct json_object *parse_object(const char *text, size_t n)
{
    struct json_tokener *tok = json_tokener_new_ex(ARGUMENTS_DEPTH_MAX);
    if (!tok)
        return NULL;
    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
    struct json_object *o = n <= INT32_MAX ? json_tokener_parse_ex(tok, text, (int)n) : NULL;
    size_t end = json_tokener_get_parse_end(tok);
    bool ok =
        json_object_is_type(o, json_type_object) && end <= n && only_space(text + end, n - end);
    json_tokener_free(tok);
    if (ok)
        return o;
    json_object_put(o);
    return NULL;
}

static int arguments_value(struct chat *c, struct json_object *args, struct jval *out)
{
    struct json_object *o = NULL;
    if (json_object_is_type(args, json_type_string))
        o = parse_object(json_object_get_string(args), (size_t)json_object_get_string_len(args));
    if (!o)
        return jval_from_json(&c->arena, args, out, c->e);
    if (json_object_array_add(c->keep, o)) {
        json_object_put(o);
        return chat_nomem(c);
    }
    return jval_from_json(&c->arena, o, out, c->e);
}

/* A copy of an object as a dict, but for one key, whose value `one` makes. */
static int object_but(struct chat *c, struct json_object *o, const char *name,
                      int (*one)(struct chat *, struct json_object *, struct jval *),
                      struct jval *out)
{
    if (!json_object_is_type(o, json_type_object))
        return jval_from_json(&c->arena, o, out, c->e);
    struct jval v, d;
    if (!jval_dict(&c->arena, (uint32_t)json_object_object_length(o), &d))
        return chat_nomem(c);
    json_object_object_foreach(o, key, val)
    {
        int rc = strcmp(key, name) ? jval_from_json(&c->arena, val, &v, c->e) : one(c, val, &v);
        if (!rc)
            rc = set_cstr(c, d, key, v);
        if (rc)
            return rc;
    }
    *out = d;
    return 0;
}

static int function_value(struct chat *c, struct json_object *fn, struct jval *out)
{
    return object_but(c, fn, "arguments", arguments_value, out);
}

static int tool_calls_value(struct chat *c, struct json_object *calls, struct jval *out)
{
    if (!json_object_is_type(calls, json_type_array))
        return jval_from_json(&c->arena, calls, out, c->e);
    size_t n = json_object_array_length(calls);
    if (n >= UINT32_MAX || !jval_seq(&c->arena, JT_LIST, (uint32_t)n, out))
        return chat_nomem(c);
    for (size_t i = 0; i < n; i++) {
        struct json_object *call = json_object_array_get_idx(calls, i);
        int rc = object_but(c, call, "function", function_value, &out->list->v[i]);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- messages ----------------------------------------------------------------------------- */

/* As transformers: the first of these that is set is given under the other two names, too;
 * `thinking` goes in front of the message's own keys. */
static int alias_reasoning(struct chat *c, struct jval *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const struct jval *found = NULL;
    for (size_t i = 0; !found && i < ARRAY_LEN(names); i++) {
        found = jdict_get_cstr(message->dict, names[i]);
        if (found && found->type == JT_NONE)
            found = NULL;
    }
    if (!found)
        return 0;
    struct jval reasoning = *found, d;
    if (!jval_dict(&c->arena, message->dict->n + 2, &d))
        return chat_nomem(c);
    int rc = set_cstr(c, d, "thinking", reasoning);
    for (uint32_t i = 0; !rc && i < message->dict->n; i++)
        if (!jdict_set(&c->arena, d.dict, message->dict->keys[i], message->dict->vals[i]))
            rc = chat_nomem(c);
    if (!rc)
        rc = set_cstr(c, d, "reasoning_content", reasoning);
    *message = d;
    return rc;
}

static int role_of(struct json_object *message)
{
    struct json_object *role;
    int i = 0;
    if (!json_object_object_get_ex(message, "role", &role) ||
        !json_object_is_type(role, json_type_string))
        return -1;
    while (i < N_ROLES && strcmp(json_object_get_string(role), role_names[i]))
        i++;
    return i;
}

static int message_value(struct chat *c, struct json_object *m, struct jval *out)
{
    struct jval v;
    int role = json_object_is_type(m, json_type_object) ? role_of(m) : -1;
    if (role < 0)
        return err_set(c->e, ERR_FORMAT, "a message must be an object with a role");
    if (!jval_dict(&c->arena, (uint32_t)json_object_object_length(m), out))
        return chat_nomem(c);
    json_object_object_foreach(m, key, val)
    {
        int rc;
        if (!strcmp(key, "content"))
            rc = content_value(c, role, val, &v);
        else if (!strcmp(key, "tool_calls"))
            rc = tool_calls_value(c, val, &v);
        else
            rc = jval_from_json(&c->arena, val, &v, c->e);
        if (!rc)
            rc = set_cstr(c, *out, key, v);
        if (rc)
            return rc;
    }
    return alias_reasoning(c, out);
}

static int messages_value(struct chat *c, struct json_object *messages, struct jval *out)
{
    if (!json_object_is_type(messages, json_type_array))
        return err_set(c->e, ERR_FORMAT, "messages must be a list");
    size_t n = json_object_array_length(messages);
    if (n >= UINT32_MAX || !jval_seq(&c->arena, JT_LIST, (uint32_t)n, out))
        return chat_nomem(c);
    for (size_t i = 0; i < n; i++) {
        int rc = message_value(c, json_object_array_get_idx(messages, i), &out->list->v[i]);
        if (rc) {
            err_prefix(c->e, "messages[%zu]", i);
            return rc;
        }
    }
    return 0;
}

/* ---- variables ---------------------------------------------------------------------------- */

static int set_token(struct chat *c, struct jval vars, const char *name, const char *token)
{
    struct jval v;
    if (!token)
        return 0;
    if (!jval_str_borrow(&c->arena, token, strlen(token), UINT32_MAX, &v))
        return chat_nomem(c);
    return set_cstr(c, vars, name, v);
}

static int set_kwargs(struct chat *c, struct jval vars, struct json_object *kwargs)
{
    struct jval v;
    if (!kwargs)
        return 0;
    if (!json_object_is_type(kwargs, json_type_object))
        return err_set(c->e, ERR_FORMAT, "chat_template_kwargs must be an object");
    json_object_object_foreach(kwargs, key, val)
    {
        static const char *const taken[] = {"messages",  "tools",     "add_generation_prompt",
                                            "bos_token", "eos_token", "chat_template"};
        for (size_t i = 0; i < ARRAY_LEN(taken); i++)
            if (!strcmp(key, taken[i]))
                return err_set(c->e, ERR_UNSUPPORTED, "chat_template_kwargs cannot set '%s'", key);
        int rc = jval_from_json(&c->arena, val, &v, c->e);
        if (!rc)
            rc = set_cstr(c, vars, key, v);
        if (rc)
            return rc;
    }
    return 0;
}

static int make_vars(struct chat *c, struct json_object *messages, struct json_object *tools,
                     const struct chat_options *o, struct jval *vars)
{
    struct jval v;
    if (!jval_dict(&c->arena, 16, vars))
        return chat_nomem(c);
    int rc = messages_value(c, messages, &v);
    if (!rc)
        rc = set_cstr(c, *vars, "messages", v);
    if (!rc && tools && !json_object_is_type(tools, json_type_array))
        rc = err_set(c->e, ERR_FORMAT, "tools must be a list");
    if (!rc)
        rc = jval_from_json(&c->arena, tools, &v, c->e);
    if (!rc)
        rc = set_cstr(c, *vars, "tools", v);
    if (!rc)
        rc = set_cstr(c, *vars, "documents", jval_none());
    if (!rc)
        rc = set_cstr(c, *vars, "add_generation_prompt", jval_bool(o->add_generation_prompt));
    if (!rc)
        rc = set_token(c, *vars, "bos_token", c->t->bos_token);
    if (!rc)
        rc = set_token(c, *vars, "eos_token", c->t->eos_token);
    return rc ? rc : set_kwargs(c, *vars, o->kwargs);
}

int chat_render(const struct chat_template *t, struct json_object *messages,
                struct json_object *tools, const struct chat_options *opts,
                const struct jinja_limits *lim, struct buf *out, struct err *e)
{
    struct err own;
    struct chat c = {.t = t, .e = e ? e : &own};
    struct jval vars;
    if (!lim)
        lim = &jinja_limits_default;
    arena_init(&c.arena, lim->memory_bytes_max);
    c.keep = json_object_new_array();
    int rc = c.keep ? make_vars(&c, messages, tools, opts, &vars) : chat_nomem(&c);
    if (!rc)
        rc = jinja_render(t->j, &c.arena, vars, opts->now_s, lim, out, c.e);
    arena_release(&c.arena);
    json_object_put(c.keep);
    return rc;
}

/* ---- compile ------------------------------------------------------------------------------ */

#define PROBE "argosy probe"
#define PROBE_CALL                                                                    \
    "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"abcdefghi\"," \
    "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"

/* A conversation in which a message of each role comes last but for what must follow it. */
static const char *const probe_before[N_ROLES] = {
    [ROLE_USER] = "[",
    [ROLE_SYSTEM] = "[",
    [ROLE_ASSISTANT] = "[{\"role\":\"user\",\"content\":\"a\"},",
    [ROLE_TOOL] = "[{\"role\":\"user\",\"content\":\"a\"}," PROBE_CALL,
};
static const char *const probe_after[N_ROLES] = {
    [ROLE_USER] = "]",
    [ROLE_SYSTEM] = ",{\"role\":\"user\",\"content\":\"a\"}]",
    [ROLE_ASSISTANT] = "]",
    [ROLE_TOOL] = "]",
};

/* Renders a message of that role, as a string or as parts; false when the text is not in it. */
static bool probe(const struct chat_template *t, enum role role, bool parts, struct buf *out)
{
    struct chat_template as = *t;
    struct chat_options opts = {0};
    struct buf text;
    buf_init(&text, 0);
    buf_clear(out);
    buf_addf(&text, "%s{\"role\":\"%s\",%s\"content\":%s}%s", probe_before[role], role_names[role],
             role == ROLE_TOOL ? "\"name\":\"f\",\"tool_call_id\":\"abcdefghi\"," : "",
             parts ? "[{\"type\":\"text\",\"text\":\"" PROBE "\"}]" : "\"" PROBE "\"",
             probe_after[role]);
    struct json_object *messages = json_tokener_parse(buf_str(&text));
    for (int i = 0; i < N_ROLES; i++)
        as.parts[i] = parts;
    as.parts_only = false;
    int rc = messages ? chat_render(&as, messages, NULL, &opts, NULL, out, NULL) : ERR_NOMEM;
    json_object_put(messages);
    buf_release(&text);
    return !rc && strstr(buf_str(out), PROBE) != NULL;
}

static void find_content_forms(struct chat_template *t)
{
    struct buf as_string, as_parts;
    buf_init(&as_string, 0);
    buf_init(&as_parts, 0);
    for (int role = 0; role < N_ROLES; role++) {
        bool s = probe(t, (enum role)role, false, &as_string);
        bool p = probe(t, (enum role)role, true, &as_parts);
        t->parts[role] = s && p && !strcmp(buf_str(&as_string), buf_str(&as_parts));
        if (role == ROLE_USER)
            t->parts_only = p && !s;
    }
    buf_release(&as_string);
    buf_release(&as_parts);
}

/* What a call looks like is what the template makes of one. */
static void find_speech_form(struct chat_template *t, const char *text, size_t n)
{
    static const char called[] =
        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"\","
        "\"tool_calls\":[{\"id\":\"abcdefghi\",\"type\":\"function\",\"function\":"
        "{\"name\":\"argosy_probe\",\"arguments\":\"{\\\"a\\\":1}\"}}]},{\"role\":\"tool\","
        "\"name\":\"argosy_probe\",\"tool_call_id\":\"abcdefghi\",\"content\":\"b\"}]";
    static const char tool[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"argosy_probe\",\"description\":\"\","
        "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}}}}}]";
    struct chat_options opts = {0};
    struct buf out;
    buf_init(&out, 0);
    struct json_object *messages = json_tokener_parse(called), *tools = json_tokener_parse(tool);
    if (!t->takes_tools || !messages || !tools ||
        chat_render(t, messages, tools, &opts, NULL, &out, NULL) < 0)
        buf_clear(&out);
    t->speech = speech_form_of(text, n, buf_str(&out), "argosy_probe");
    json_object_put(messages);
    json_object_put(tools);
    buf_release(&out);
}

int chat_template_compile(const char *text, size_t n, const char *bos_token, const char *eos_token,
                          struct chat_template **out, struct err *e)
{
    struct chat_template *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(e, ERR_NOMEM, "out of memory");
    int rc = jinja_compile(text, n, &t->j, e);
    if (rc)
        goto out;
    t->bos_token = bos_token ? strdup(bos_token) : NULL;
    t->eos_token = eos_token ? strdup(eos_token) : NULL;
    if ((bos_token && !t->bos_token) || (eos_token && !t->eos_token)) {
        rc = err_set(e, ERR_NOMEM, "out of memory");
        goto out;
    }
    t->takes_tools = jinja_reads(t->j, "tools");
    find_content_forms(t);
    find_speech_form(t, text, n);
out:
    if (rc)
        chat_template_free(t);
    else
        *out = t;
    return rc;
}

void chat_template_free(struct chat_template *t)
{
    if (!t)
        return;
    jinja_free(t->j);
    free(t->bos_token);
    free(t->eos_token);
    free(t);
}

bool chat_template_takes_tools(const struct chat_template *t)
{
    return t->takes_tools;
}

struct speech_form chat_template_speech(const struct chat_template *t)
{
    return t->speech;
}
