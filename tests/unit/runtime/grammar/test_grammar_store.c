#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "runtime/grammar/grammar_store.h"
#include "tests/unit/runtime/text/tiny_model.h"

struct fixture {
    struct tokenizer *tokenizer;
    struct grammar_store *store;
    struct grammar_store_limits limits;
};

static void open_store(struct fixture *f)
{
    const struct tiny_model vocab = {.pre = "gpt-2", .bos = 254, .eos = 255};
    struct err e;
    assert_int_equal(tiny_model_load(&vocab, &f->tokenizer, &e), 0);
    if (grammar_store_create(f->tokenizer, &f->limits, &f->store, &e) < 0)
        fail_msg("%s", e.msg);
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    grammar_store_limits_default(&f->limits);
}

static void close_store(struct fixture *f)
{
    grammar_store_free(f->store);
    tokenizer_free(f->tokenizer);
}

static struct grammar_source regex(const char *text)
{
    return (struct grammar_source){GRAMMAR_REGEX, GRAMMAR_SPACE_NONE, text, strlen(text)};
}

static struct grammar_entry *get(struct fixture *f, const char *text)
{
    struct grammar_source source = regex(text);
    struct grammar_entry *entry = NULL;
    struct err e;
    if (grammar_store_get(f->store, &source, &entry, &e) < 0)
        fail_msg("%s", e.msg);
    return entry;
}

static void test_store_shares_what_is_equal(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    open_store(&f);
    struct grammar_entry *a = get(&f, "a+"), *b = get(&f, "a+"), *c = get(&f, "b+");
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    struct grammar_source object = {GRAMMAR_JSON_OBJECT, GRAMMAR_SPACE_ONE, "", 0}, any = object;
    struct grammar_entry *one, *other;
    struct err e;
    any.space = GRAMMAR_SPACE_ANY;
    assert_int_equal(grammar_store_get(f.store, &object, &one, &e), 0);
    assert_int_equal(grammar_store_get(f.store, &any, &other, &e), 0);
    assert_ptr_not_equal(one, other);
    struct grammar_entry *all[] = {a, b, c, one, other};
    for (size_t i = 0; i < 5; i++)
        grammar_store_put(f.store, all[i]);
    close_store(&f);
}

static void test_store_remembers_refusals(void **state)
{
    (void)state;
    struct fixture f;
    struct grammar_source bad = regex("(a");
    struct grammar_entry *entry = NULL;
    setup(&f);
    open_store(&f);
    for (int i = 0; i < 2; i++) {
        struct err e = {0};
        assert_int_equal(grammar_store_get(f.store, &bad, &entry, &e), ERR_FORMAT);
        assert_true(strlen(e.msg) > 10);
        assert_int_equal(grammar_store_ask(f.store, &bad, &e), 1);
    }
    assert_null(entry);
    close_store(&f);
}

static void test_store_keeps_within_its_limits(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f);
    f.limits.entries_max = 4;
    f.limits.kept_bytes_max = 64u << 10;
    open_store(&f);
    struct grammar_entry *held = get(&f, "held[a-z]*");
    size_t base = grammar_store_memory_bytes(f.store);
    for (int i = 0; i < 300; i++) {
        char text[32];
        snprintf(text, sizeof(text), "x{%d}[abc]*y", i);
        grammar_store_put(f.store, get(&f, text));
        assert_true(grammar_store_memory_bytes(f.store) <= base + (64u << 10));
    }
    /* In use, it is there, though long off the list. */
    struct grammar_state *s;
    struct err e;
    assert_int_equal(grammar_state_create(grammar_entry_grammar(held), &s, &e), 0);
    assert_int_equal(grammar_accept(s, 'h', &e), 0);
    grammar_state_free(s);
    grammar_store_put(f.store, held);
    close_store(&f);
}

static void test_store_refuses_when_too_much_is_in_use(void **state)
{
    (void)state;
    struct fixture f;
    struct grammar_entry *entry;
    struct err e;
    setup(&f);
    f.limits.in_use_bytes_max = 1;
    open_store(&f);
    struct grammar_source source = regex("a+");
    assert_int_equal(grammar_store_get(f.store, &source, &entry, &e), ERR_BUSY);
    assert_int_equal(grammar_store_get(f.store, &source, &entry, &e), ERR_BUSY);
    char *text = calloc(f.limits.each.text_bytes_max + 2, 1);
    memset(text, 'x', f.limits.each.text_bytes_max + 1);
    source = regex(text);
    assert_int_equal(grammar_store_get(f.store, &source, &entry, &e), ERR_LIMIT);
    assert_int_equal(grammar_store_ask(f.store, &source, &e), ERR_LIMIT);
    free(text);
    close_store(&f);
}

/* ---- the store's thread ------------------------------------------------------------------------
 */

static void count(void *ctx)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static void test_store_compiles_in_the_background(void **state)
{
    (void)state;
    struct fixture f;
    atomic_int ready = 0;
    struct err e;
    setup(&f);
    open_store(&f);
    grammar_store_notify(f.store, count, &ready);
    struct grammar_source good = regex("[a-z]{1,40}"), bad = regex("[a");
    assert_int_equal(grammar_store_ask(f.store, &good, &e), 0);
    assert_int_equal(grammar_store_ask(f.store, &bad, &e), 0);
    struct grammar_entry *entry = get(&f, "[a-z]{1,40}"); /* waits */
    grammar_store_put(f.store, entry);
    assert_int_equal(grammar_store_ask(f.store, &good, &e), 1);
    while (grammar_store_ask(f.store, &bad, &e) == 0)
        sched_yield();
    assert_int_equal(grammar_store_get(f.store, &bad, &entry, &e), ERR_FORMAT);
    assert_int_equal(atomic_load(&ready), 2);
    grammar_store_notify(f.store, NULL, NULL);
    close_store(&f);
}

static void test_store_bounds_what_waits(void **state)
{
    (void)state;
    struct fixture f;
    struct err e;
    bool busy = false;
    setup(&f);
    open_store(&f);
    for (int i = 0; i < 4000 && !busy; i++) {
        char text[64];
        snprintf(text, sizeof(text), "(%d|[a-y]{1,200}z{%d}){2,20}", i, i);
        struct grammar_source source = regex(text);
        int rc = grammar_store_ask(f.store, &source, &e);
        busy = rc == ERR_BUSY;
        assert_true(busy || rc == 0);
        assert_true(i <= 3000);
    }
    assert_true(busy);
    close_store(&f); /* with a queue that is full */
}

static void *use_store(void *arg)
{
    struct fixture *f = arg;
    for (int i = 0; i < 200; i++) {
        char text[32];
        struct err e;
        snprintf(text, sizeof(text), "a{%d}", 1 + i % 7);
        struct grammar_source source = regex(text);
        if (i % 3 == 0)
            grammar_store_ask(f->store, &source, &e);
        struct grammar_entry *entry;
        if (grammar_store_get(f->store, &source, &entry, &e) < 0)
            return (void *)1;
        struct grammar_state *s;
        uint32_t bits[16];
        if (grammar_state_create(grammar_entry_grammar(entry), &s, &e) < 0 ||
            grammar_mask(s, bits, &e) < 0 || !(bits['a' / 32] >> ('a' % 32) & 1))
            return (void *)1;
        grammar_state_free(s);
        grammar_store_put(f->store, entry);
    }
    return NULL;
}

static void test_store_is_shared_by_threads(void **state)
{
    (void)state;
    struct fixture f;
    pthread_t threads[4];
    setup(&f);
    f.limits.entries_max = 3;
    open_store(&f);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, use_store, &f), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    close_store(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store_shares_what_is_equal),
        cmocka_unit_test(test_store_remembers_refusals),
        cmocka_unit_test(test_store_keeps_within_its_limits),
        cmocka_unit_test(test_store_refuses_when_too_much_is_in_use),
        cmocka_unit_test(test_store_compiles_in_the_background),
        cmocka_unit_test(test_store_bounds_what_waits),
        cmocka_unit_test(test_store_is_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
