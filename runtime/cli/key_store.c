#include "runtime/cli/key_store.h"

#include <hiredis/hiredis.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define TIMEOUT_S 5

/* ---- Redis ----------------------------------------------------------------------------------- */

/* One command; NULL: it failed, and e says how. */
static redisReply *ask(struct key_store *s, struct err *e, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    redisReply *r = redisvCommand(s->redis, format, ap);
    va_end(ap);
    if (!r) {
        err_set(e, ERR_PEER, "Redis: %s", s->redis->errstr);
        return NULL;
    }
    if (r->type == REDIS_REPLY_ERROR) {
        err_set(e, ERR_PEER, "Redis: %s", r->str);
        freeReplyObject(r);
        return NULL;
    }
    return r;
}

static int tell(redisReply *r)
{
    if (!r)
        return ERR_PEER;
    freeReplyObject(r);
    return 0;
}

static int bad_url(const char *url, struct err *e)
{
    return err_set(e, ERR_CONFIG, "'%.100s' is not unix:PATH or redis://HOST:PORT/DB", url);
}

/* redis://HOST[:PORT][/DB], [V6] for HOST. */
static int dial_host(struct key_store *s, const char *url, long *db, struct err *e)
{
    char host[256];
    struct timeval tv = {.tv_sec = TIMEOUT_S};
    const char *at = url + strlen("redis://");
    bool v6 = *at == '[';
    size_t n = v6 ? strcspn(at, "]") : strcspn(at, ":/");
    const char *name = at + v6;
    size_t name_n = n - v6;
    long port = 6379;
    char *end;
    at += n + (v6 && at[n] == ']');
    if (name_n == 0 || name_n >= sizeof(host))
        return bad_url(url, e);
    memcpy(host, name, name_n);
    host[name_n] = 0;
    if (*at == ':') {
        port = strtol(at + 1, &end, 10);
        at = end;
    }
    if (*at == '/' && at[1]) {
        *db = strtol(at + 1, &end, 10);
        at = end;
    } else if (*at == '/') {
        at++;
    }
    if (*at || port < 1 || port > 65535 || *db < 0)
        return bad_url(url, e);
    s->redis = redisConnectWithTimeout(host, (int)port, tv);
    return 0;
}

static int dial(struct key_store *s, const char *url, const char *password, struct err *e)
{
    struct timeval tv = {.tv_sec = TIMEOUT_S};
    long db = 0;
    int rc = 0;
    if (strncmp(url, "unix:", 5) == 0 && url[5])
        s->redis = redisConnectUnixWithTimeout(url + 5 + 2 * (strncmp(url + 5, "//", 2) == 0), tv);
    else if (strncmp(url, "redis://", 8) != 0)
        return bad_url(url, e);
    else if ((rc = dial_host(s, url, &db, e)) < 0)
        return rc;
    if (!s->redis || s->redis->err)
        return err_set(e, ERR_PEER, "can't reach Redis at %.150s: %s", url,
                       s->redis ? s->redis->errstr : "no memory");
    redisSetTimeout(s->redis, tv);
    if (password && (rc = tell(ask(s, e, "AUTH %s", password))) < 0)
        return rc;
    return db ? tell(ask(s, e, "SELECT %ld", db)) : 0;
}

/* A change and the version in one step: a router that sees the version sees the change. */
static int change(struct key_store *s, const struct key *k, bool add, struct err *e)
{
    char id[KEY_ID_BYTES];
    struct buf line;
    int rc;
    key_id(k, id);
    buf_init(&line, 0);
    key_write(k, &line);
    if ((rc = tell(ask(s, e, "MULTI"))) < 0)
        goto out;
    rc = add ? tell(ask(s, e, "HSET argosy:{%s}:keys %s %s", s->cluster, id, buf_str(&line)))
             : tell(ask(s, e, "HDEL argosy:{%s}:keys %s", s->cluster, id));
    if (rc == 0 && !add)
        rc = tell(ask(s, e, "DEL argosy:{%s}:pot:%s:budget", s->cluster, id));
    if (rc == 0)
        rc = tell(ask(s, e, "INCR argosy:{%s}:keys:version", s->cluster));
    if (rc == 0)
        rc = tell(ask(s, e, "EXEC"));
out:
    buf_release(&line);
    return rc;
}

static int list_redis(struct key_store *s, struct keylist *out, struct err *e)
{
    redisReply *r = ask(s, e, "HGETALL argosy:{%s}:keys", s->cluster);
    int rc = r ? 0 : ERR_PEER;
    *out = (struct keylist){0};
    for (size_t i = 1; rc == 0 && i < r->elements; i += 2) {
        struct key k;
        rc = key_parse(r->element[i]->str, r->element[i]->len, &k, e);
        if (rc == 0)
            rc = keylist_add(out, &k, e);
        if (rc < 0)
            err_prefix(e, "the key %.64s in Redis", r->element[i - 1]->str);
    }
    if (rc < 0)
        keylist_release(out);
    if (r)
        freeReplyObject(r);
    return rc;
}

/* ---- either ---------------------------------------------------------------------------------- */

int key_store_open(struct key_store *s, const char *file, const char *url, const char *password,
                   const char *cluster, struct err *e)
{
    *s = (struct key_store){.file = file, .cluster = cluster};
    int rc = file ? 0 : dial(s, url, password, e);
    if (rc < 0)
        key_store_close(s);
    return rc;
}

void key_store_close(struct key_store *s)
{
    if (s->redis)
        redisFree(s->redis);
    s->redis = NULL;
}

int key_store_list(struct key_store *s, struct keylist *out, struct err *e)
{
    return s->file ? keyfile_read(s->file, out, e) : list_redis(s, out, e);
}

int key_store_add(struct key_store *s, const struct key *k, struct err *e)
{
    struct keylist all;
    if (s->file)
        return keyfile_append(s->file, k, e);
    int rc = list_redis(s, &all, e);
    if (rc < 0)
        return rc;
    rc = keylist_add(&all, k, e); /* is there room? */
    keylist_release(&all);
    return rc < 0 ? rc : change(s, k, true, e);
}

int key_store_remove(struct key_store *s, const struct key *k, struct err *e)
{
    return s->file ? keyfile_remove(s->file, k->hash, e) : change(s, k, false, e);
}
