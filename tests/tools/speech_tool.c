/* speech_tool: what a model's text says, for tests in Python, which drive it over stdin and stdout.
 *
 * A request is a line of JSON: {"template": text, "pieces": [text, …], "names": [name, …],
 * "prompt": text}; the answer {"tools": form, "thinks": …, "content": …, "reasoning": …, "calls":
 * [[name, arguments], …]}, or {"error": words}. With "grammar": {"may_talk", "several"} and
 * "tools":
 * [[name, schema], …] the answer is {"grammar": text, "lead": text}.
 */
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/grammar/speech_grammar.h"
#include "runtime/text/chat.h"

#define NAMES_MAX 64

static const char *const forms[] = {"none", "hermes", "llama3", "mistral", "mistral_args"};

static struct json_object *string_of(const struct buf *b)
{
    return json_object_new_string_len(buf_str(b), (int)b->len);
}

static bool prompt_thinks(struct json_object *request)
{
    struct json_object *prompt = json_object_object_get(request, "prompt");
    const char *text = json_object_get_string(prompt);
    return text && speech_prompt_thinks(text, (size_t)json_object_get_string_len(prompt));
}

static void say(struct json_object *request, struct speech_form form, struct json_object *answer)
{
    struct json_object *pieces = json_object_object_get(request, "pieces");
    struct json_object *list = json_object_object_get(request, "names");
    const char *names[NAMES_MAX];
    uint32_t n = 0;
    for (; list && n < NAMES_MAX && n < json_object_array_length(list); n++)
        names[n] = json_object_get_string(json_object_array_get_idx(list, n));
    struct speech s;
    speech_init(&s, form, prompt_thinks(request), names, n);
    for (size_t i = 0; i < json_object_array_length(pieces); i++) {
        struct json_object *piece = json_object_array_get_idx(pieces, i);
        speech_feed(&s, json_object_get_string(piece), (size_t)json_object_get_string_len(piece));
    }
    speech_end(&s);
    ASSERT(!speech_failed(&s));
    json_object_object_add(answer, "content", string_of(&s.said.content));
    json_object_object_add(answer, "reasoning", string_of(&s.said.reasoning));
    struct json_object *calls = json_object_new_array();
    for (uint32_t i = 0; i < s.said.n_calls; i++) {
        struct json_object *pair = json_object_new_array();
        json_object_array_add(pair, string_of(&s.said.calls[i].name));
        json_object_array_add(pair, string_of(&s.said.calls[i].arguments));
        json_object_array_add(calls, pair);
    }
    json_object_object_add(answer, "calls", calls);
    speech_release(&s);
}

static void write_grammar(struct json_object *request, struct speech_form form,
                          struct json_object *answer)
{
    struct json_object *rule = json_object_object_get(request, "grammar");
    struct json_object *list = json_object_object_get(request, "tools");
    struct speech_tool tools[NAMES_MAX];
    uint32_t n = 0;
    for (; n < NAMES_MAX && n < json_object_array_length(list); n++) {
        struct json_object *pair = json_object_array_get_idx(list, n);
        tools[n].name = json_object_get_string(json_object_array_get_idx(pair, 0));
        tools[n].parameters = json_object_get_string(json_object_array_get_idx(pair, 1));
    }
    struct speech_rule how = {
        .may_talk = json_object_get_boolean(json_object_object_get(rule, "may_talk")),
        .several = json_object_get_boolean(json_object_object_get(rule, "several")),
        .in_thought = prompt_thinks(request),
    };
    struct buf grammar, lead;
    buf_init(&grammar, 0);
    buf_init(&lead, 0);
    if (speech_grammar(form, tools, n, how, &grammar, &lead)) {
        json_object_object_add(answer, "grammar", string_of(&grammar));
        json_object_object_add(answer, "lead", string_of(&lead));
    }
    buf_release(&grammar);
    buf_release(&lead);
}

static void handle(struct json_object *request, struct json_object *answer)
{
    struct json_object *text = json_object_object_get(request, "template");
    struct chat_template *t = NULL;
    struct err e;
    if (chat_template_compile(json_object_get_string(text),
                              (size_t)json_object_get_string_len(text), "<BOS>", "<EOS>", &t,
                              &e) < 0) {
        json_object_object_add(answer, "error", json_object_new_string(e.msg));
        return;
    }
    struct speech_form form = chat_template_speech(t);
    chat_template_free(t);
    json_object_object_add(answer, "tools", json_object_new_string(forms[form.tools]));
    json_object_object_add(answer, "thinks", json_object_new_boolean(form.thinks));
    if (json_object_object_get(request, "grammar"))
        write_grammar(request, form, answer);
    else
        say(request, form, answer);
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    while (getline(&line, &cap, stdin) > 0) {
        struct json_object *request = json_tokener_parse(line);
        struct json_object *answer = json_object_new_object();
        ASSERT(request);
        handle(request, answer);
        puts(json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN));
        fflush(stdout);
        json_object_put(answer);
        json_object_put(request);
    }
    free(line);
    return 0;
}
