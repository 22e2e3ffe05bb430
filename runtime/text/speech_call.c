/* speech_call.c: one call's JSON, a byte at a time: an object with "name" and "arguments". */
#include <json-c/json.h>
#include <string.h>

#include "runtime/text/speech.h"

enum { OPEN, KEY_OR_END, KEY, COLON, VALUE, IN_VALUE, COMMA_OR_END, NEXT_KEY, DONE };
enum { KEY_OTHER, KEY_NAME, KEY_ARGUMENTS, KEY_ALONE };

#define NAME_BYTES_MAX 256u

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

void speech_walk_object(struct speech_walk *w)
{
    *w = (struct speech_walk){.at = OPEN};
}

void speech_walk_arguments(struct speech_walk *w)
{
    *w = (struct speech_walk){.at = VALUE, .key = KEY_ALONE};
}

bool speech_walk_has_name(const struct speech_walk *w, const struct speech_call *call)
{
    return call->name.len > 0 && !(w->at == IN_VALUE && w->key == KEY_NAME);
}

static bool word_is(const struct speech_walk *w, const char *word)
{
    return strlen(word) == w->n_word && memcmp(w->word, word, w->n_word) == 0;
}

static void end_key(struct speech_walk *w)
{
    w->key = KEY_OTHER;
    if (word_is(w, "name"))
        w->key = KEY_NAME;
    else if (word_is(w, "arguments") || word_is(w, "parameters"))
        w->key = KEY_ARGUMENTS;
    w->at = COLON;
}

static void read_key(struct speech_walk *w, char c)
{
    if (c == '"') {
        end_key(w);
        return;
    }
    if (w->n_word < sizeof(w->word))
        w->word[w->n_word] = c;
    if (w->n_word <= sizeof(w->word))
        w->n_word++;
}

/* Some models write the arguments as a string with JSON in it. */
static void end_arguments(struct speech_call *call)
{
    if (call->arguments.len > 0 && call->arguments.data[0] == '"') {
        struct json_object *text = json_tokener_parse(buf_str(&call->arguments));
        if (json_object_is_type(text, json_type_string)) {
            buf_clear(&call->arguments);
            buf_add(&call->arguments, json_object_get_string(text),
                    (size_t)json_object_get_string_len(text));
        }
        json_object_put(text);
    }
    call->n_ready = call->arguments.len;
}

static enum speech_walked end_value(struct speech_walk *w, struct speech_call *call)
{
    if (w->key == KEY_ARGUMENTS || w->key == KEY_ALONE)
        end_arguments(call);
    w->at = w->key == KEY_ALONE ? DONE : COMMA_OR_END;
    return w->at == DONE ? SPEECH_WALKED : SPEECH_WALKS;
}

static void keep(struct speech_walk *w, char c, struct speech_call *call)
{
    if (w->key == KEY_ARGUMENTS || w->key == KEY_ALONE) {
        buf_addc(&call->arguments, c);
        if (call->arguments.data && call->arguments.data[0] != '"')
            call->n_ready = call->arguments.len;
    } else if (w->key == KEY_NAME && c != '"') {
        buf_addc(&call->name, c);
    }
}

static enum speech_walked begin_value(struct speech_walk *w, char c, struct speech_call *call)
{
    if ((w->key == KEY_NAME && (c != '"' || call->name.len > 0)) ||
        (w->key == KEY_ARGUMENTS && call->arguments.len > 0) || strchr("]},:", c))
        return SPEECH_STRAYED;
    if (w->key == KEY_ALONE && c != '{')
        return SPEECH_STRAYED;
    w->at = IN_VALUE;
    w->in_string = c == '"';
    w->escaped = false;
    w->depth = c == '{' || c == '[' ? 1 : 0;
    keep(w, c, call);
    return SPEECH_WALKS;
}

static enum speech_walked in_string(struct speech_walk *w, char c, struct speech_call *call)
{
    keep(w, c, call);
    if (w->key == KEY_NAME && (c == '\\' || call->name.len > NAME_BYTES_MAX))
        return SPEECH_STRAYED;
    if (w->escaped)
        w->escaped = false;
    else if (c == '\\')
        w->escaped = true;
    else if (c == '"')
        w->in_string = false;
    return !w->in_string && w->depth == 0 ? end_value(w, call) : SPEECH_WALKS;
}

static enum speech_walked after_value(struct speech_walk *w, char c)
{
    if (c != ',' && c != '}')
        return is_space(c) ? SPEECH_WALKS : SPEECH_STRAYED;
    w->at = c == ',' ? NEXT_KEY : DONE;
    return c == ',' ? SPEECH_WALKS : SPEECH_WALKED;
}

static enum speech_walked in_value(struct speech_walk *w, char c, struct speech_call *call)
{
    if (w->in_string)
        return in_string(w, c, call);
    if (w->depth == 0 && (c == ',' || c == '}' || is_space(c))) { /* behind a bare word */
        enum speech_walked end = end_value(w, call);
        return end == SPEECH_WALKS ? after_value(w, c) : end;
    }
    if (w->depth == 0 && (c == ']' || c == '"' || c == '{' || c == '['))
        return SPEECH_STRAYED;
    w->in_string = c == '"';
    w->depth += c == '{' || c == '[' ? 1 : 0;
    w->depth -= c == '}' || c == ']' ? 1 : 0;
    keep(w, c, call);
    return w->depth == 0 && (c == '}' || c == ']') ? end_value(w, call) : SPEECH_WALKS;
}

/* `c` if it is what must come, after any white space. */
static enum speech_walked expect(struct speech_walk *w, char c, char wanted, uint8_t then)
{
    if (is_space(c))
        return SPEECH_WALKS;
    w->at = then;
    w->n_word = 0;
    return c == wanted ? SPEECH_WALKS : SPEECH_STRAYED;
}

enum speech_walked speech_walk(struct speech_walk *w, char c, struct speech_call *call)
{
    switch (w->at) {
    case OPEN:
        return expect(w, c, '{', KEY_OR_END);
    case KEY_OR_END:
    case NEXT_KEY:
        return expect(w, c, '"', KEY);
    case KEY:
        read_key(w, c);
        return SPEECH_WALKS;
    case COLON:
        return expect(w, c, ':', VALUE);
    case VALUE:
        return is_space(c) ? SPEECH_WALKS : begin_value(w, c, call);
    case IN_VALUE:
        return in_value(w, c, call);
    case COMMA_OR_END:
        return after_value(w, c);
    default:
        return SPEECH_STRAYED;
    }
}
