/* What the router reads from a model file: the real model of the tests, and files that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "router/model_text.h"
#include "runtime/base/check.h"
#include "runtime/text/tokenizer.h"
#include "tests/unit/runtime/model/tiny_adapter.h"

#define MODEL "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"

/* The manifest by its definition: SHA-256 of the version, a zero byte and the SHA-256 of each 4 MiB
 * of the file. */
static void hash_of_file(const char *path, char hex[65])
{
    static unsigned char bytes[4 << 20];
    unsigned char digest[32];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing: models/fetch.py fetches it", path);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    EVP_DigestInit_ex(c, EVP_sha256(), NULL);
    EVP_DigestUpdate(c, "argosy-exact-1", sizeof("argosy-exact-1"));
    while ((n = fread(bytes, 1, sizeof(bytes), f)) > 0) {
        EVP_Digest(bytes, n, digest, NULL, EVP_sha256(), NULL);
        EVP_DigestUpdate(c, digest, sizeof(digest));
    }
    EVP_DigestFinal_ex(c, digest, NULL);
    EVP_MD_CTX_free(c);
    fclose(f);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

static void test_model_texts_read_a_real_model(void **state)
{
    (void)state;
    char *specs[] = {(char *)"smollm2-135m=" MODEL, (char *)"an/alias:1=" MODEL};
    struct model_texts m;
    struct err e;
    char hex[65];
    if (model_texts_load(specs, 2, &m, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(m.n, 2);
    const struct model_text *t = model_texts_find(&m, "smollm2-135m");
    assert_non_null(t);
    /* From the model's card. */
    assert_int_equal(t->context_tokens, 8192);
    assert_int_equal(tokenizer_vocab_size(t->tokenizer), 49152);
    assert_non_null(t->chat);
    assert_null(t->chat_refusal);
    assert_true(t->created_s > 0);
    hash_of_file(MODEL, hex);
    assert_string_equal(t->manifest_sha256, hex);
    assert_ptr_equal(model_texts_find(&m, "an/alias:1"), &m.items[1]);
    assert_null(model_texts_find(&m, "smollm2"));
    model_texts_release(&m);
}

static void assert_refused(char *const *specs, size_t n, const char *words)
{
    struct model_texts m;
    struct err e;
    assert_true(model_texts_load(specs, n, &m, &e) < 0);
    assert_int_equal(m.n, 0);
    if (!strstr(e.msg, words))
        fail_msg("'%s' is not in '%s'", words, e.msg);
}

static void test_model_texts_refuse_bad_specs(void **state)
{
    (void)state;
    char *bad[] = {(char *)"x", (char *)"x=", (char *)"=" MODEL, (char *)"a b=" MODEL,
                   (char *)"a,b=" MODEL};
    char *twice[] = {(char *)"m=" MODEL, (char *)"m=" MODEL};
    char *missing[] = {(char *)"m=/nonexistent/x.gguf"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_refused(&bad[i], 1, bad[i]);
    assert_refused(twice, 2, "twice");
    assert_refused(missing, 1, "/nonexistent/x.gguf");
}

static void test_model_texts_refuse_what_is_no_model(void **state)
{
    (void)state;
    char path[] = "/tmp/argosy-model-XXXXXX";
    char spec[64];
    char *specs[] = {spec};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    snprintf(spec, sizeof(spec), "m=%s", path);
    assert_refused(specs, 1, path);
    assert_int_equal(write(fd, "GGUF is not what this is", 24), 24);
    assert_refused(specs, 1, path);
    close(fd);
    unlink(path);
}

static void refuse_adapter(const char *spec, const char *words)
{
    char *models[] = {(char *)"smol=" MODEL}, *adapters[] = {(char *)spec};
    struct model_texts m;
    struct err e;
    if (model_texts_load(models, 1, &m, &e) < 0)
        fail_msg("%s", e.msg);
    assert_true(model_texts_add_adapters(&m, adapters, 1, &e) < 0);
    if (!strstr(e.msg, words))
        fail_msg("'%s' is not in '%s'", words, e.msg);
    model_texts_release(&m);
}

/* An adapter is its model under another name, with the hash of its files. */
static void test_model_texts_add_adapters(void **state)
{
    (void)state;
    char folder[TINY_FOLDER_BYTES], spec[128];
    char *models[] = {(char *)"smol=" MODEL}, *adapters[] = {spec};
    struct model_texts m;
    struct err e;
    tiny_adapter_folder(&(struct tiny_adapter){.rank = 4}, &tiny_llama_small, folder);
    snprintf(spec, sizeof(spec), "tuned=smol=%s", folder);
    if (model_texts_load(models, 1, &m, &e) < 0 ||
        model_texts_add_adapters(&m, adapters, 1, &e) < 0)
        fail_msg("%s", e.msg);
    const struct model_text *t = model_texts_find(&m, "tuned"), *base = &m.items[0];
    assert_non_null(t);
    assert_int_equal(t->base, 0);
    assert_int_equal(strlen(t->adapter_sha256), 64);
    assert_string_equal(base->adapter_sha256, "");
    assert_ptr_equal(t->tokenizer, base->tokenizer);
    assert_string_equal(t->manifest_sha256, base->manifest_sha256);
    model_texts_release(&m);
    snprintf(spec, sizeof(spec), "smol=smol=%s", folder);
    refuse_adapter(spec, "given twice");
    tiny_adapter_remove(folder);
    refuse_adapter("tuned=smol=/nowhere", "/nowhere");
    refuse_adapter("tuned=other=/nowhere", "not among the models");
    refuse_adapter("tuned=smol", "NAME=MODEL=PATH");
    refuse_adapter("tuned", "NAME=MODEL=PATH");
    refuse_adapter("a,b=smol=/x", "a,b=smol=/x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_texts_read_a_real_model),
        cmocka_unit_test(test_model_texts_refuse_bad_specs),
        cmocka_unit_test(test_model_texts_refuse_what_is_no_model),
        cmocka_unit_test(test_model_texts_add_adapters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
