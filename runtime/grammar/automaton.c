/* automaton.c: see automaton.h. The steps: which nodes match something (analyse), one rule after
 * another by subsets (subset.c), then one table for all (table). */
#include "runtime/grammar/automaton.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/levels.h"
#include "runtime/grammar/subset.h"

/* Whether a node matches anything, or the empty string, from its children and what is known of the
 * rules so far. */
static bool node_is(const struct syntax *y, uint32_t id, const bool *of_node, const bool *of_rule,
                    bool empty)
{
    const struct syntax_node *n = &y->nodes[id];
    bool family = n->op == SYNTAX_OP_CAT || n->op == SYNTAX_OP_ALT || n->op == SYNTAX_OP_LIST;
    const uint32_t *kids = family ? y->kids + n->a : NULL;
    switch (n->op) {
    case SYNTAX_OP_FAIL:
        return false;
    case SYNTAX_OP_EMPTY:
        return true;
    case SYNTAX_OP_RANGE:
    case SYNTAX_OP_LIT:
        return !empty;
    case SYNTAX_OP_CAT:
        for (uint32_t i = 0; i < n->b; i++)
            if (!of_node[kids[i]])
                return false;
        return true;
    case SYNTAX_OP_ALT:
        for (uint32_t i = 0; i < n->b; i++)
            if (of_node[kids[i]])
                return true;
        return false;
    case SYNTAX_OP_REPEAT:
        return n->min == 0 || of_node[n->a];
    case SYNTAX_OP_CALL:
        return of_rule[n->a];
    default:
        for (uint32_t i = 2; i < n->b; i += 2)
            if (kids[i + 1] == SYNTAX_EMPTY && !of_node[kids[i]])
                return false;
        return true;
    }
}

/* The least solution, by passes over all nodes until no rule changes. */
static void analyse(struct syntax *y, bool *of_node, bool *of_rule, bool empty)
{
    bool changed = true;
    while (changed && syntax_spend(y, y->n_nodes)) {
        changed = false;
        for (uint32_t i = 0; i < y->n_nodes; i++)
            of_node[i] = node_is(y, i, of_node, of_rule, empty);
        for (uint32_t r = 0; r < y->n_rules; r++) {
            changed |= of_rule[r] != of_node[y->rules[r]];
            of_rule[r] = of_node[y->rules[r]];
        }
    }
}

static bool splits(const uint8_t *class_of, const uint32_t *row)
{
    uint32_t first[256];
    bool seen[256] = {false};
    for (int b = 0; b < 256; b++) {
        uint8_t c = class_of[b];
        if (seen[c] && first[c] != row[b])
            return true;
        seen[c] = true;
        first[c] = row[b];
    }
    return false;
}

/* Splits the classes so that bytes of one class go the same way from this row. */
static void refine(uint8_t *class_of, uint32_t *n_classes, const uint32_t *row)
{
    struct {
        uint32_t old, to;
    } seen[256];
    uint32_t n = 0;
    uint8_t fresh[256];
    for (int b = 0; b < 256; b++) {
        uint32_t k = 0;
        while (k < n && (seen[k].old != class_of[b] || seen[k].to != row[b]))
            k++;
        if (k == n) {
            seen[n].old = class_of[b];
            seen[n++].to = row[b];
        }
        fresh[b] = (uint8_t)k;
    }
    memcpy(class_of, fresh, sizeof fresh);
    *n_classes = n;
}

static void expand_row(const struct subset *s, uint32_t state, uint32_t *row)
{
    memset(row, 0, 256 * sizeof *row);
    const struct subset_state *st = &s->states[state];
    for (uint32_t i = 0; i < st->n_edges; i++) {
        const struct subset_edge *ed = &s->edges[st->edges + i];
        for (uint32_t b = ed->lo; b <= ed->hi; b++)
            row[b] = ed->to;
    }
}

static bool build_table(struct automaton *a, const struct subset *s, struct syntax *y)
{
    uint32_t row[256];
    a->n_classes = 1;
    for (uint32_t q = 0; q < a->n_states && a->n_classes < 256; q++) {
        if (!syntax_spend(y, 32))
            return false;
        expand_row(s, q, row);
        if (splits(a->class_of, row))
            refine(a->class_of, &a->n_classes, row);
    }
    uint64_t bytes = (uint64_t)a->n_states * a->n_classes * sizeof *a->next;
    if (bytes > y->limits->table_bytes_max) {
        syntax_fault(y, ERR_LIMIT, "expands to a table of %llu bytes, more than %zu",
                     (unsigned long long)bytes, y->limits->table_bytes_max);
        return false;
    }
    a->next = malloc(bytes);
    if (!a->next) {
        syntax_fault(y, ERR_NOMEM, "no memory");
        return false;
    }
    for (uint32_t q = 0; q < a->n_states; q++) {
        expand_row(s, q, row);
        for (int b = 0; b < 256; b++)
            a->next[(size_t)q * a->n_classes + a->class_of[b]] = row[b];
    }
    return true;
}

static bool build_states(struct automaton *a, struct subset *s, struct syntax *y)
{
    a->n_states = s->n_states;
    a->n_calls = s->n_calls;
    a->n_rules = y->n_rules;
    a->calls = s->calls;
    s->calls = NULL;
    a->states = calloc(a->n_states, sizeof *a->states);
    if (!a->states) {
        syntax_fault(y, ERR_NOMEM, "no memory");
        return false;
    }
    for (uint32_t q = 1; q < a->n_states; q++) {
        const struct subset_state *st = &s->states[q];
        unsigned flags =
            (st->accepts ? AUTOMATON_ACCEPTS : 0) | (st->n_calls ? AUTOMATON_CALLS : 0);
        if (st->accepts && !st->n_calls && !st->n_edges)
            flags |= AUTOMATON_LAST;
        a->states[q] = (struct automaton_state){
            .flags = (uint8_t)flags, .calls = st->calls, .n_calls = st->n_calls};
    }
    return build_table(a, s, y) && levels_compute(a, y);
}

static void mark_called(const struct subset *s, uint32_t from, bool *wanted)
{
    for (uint32_t i = from; i < s->n_calls; i++)
        wanted[s->calls[i].rule] = true;
}

/* Every rule that the root reaches. */
static bool build_rules(struct automaton *a, struct syntax *y, struct subset *s, uint32_t root,
                        bool *wanted)
{
    a->starts = calloc(y->n_rules, sizeof *a->starts);
    if (!a->starts) {
        syntax_fault(y, ERR_NOMEM, "no memory");
        return false;
    }
    wanted[root] = true;
    for (bool again = true; again && !y->failed;) {
        again = false;
        for (uint32_t r = 0; r < y->n_rules && !y->failed; r++) {
            if (!wanted[r] || a->starts[r])
                continue;
            uint32_t calls = s->n_calls;
            a->starts[r] = subset_add_rule(s, y->rules[r]);
            mark_called(s, calls, wanted);
            again = true;
            if (!a->starts[r])
                syntax_fault(y, ERR_RANGE, "nothing can match");
        }
    }
    return !y->failed;
}

int automaton_init(struct automaton *a, struct syntax *y, uint32_t root)
{
    memset(a, 0, sizeof *a);
    struct subset s;
    subset_init(&s, y);
    bool *flags = calloc(2 * (size_t)y->n_nodes + 3 * (size_t)y->n_rules + 1, sizeof *flags);
    if (!flags)
        syntax_fault(y, ERR_NOMEM, "no memory");
    if (y->failed || root >= y->n_rules)
        goto out;
    bool *nullable = flags, *productive = flags + y->n_nodes, *of_rule = productive + y->n_nodes;
    analyse(y, nullable, of_rule, true);
    analyse(y, productive, of_rule + y->n_rules, false);
    s.nfa.nullable = nullable;
    s.nfa.productive = productive;
    if (!y->failed && build_rules(a, y, &s, root, of_rule + 2 * (size_t)y->n_rules))
        build_states(a, &s, y);
out:
    subset_release(&s);
    free(flags);
    if (y->failed)
        automaton_release(a);
    return y->failed ? (y->e ? y->e->code : ERR_FORMAT) : 0;
}

void automaton_release(struct automaton *a)
{
    free(a->states);
    free(a->next);
    free(a->calls);
    free(a->starts);
    memset(a, 0, sizeof *a);
}

size_t automaton_memory_bytes(const struct automaton *a)
{
    return a->n_states * (sizeof *a->states + a->n_classes * sizeof *a->next) +
           a->n_calls * sizeof *a->calls + a->n_rules * sizeof *a->starts;
}
