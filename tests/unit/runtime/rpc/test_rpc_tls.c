/* mTLS between the two ends, with certificates made here. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "tests/unit/runtime/rpc/rpc_end.h"

/* A certificate and its key, in memory and in files. */
struct cert {
    EVP_PKEY *key;
    X509 *x509;
    char cert_file[128], key_file[128];
};

static char dir[64];
static struct cert ca, router, worker, other_ca, stranger;

static void add_extension(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    X509_add_ext(x, ext, -1);
    X509_EXTENSION_free(ext);
}

static void write_pem(struct cert *c, const char *name)
{
    snprintf(c->cert_file, sizeof(c->cert_file), "%s/%s.pem", dir, name);
    snprintf(c->key_file, sizeof(c->key_file), "%s/%s.key", dir, name);
    FILE *f = fopen(c->cert_file, "w");
    assert_non_null(f);
    PEM_write_X509(f, c->x509);
    fclose(f);
    f = fopen(c->key_file, "w");
    PEM_write_PrivateKey(f, c->key, NULL, NULL, 0, NULL, NULL);
    fclose(f);
}

/* issuer NULL: signs itself and may sign others. */
static void make(struct cert *c, const char *name, const struct cert *issuer)
{
    static long serial = 1;
    c->key = EVP_EC_gen("P-256");
    c->x509 = X509_new();
    X509 *signer = issuer ? issuer->x509 : c->x509;
    X509_set_version(c->x509, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(c->x509), serial++);
    X509_gmtime_adj(X509_getm_notBefore(c->x509), -60);
    X509_gmtime_adj(X509_getm_notAfter(c->x509), 3600);
    X509_NAME *subject = X509_get_subject_name(c->x509);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(c->x509, X509_get_subject_name(signer));
    X509_set_pubkey(c->x509, c->key);
    if (issuer)
        add_extension(c->x509, signer, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
    else
        add_extension(c->x509, signer, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(c->x509, issuer ? issuer->key : c->key, EVP_sha256()) > 0);
    write_pem(c, name);
}

static void drop(struct cert *c)
{
    unlink(c->cert_file);
    unlink(c->key_file);
    X509_free(c->x509);
    EVP_PKEY_free(c->key);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "build/test-rpc-tls-%d", (int)getpid());
    assert_int_equal(mkdir(dir, 0700), 0);
    make(&ca, "ca", NULL);
    make(&router, "router", &ca);
    make(&worker, "worker", &ca);
    make(&other_ca, "other-ca", NULL);
    make(&stranger, "stranger", &other_ca);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    drop(&ca), drop(&router), drop(&worker), drop(&other_ca), drop(&stranger);
    return rmdir(dir);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

struct scene {
    struct end at_server, at_client;
    struct rpc_server *server;
    struct rpc_client *client;
    char address[64];
};

static void listen_with_tls(struct scene *s)
{
    struct err e;
    struct rpc_config c = config_of("127.0.0.1:0");
    c.tls = (struct rpc_tls){router.cert_file, router.key_file, ca.cert_file};
    memset(s, 0, sizeof(*s));
    end_init(&s->at_server, 100);
    end_init(&s->at_client, 100);
    if (rpc_server_open(&c, &s->at_server.box, &s->server, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(s->address, sizeof(s->address), "127.0.0.1:%d", rpc_server_port(s->server));
}

static void dial_with(struct scene *s, struct rpc_tls tls)
{
    struct err e;
    struct rpc_config c = config_of(s->address);
    c.tls = tls;
    if (rpc_client_open(&c, &s->at_client.box, &s->client, &e) < 0)
        fail_msg("%s", e.msg);
}

static void finish(struct scene *s)
{
    rpc_client_free(s->client);
    rpc_server_free(s->server);
    end_release(&s->at_client);
    end_release(&s->at_server);
}

static void test_rpc_tls_carries_frames_between_known_peers(void **state)
{
    (void)state;
    struct scene s;
    struct err e;
    listen_with_tls(&s);
    dial_with(&s, (struct rpc_tls){worker.cert_file, worker.key_file, ca.cert_file});
    uint64_t stream = expect_opened(&s.at_client);
    expect_opened(&s.at_server);
    Argosy__Load load = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    load.steps = 77;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &load;
    assert_int_equal(rpc_client_send(s.client, stream, &f, &e), 0);
    struct rpc_event *ev = expect(&s.at_server, RPC_FRAME);
    assert_int_equal(ev->from_worker->load->steps, 77);
    rpc_event_free(ev);
    finish(&s);
}

static void expect_turned_away(struct rpc_tls tls)
{
    struct scene s;
    listen_with_tls(&s);
    dial_with(&s, tls);
    struct rpc_event *ev = next_event(&s.at_client);
    assert_int_equal(ev->kind, RPC_CLOSED);
    assert_int_equal(ev->why.code, ERR_PEER);
    rpc_event_free(ev);
    assert_null(mailbox_take(&s.at_server.box));
    finish(&s);
}

static void test_rpc_tls_turns_away_a_client_without_a_certificate(void **state)
{
    (void)state;
    expect_turned_away((struct rpc_tls){NULL, NULL, ca.cert_file});
}

static void test_rpc_tls_turns_away_a_client_of_another_authority(void **state)
{
    (void)state;
    expect_turned_away((struct rpc_tls){stranger.cert_file, stranger.key_file, ca.cert_file});
}

static void test_rpc_tls_turns_away_a_plain_client(void **state)
{
    (void)state;
    expect_turned_away((struct rpc_tls){NULL, NULL, NULL});
}

static void test_rpc_tls_client_does_not_trust_another_authority(void **state)
{
    (void)state;
    expect_turned_away((struct rpc_tls){worker.cert_file, worker.key_file, other_ca.cert_file});
}

static void test_rpc_tls_files_that_do_not_serve_are_an_error(void **state)
{
    (void)state;
    struct end end;
    struct rpc_server *server = NULL;
    struct rpc_client *client = NULL;
    struct err e;
    struct rpc_config c = config_of("127.0.0.1:0");
    end_init(&end, 10);
    c.tls = (struct rpc_tls){"build/nowhere.pem", router.key_file, NULL};
    assert_int_equal(rpc_server_open(&c, &end.box, &server, &e), ERR_IO);
    assert_non_null(strstr(e.msg, "build/nowhere.pem"));
    c.tls = (struct rpc_tls){router.cert_file, NULL, NULL};
    assert_int_equal(rpc_server_open(&c, &end.box, &server, &e), ERR_CONFIG);
    c.tls = (struct rpc_tls){NULL, NULL, ca.cert_file};
    assert_int_equal(rpc_server_open(&c, &end.box, &server, &e), ERR_CONFIG);
    c.tls = (struct rpc_tls){NULL, NULL, "build/nowhere.pem"};
    assert_int_equal(rpc_client_open(&c, &end.box, &client, &e), ERR_IO);
    end_release(&end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rpc_tls_carries_frames_between_known_peers),
        cmocka_unit_test(test_rpc_tls_turns_away_a_client_without_a_certificate),
        cmocka_unit_test(test_rpc_tls_turns_away_a_client_of_another_authority),
        cmocka_unit_test(test_rpc_tls_turns_away_a_plain_client),
        cmocka_unit_test(test_rpc_tls_client_does_not_trust_another_authority),
        cmocka_unit_test(test_rpc_tls_files_that_do_not_serve_are_an_error),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
