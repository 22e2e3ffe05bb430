#include "router/trace/journal.h"

#include <string.h>

/* The choice's leg that goes on, or NULL. */
static struct journal_leg *leg_of(struct journal *j, uint32_t choice)
{
    for (uint32_t i = j->n_legs; i-- > 0;)
        if (j->legs[i].choice == choice)
            return j->legs[i].end_ns ? NULL : &j->legs[i];
    return NULL;
}

/* Since when the choice has had no worker. */
static uint64_t waits_since(const struct journal *j, uint32_t choice)
{
    for (uint32_t i = j->n_legs; i-- > 0;)
        if (j->legs[i].choice == choice)
            return j->legs[i].end_ns;
    return j->start_ns;
}

void journal_place(struct journal *j, uint32_t choice, const char *worker, uint64_t now_ns)
{
    if (!j->placed_ns)
        j->placed_ns = now_ns;
    if (j->n_legs == JOURNAL_LEGS_MAX)
        return;
    uint64_t wait_ns = waits_since(j, choice);
    struct journal_leg *leg = &j->legs[j->n_legs++];
    *leg = (struct journal_leg){.choice = choice, .wait_ns = wait_ns, .start_ns = now_ns};
    size_t n = strnlen(worker, sizeof(leg->worker) - 1);
    memcpy(leg->worker, worker, n); /* the rest is zeros */
}

void journal_leave(struct journal *j, uint32_t choice, bool moved, uint64_t now_ns)
{
    struct journal_leg *leg = leg_of(j, choice);
    j->moves += moved;
    if (leg)
        leg->end_ns = now_ns;
}

void journal_first(struct journal *j, uint32_t choice, uint64_t now_ns)
{
    struct journal_leg *leg = leg_of(j, choice);
    if (!j->first_ns)
        j->first_ns = now_ns;
    if (leg && !leg->first_ns)
        leg->first_ns = now_ns;
}

void journal_done(struct journal *j, uint32_t choice, uint32_t n, uint64_t first_ns,
                  uint64_t last_ns, uint64_t now_ns)
{
    struct journal_leg *leg = leg_of(j, choice);
    j->output_tokens += n;
    if (n > 1) {
        j->decode_ns += last_ns - first_ns;
        j->decode_tokens += n - 1;
    }
    if (last_ns > j->last_ns)
        j->last_ns = last_ns;
    if (leg)
        leg->end_ns = now_ns;
}

const char *journal_worker(const struct journal *j)
{
    const struct journal_leg *latest = j->n_legs ? &j->legs[j->n_legs - 1] : NULL;
    for (uint32_t i = 0; i < j->n_legs; i++)
        if (j->legs[i].first_ns)
            return j->legs[i].worker;
    return latest ? latest->worker : "";
}

const char *journal_operation_name(enum journal_operation o)
{
    static const char *const names[] = {
        [JOURNAL_CHAT] = "chat",
        [JOURNAL_TEXT] = "text_completion",
        [JOURNAL_EMBEDDINGS] = "embeddings",
    };
    return names[o];
}
