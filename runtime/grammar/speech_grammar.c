#include "runtime/grammar/speech_grammar.h"

#include <string.h>

#include "runtime/base/json.h"
#include "runtime/grammar/gbnf.h"

static void add_text(struct buf *g, const char *text)
{
    gbnf_add_literal(g, text, strlen(text));
    buf_addc(g, ' ');
}

/* Any text without `mark`, whose first character occurs in it but once:
 * [^a]* ("a" ([^ba] [^a]* | "b" (…)?)?)* for a mark "ab…". */
static void add_talk(struct buf *g, const char *mark)
{
    size_t n = strlen(mark);
    buf_addf(g, "[^%c]* (\"%c\" ", mark[0], mark[0]);
    for (size_t i = 1; i < n; i++) {
        buf_addf(g, "([^%c%c] [^%c]*", mark[i], mark[0], mark[0]);
        if (i + 1 < n)
            buf_addf(g, " | \"%c\" ", mark[i]);
    }
    for (size_t i = 1; i < n; i++)
        buf_adds(g, ")?");
    buf_adds(g, ")* ");
}

static void add_parameters(struct buf *g, const struct speech_tool *t)
{
    buf_addf(g, "%%json %s ", t->parameters ? t->parameters : "{\"type\":\"object\"}");
}

static void add_call(struct buf *g, const struct speech_tool *t, const char *key)
{
    struct buf head;
    buf_init(&head, 0);
    buf_adds(&head, "{\"name\": \"");
    json_escape(&head, t->name, strlen(t->name));
    buf_addf(&head, "\", \"%s\": ", key);
    add_text(g, buf_str(&head));
    g->failed = g->failed || head.failed;
    buf_release(&head);
    add_parameters(g, t);
    add_text(g, "}");
}

static void add_calls(struct buf *g, const struct speech_tool *tools, uint32_t n, const char *key)
{
    buf_adds(g, "call ::= ");
    for (uint32_t i = 0; i < n; i++) {
        buf_adds(g, i ? "| " : "");
        add_call(g, &tools[i], key);
    }
    buf_addc(g, '\n');
}

void speech_thought_grammar(struct speech_form form, bool in_thought, struct buf *g)
{
    if (!form.thinks)
        return;
    buf_adds(g, in_thought ? "" : "(\"<think>\" ");
    add_talk(g, "</think>");
    buf_adds(g, "\"</think>\" [ \\t\\n\\r]* ");
    buf_adds(g, in_thought ? "" : ")? ");
}

/* Llama 3 has no marker: what does not begin with a brace is content. */
static void add_llama3(struct buf *g, struct speech_rule rule)
{
    buf_adds(g, rule.several ? "call (\"; \" call)* " : "call ");
    if (rule.may_talk)
        buf_adds(g, "| ([^{ \\t\\n\\r] .*)?");
}

static void add_hermes(struct buf *g, struct speech_rule rule)
{
    static const char marked[] = "\"<tool_call>\\n\" call \"\\n</tool_call>\" ";
    if (rule.may_talk) {
        add_talk(g, "<tool_call>");
        buf_addf(g, "(%s(\"\\n\" %s)*)?", marked, marked);
    } else {
        buf_addf(g, rule.several ? "%s(\"\\n\" %s)*" : "%s", marked, marked);
    }
}

bool speech_grammar(struct speech_form form, const struct speech_tool *tools, uint32_t n,
                    struct speech_rule rule, struct buf *g, struct buf *lead)
{
    bool marker_leads = form.tools == SPEECH_MISTRAL || form.tools == SPEECH_MISTRAL_ARGS;
    if (form.tools == SPEECH_NO_TOOLS || (marker_leads && (rule.may_talk || form.thinks)) ||
        (form.tools == SPEECH_LLAMA3 && form.thinks) ||
        (form.tools == SPEECH_MISTRAL_ARGS && n != 1))
        return false;
    buf_adds(g, "root ::= ");
    speech_thought_grammar(form, rule.in_thought, g);
    switch (form.tools) {
    case SPEECH_HERMES:
        add_hermes(g, rule);
        break;
    case SPEECH_LLAMA3:
        add_llama3(g, rule);
        break;
    case SPEECH_MISTRAL:
        buf_adds(lead, "[TOOL_CALLS]");
        buf_adds(g, rule.several ? "\"[\" call (\", \" call)* \"]\"" : "\"[\" call \"]\"");
        break;
    default:
        buf_addf(lead, "[TOOL_CALLS]%s[ARGS]", tools[0].name);
        add_parameters(g, &tools[0]);
        break;
    }
    buf_addc(g, '\n');
    if (form.tools != SPEECH_MISTRAL_ARGS)
        add_calls(g, tools, n, form.tools == SPEECH_LLAMA3 ? "parameters" : "arguments");
    return true;
}
