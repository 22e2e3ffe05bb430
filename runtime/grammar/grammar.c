/* grammar.c: see grammar.h. From source by its front end to rules, from rules to automata. */
#include "runtime/grammar/grammar.h"

#include <stdlib.h>

#include "runtime/grammar/gbnf.h"
#include "runtime/grammar/grammar_internal.h"
#include "runtime/grammar/json_schema.h"
#include "runtime/grammar/regex.h"

void grammar_options_default(struct grammar_options *o)
{
    *o = (struct grammar_options){
        .space = GRAMMAR_SPACE_NONE,
        .limits = {.text_bytes_max = 256u << 10,
                   .depth_max = 64,
                   .syntax_max = 400000,
                   .states_max = 100000,
                   .table_bytes_max = 32u << 20,
                   .reach_bytes_max = 4u << 20,
                   .steps_max = 30000000,
                   .configs_max = 256,
                   .stack_max = 4096,
                   .mask_steps_max = 20000000},
    };
}

static int check(const char *text, size_t n, const struct grammar_limits *l, struct err *e)
{
    if (n > l->text_bytes_max)
        return err_set(e, ERR_LIMIT, "%zu bytes, more than %zu", n, l->text_bytes_max);
    if (n && !text)
        return err_set(e, ERR_FORMAT, "no text");
    if (!l->configs_max || l->configs_max > 1u << 16 || l->stack_max < 2 ||
        l->stack_max > 1u << 20 || l->depth_max > 1000 || l->syntax_max > 1u << 26 ||
        l->states_max > 1u << 24)
        return err_set(e, ERR_RANGE, "limits out of bounds");
    return 0;
}

/* The root's rule. */
static uint32_t parse(struct syntax *y, enum grammar_kind kind, const char *text, size_t n,
                      enum grammar_space space)
{
    uint32_t root = SYNTAX_MANY;
    switch (kind) {
    case GRAMMAR_JSON_SCHEMA:
        return json_schema_parse(y, text, n, space);
    case GRAMMAR_JSON_OBJECT:
        return json_schema_any_object(y, space);
    case GRAMMAR_REGEX:
        root = syntax_rule(y);
        syntax_define(y, root, regex_parse(y, text, n, REGEX_PLAIN));
        return root;
    case GRAMMAR_GBNF:
        return gbnf_parse(y, text, n, space);
    }
    syntax_fault(y, ERR_UNSUPPORTED, "unknown kind");
    return root;
}

int grammar_compile(enum grammar_kind kind, const char *text, size_t n,
                    const struct token_trie *trie, const struct grammar_options *o,
                    struct grammar **out, struct err *e)
{
    static const char *const names[] = {"JSON schema", "JSON object", "regex", "grammar"};
    struct syntax y = {0};
    struct err own;
    e = e ? e : &own;
    struct grammar *g = calloc(1, sizeof *g);
    int rc = g ? check(text, n, &o->limits, e) : err_set(e, ERR_NOMEM, "no memory");
    if (rc)
        goto out;
    g->trie = trie;
    g->limits = o->limits;
    syntax_init(&y, &g->limits, e);
    g->root = parse(&y, kind, text, n, o->space);
    rc = y.failed ? e->code : automaton_init(&g->a, &y, g->root);
    if (rc == 0)
        rc = reaches_create(g->a.n_states, o->limits.reach_bytes_max, &g->reaches, e);
    if (rc == 0)
        reaches_prepare(g->reaches, &g->a, trie);
out:
    syntax_release(&y);
    if (rc) {
        grammar_free(g);
        return err_prefix(e, "%s", (unsigned)kind <= GRAMMAR_GBNF ? names[kind] : "grammar");
    }
    *out = g;
    return 0;
}

void grammar_free(struct grammar *g)
{
    if (!g)
        return;
    reaches_free(g->reaches);
    automaton_release(&g->a);
    free(g);
}

size_t grammar_memory_bytes(const struct grammar *g)
{
    return sizeof *g + automaton_memory_bytes(&g->a) + reaches_memory_bytes(g->reaches);
}
