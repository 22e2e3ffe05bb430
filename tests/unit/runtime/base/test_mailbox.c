#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>

#include "runtime/base/clock.h"
#include "runtime/base/mailbox.h"

struct letter {
    struct mail mail;
    int sender, number;
};

static struct letter *letter(int sender, int number)
{
    struct letter *l = calloc(1, sizeof(*l));
    l->sender = sender;
    l->number = number;
    return l;
}

static int free_all(struct mail *m)
{
    int n = 0;
    for (struct mail *next; m; m = next, n++) {
        next = m->next;
        free(m);
    }
    return n;
}

static void test_mailbox_keeps_the_order(void **state)
{
    (void)state;
    struct mailbox m;
    assert_int_equal(mailbox_init(&m, 10, NULL), 0);
    assert_null(mailbox_take(&m));
    for (int i = 0; i < 5; i++)
        assert_true(mailbox_post(&m, &letter(0, i)->mail));
    struct mail *all = mailbox_take(&m);
    int i = 0;
    for (struct mail *p = all; p; p = p->next)
        assert_int_equal(((struct letter *)p)->number, i++);
    assert_int_equal(free_all(all), 5);
    assert_null(mailbox_take(&m));
    mailbox_release(&m);
}

static void test_mailbox_refuses_when_full_but_for_what_must_arrive(void **state)
{
    (void)state;
    struct mailbox m;
    assert_int_equal(mailbox_init(&m, 2, NULL), 0);
    struct letter *extra = letter(0, 9);
    assert_true(mailbox_post(&m, &letter(0, 0)->mail));
    assert_true(mailbox_post(&m, &letter(0, 1)->mail));
    assert_false(mailbox_post(&m, &extra->mail));
    mailbox_post_always(&m, &extra->mail);
    assert_int_equal(free_all(mailbox_take(&m)), 3);
    assert_true(mailbox_post(&m, &letter(0, 0)->mail)); /* there is room again */
    free_all(mailbox_take(&m));
    mailbox_release(&m);
}

static bool readable(struct mailbox *m)
{
    struct pollfd p = {.fd = mailbox_fd(m), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void test_mailbox_descriptor_tells_of_mail(void **state)
{
    (void)state;
    struct mailbox m;
    assert_int_equal(mailbox_init(&m, 10, NULL), 0);
    assert_false(readable(&m));
    mailbox_post(&m, &letter(0, 0)->mail);
    assert_true(readable(&m));
    free_all(mailbox_take(&m));
    assert_false(readable(&m));
    mailbox_wake(&m);
    assert_true(readable(&m));
    assert_null(mailbox_take(&m));
    assert_false(readable(&m));
    mailbox_release(&m);
}

static void test_mailbox_wait_ends_with_the_timeout(void **state)
{
    (void)state;
    struct mailbox m;
    assert_int_equal(mailbox_init(&m, 10, NULL), 0);
    uint64_t before = clock_mono_ms();
    mailbox_wait(&m, 50);
    assert_in_range(clock_mono_ms() - before, 49, 1000);
    mailbox_wake(&m);
    before = clock_mono_ms();
    mailbox_wait(&m, 10000);
    assert_true(clock_mono_ms() - before < 5000);
    mailbox_release(&m);
}

enum { SENDERS = 4, LETTERS = 5000 };

struct sender {
    struct mailbox *to;
    int number;
};

static void *send_all(void *arg)
{
    struct sender *s = arg;
    for (int i = 0; i < LETTERS; i++) {
        struct letter *l = letter(s->number, i);
        while (!mailbox_post(s->to, &l->mail))
            continue; /* full: the receiver is at it */
    }
    return NULL;
}

static void test_mailbox_loses_nothing_between_threads(void **state)
{
    (void)state;
    struct mailbox m;
    pthread_t threads[SENDERS];
    struct sender senders[SENDERS];
    int next[SENDERS] = {0}, total = 0;
    assert_int_equal(mailbox_init(&m, 100, NULL), 0);
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){&m, i};
        pthread_create(&threads[i], NULL, send_all, &senders[i]);
    }
    while (total < SENDERS * LETTERS) {
        mailbox_wait(&m, -1);
        struct mail *all = mailbox_take(&m);
        for (struct mail *p = all; p; p = p->next) {
            struct letter *l = (struct letter *)p;
            assert_int_equal(l->number, next[l->sender]++);
        }
        total += free_all(all);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    assert_null(mailbox_take(&m));
    mailbox_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mailbox_keeps_the_order),
        cmocka_unit_test(test_mailbox_refuses_when_full_but_for_what_must_arrive),
        cmocka_unit_test(test_mailbox_descriptor_tells_of_mail),
        cmocka_unit_test(test_mailbox_wait_ends_with_the_timeout),
        cmocka_unit_test(test_mailbox_loses_nothing_between_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
