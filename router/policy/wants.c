/* wants.c: what a request asks of its worker: labels, the kind of device, the price. */
#include <stdio.h>
#include <string.h>

#include "router/policy/policy.h"

/* What the worker has for a key; NULL: nothing. "device" is the kind of its device. */
static const char *value_of(const struct policy_worker *w, const char *key)
{
    if (strcmp(key, POLICY_WANT_DEVICE) == 0)
        return w->device_kind;
    for (uint32_t i = 0; i < w->n_labels; i++)
        if (strcmp(w->labels[i].key, key) == 0)
            return w->labels[i].value;
    return NULL;
}

static bool has(const struct policy_worker *w, const struct policy_label *want)
{
    const char *value = value_of(w, want->key);
    return value && strcmp(value, want->value) == 0;
}

static bool costs_too_much(const struct policy_worker *w, const struct policy_request *r)
{
    return r->price_max > 0 && w->price > r->price_max;
}

bool policy_matches(const struct policy_worker *w, const struct policy_request *r)
{
    if (costs_too_much(w, r))
        return false;
    for (uint32_t i = 0; i < r->n_wants; i++)
        if (!has(w, &r->wants[i]))
            return false;
    return true;
}

void policy_mismatch(const struct policy_worker *const *all, uint32_t n,
                     const struct policy_request *r, char *text, size_t text_n)
{
    for (uint32_t i = 0; i < r->n_wants; i++) {
        bool found = false;
        for (uint32_t j = 0; j < n && !found; j++)
            found = has(all[j], &r->wants[i]);
        if (!found) {
            snprintf(text, text_n, "no worker has %.64s=%.64s", r->wants[i].key, r->wants[i].value);
            return;
        }
    }
    bool affordable = false;
    for (uint32_t j = 0; j < n && !affordable; j++)
        affordable = !costs_too_much(all[j], r);
    if (!affordable)
        snprintf(text, text_n, "no worker costs at most %g", r->price_max);
    else
        snprintf(text, text_n, "no worker has all of what is wanted together");
}
