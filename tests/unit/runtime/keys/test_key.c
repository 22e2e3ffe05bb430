#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/keys/keyfile.h"

/* FIPS 180-2, appendix B.1: SHA-256 of "abc". */
#define ABC "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static struct key parse(const char *line)
{
    struct key k;
    struct err e = {0};
    if (key_parse(line, strlen(line), &k, &e) < 0)
        fail_msg("%s: %s", line, e.msg);
    return k;
}

static void test_key_hash_is_sha256(void **state)
{
    (void)state;
    struct key k = {0};
    char id[KEY_ID_BYTES];
    assert_int_equal(key_hash("abc", 3, k.hash, NULL), 0);
    key_id(&k, id);
    assert_string_equal(id, ABC);
    struct key same = parse(ABC);
    assert_true(key_hash_is(k.hash, same.hash));
    for (int i = 0; i < KEY_HASH_BYTES; i++) {
        same.hash[i] ^= 0x80;
        assert_false(key_hash_is(k.hash, same.hash));
        same.hash[i] ^= 0x80;
    }
}

static void test_key_secrets_differ_and_have_their_form(void **state)
{
    (void)state;
    char a[KEY_SECRET_BYTES], b[KEY_SECRET_BYTES];
    key_make_secret(a);
    key_make_secret(b);
    assert_string_not_equal(a, b);
    assert_int_equal(strlen(a), KEY_SECRET_BYTES - 1);
    assert_memory_equal(a, "ak-", 3);
    assert_int_equal(strspn(a + 3, "0123456789abcdef"), 64);
}

static void test_key_line_goes_both_ways(void **state)
{
    (void)state;
    static const char line[] =
        ABC " name=alice requests=60 tokens=100000 concurrency=4 priority=-7 "
            "pool=trust=gold budget=1000000000000000 created=1700000000";
    struct key k = parse(line);
    assert_string_equal(k.name, "alice");
    assert_int_equal(k.requests, 60);
    assert_int_equal(k.tokens, 100000);
    assert_int_equal(k.concurrency, 4);
    assert_int_equal(k.priority, -7);
    assert_string_equal(k.pool, "trust=gold");
    assert_int_equal(k.budget, KEY_LIMIT_MAX);
    struct buf out;
    buf_init(&out, 0);
    key_write(&k, &out);
    assert_string_equal(buf_str(&out), line);
    buf_release(&out);
    k = parse(ABC);
    assert_int_equal(k.requests + k.tokens + k.concurrency + k.budget, 0);
}

static void test_key_line_refuses_what_is_none(void **state)
{
    (void)state;
    static const struct {
        const char *line, *words;
    } cases[] = {
        {"", "64 hex digits"},
        {"abc", "64 hex digits"},
        {"BA7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", "64 hex digits"},
        {ABC "0", "64 hex digits"},
        {ABC " name", "FIELD=VALUE"},
        {ABC " colour=red", "no 'colour'"},
        {ABC " requests=", "not a number"},
        {ABC " requests=-1", "not a number"},
        {ABC " requests=1.5", "not a number"},
        {ABC " tokens=1000000000000001", "more than"},
        {ABC " tokens=99999999999999999999", "not a number"},
        {ABC " priority=1001", "more than 1000"},
        {ABC " priority=--1", "not a number"},
        {ABC " pool=gold", "LABEL=VALUE"},
        {ABC " pool==x", "LABEL=VALUE"},
        {ABC " name=a\"b", "visible ASCII"},
        {ABC " name=a name=b", "twice"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct key k;
        struct err e = {0};
        assert_true(key_parse(cases[i].line, strlen(cases[i].line), &k, &e) < 0);
        if (!strstr(e.msg, cases[i].words))
            fail_msg("'%s' is not in '%s'", cases[i].words, e.msg);
    }
    struct key k;
    assert_true(key_parse(ABC " name=a\0b", sizeof(ABC " name=a\0b") - 1, &k, NULL) < 0);
    char *longest = malloc(KEY_LINE_BYTES_MAX + 1);
    memset(longest, ' ', KEY_LINE_BYTES_MAX + 1);
    memcpy(longest, ABC, 64);
    assert_int_equal(key_parse(longest, KEY_LINE_BYTES_MAX, &k, NULL), 0);
    assert_true(key_parse(longest, KEY_LINE_BYTES_MAX + 1, &k, NULL) < 0);
    free(longest);
}

static struct key numbered(uint32_t i)
{
    struct key k = {0};
    assert_int_equal(key_hash((char *)&i, sizeof(i), k.hash, NULL), 0);
    snprintf(k.name, sizeof(k.name), "k%u", i);
    return k;
}

static void test_keylist_is_bounded_and_finds_each(void **state)
{
    (void)state;
    struct keylist l = {0};
    struct err e = {0};
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        struct key k = numbered(i);
        assert_int_equal(keylist_add(&l, &k, NULL), 0);
    }
    struct key more = numbered(KEYS_MAX), twice = numbered(7);
    assert_int_equal(keylist_add(&l, &more, &e), ERR_LIMIT);
    assert_int_equal(keylist_add(&l, &twice, &e), ERR_RANGE);
    for (uint32_t i = 0; i < KEYS_MAX; i++) {
        struct key k = numbered(i);
        assert_string_equal(keylist_find(&l, k.hash)->name, k.name);
    }
    assert_null(keylist_find(&l, more.hash));
    keylist_release(&l);
}

static void test_keyfile_names_the_line(void **state)
{
    (void)state;
    struct keylist l;
    struct err e = {0};
    const char *text = "# mine\r\n\r\n" ABC " name=a\n  \n" ABC " name=b";
    assert_int_equal(keyfile_parse(text, strlen(text), "file", &l, &e), ERR_RANGE);
    assert_string_equal(e.msg, "file:5: the same key is there twice");
    text = "# mine\r\n\r\n" ABC " name=a\r\n";
    assert_int_equal(keyfile_parse(text, strlen(text), "file", &l, &e), 0);
    assert_int_equal(l.n, 1);
    assert_string_equal(l.items[0].name, "a");
    keylist_release(&l);
}

static void test_keyfile_is_changed_whole(void **state)
{
    (void)state;
    char dir[] = "/tmp/argosy-keys-XXXXXX", path[64], lock[64];
    struct keylist l;
    struct err e = {0};
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/keys", dir);
    snprintf(lock, sizeof(lock), "%s/keys.lock", dir);
    assert_int_equal(keyfile_read(path, &l, &e), ERR_NOT_FOUND);
    struct key a = numbered(1), b = numbered(2);
    assert_int_equal(keyfile_append(path, &a, &e), 0);
    FILE *f = fopen(path, "a");
    fputs("# a comment, no end of line", f);
    fclose(f);
    assert_int_equal(keyfile_append(path, &b, &e), 0);
    assert_int_equal(keyfile_append(path, &b, &e), ERR_RANGE);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(keyfile_read(path, &l, &e), 0);
    assert_int_equal(l.n, 2);
    keylist_release(&l);
    assert_int_equal(keyfile_remove(path, a.hash, &e), 0);
    assert_int_equal(keyfile_remove(path, a.hash, &e), ERR_NOT_FOUND);
    char text[256] = "";
    f = fopen(path, "r");
    assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
    fclose(f);
    assert_non_null(strstr(text, "# a comment, no end of line\n"));
    assert_non_null(strstr(text, "name=k2\n"));
    assert_null(strstr(text, "name=k1"));
    unlink(path);
    unlink(lock);
    assert_int_equal(rmdir(dir), 0); /* nothing else was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_hash_is_sha256),
        cmocka_unit_test(test_key_secrets_differ_and_have_their_form),
        cmocka_unit_test(test_key_line_goes_both_ways),
        cmocka_unit_test(test_key_line_refuses_what_is_none),
        cmocka_unit_test(test_keylist_is_bounded_and_finds_each),
        cmocka_unit_test(test_keyfile_names_the_line),
        cmocka_unit_test(test_keyfile_is_changed_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
