/* A model's text with calls and thoughts: the same comes out however it is cut, nothing is lost
 * that is no call, and what is said of a call never changes once it is ready.
 *
 * Input: a byte for the form, a byte for the cuts, and the text.
 */
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/text/speech.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char *const names[] = {"f", "get_weather"};

static void same(const struct buf *a, const struct buf *b)
{
    ASSERT(a->len == b->len && memcmp(buf_str(a), buf_str(b), a->len) == 0);
}

static void feed_cut(struct speech *s, const char *text, size_t n, unsigned cut)
{
    char ready[64];
    size_t n_ready = 0;
    uint32_t call = 0;
    for (size_t at = 0; at < n;) {
        size_t piece = 1 + (cut ^ at * 7) % 5;
        piece = piece < n - at ? piece : n - at;
        speech_feed(s, text + at, piece);
        at += piece;
        if (s->said.n_calls == 0)
            continue;
        const struct speech_call *c = &s->said.calls[s->said.n_calls - 1];
        if (call == s->said.n_calls)
            ASSERT(c->n_ready >= n_ready && memcmp(buf_str(&c->arguments), ready, n_ready) == 0);
        call = s->said.n_calls;
        n_ready = c->n_ready < sizeof(ready) ? c->n_ready : sizeof(ready);
        if (n_ready > 0)
            memcpy(ready, c->arguments.data, n_ready);
    }
    speech_end(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct speech whole, cut;
    if (n < 2)
        return 0;
    struct speech_form form = {(enum speech_tools)(data[0] % 5), data[0] & 0x80};
    bool in_thought = data[0] & 0x40;
    const char *text = (const char *)data + 2;
    speech_init(&whole, form, in_thought, names, 2);
    speech_init(&cut, form, in_thought, names, 2);
    speech_feed(&whole, text, n - 2);
    speech_end(&whole);
    feed_cut(&cut, text, n - 2, data[1]);
    ASSERT(!speech_failed(&whole) && !speech_failed(&cut));
    same(&whole.said.content, &cut.said.content);
    same(&whole.said.reasoning, &cut.said.reasoning);
    ASSERT(whole.said.n_calls == cut.said.n_calls && whole.said.n_calls <= SPEECH_CALLS_MAX);
    for (uint32_t i = 0; i < whole.said.n_calls; i++) {
        same(&whole.said.calls[i].name, &cut.said.calls[i].name);
        same(&whole.said.calls[i].arguments, &cut.said.calls[i].arguments);
    }
    if (form.tools == SPEECH_NO_TOOLS && !form.thinks)
        ASSERT(whole.said.content.len == n - 2);
    speech_release(&whole);
    speech_release(&cut);
    return 0;
}
