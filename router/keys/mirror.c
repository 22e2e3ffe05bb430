/* mirror.c: keys from a file and from Redis to lists in memory.
 *
 *   argosy:{CLUSTER}:keys           hash: SHA-256 of a secret, and its line (runtime/keys/key.h)
 *   argosy:{CLUSTER}:keys:version   counted up by whoever changes it
 *
 * A Redis that was emptied has no version: the keys that are known stay, since a lost memory
 * revokes nothing. What is in Redis may have been written by anybody; a line that is none is passed
 * over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "router/keys/keyring_internal.h"
#include "router/pool/redis_link.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

#define LOOK_MS 500

enum look { LOOK_VERSION, LOOK_KEYS };

/* ---- the file -------------------------------------------------------------------------------- */

static int check_budgets(const struct keyring *r, const struct keylist *l, struct err *e)
{
    for (size_t i = 0; !r->redis && i < l->n; i++)
        if (l->items[i].budget)
            return err_set(e, ERR_CONFIG,
                           "%s: the key '%s' has a budget, which needs Redis to be remembered",
                           r->file, l->items[i].name);
    return 0;
}

int mirror_read_file(struct keyring *r, struct err *e)
{
    struct keylist list;
    r->file_there = stat(r->file, &r->file_stat) == 0;
    int rc = keyfile_read(r->file, &list, e);
    if (rc < 0)
        return rc;
    if ((rc = check_budgets(r, &list, e)) < 0) {
        keylist_release(&list);
        return rc;
    }
    keylist_release(&r->from_file);
    r->from_file = list;
    keyring_follow(r);
    return 0;
}

static bool file_changed(const struct keyring *r)
{
    struct stat st;
    if (stat(r->file, &st) < 0)
        return r->file_there;
    return !r->file_there || st.st_ino != r->file_stat.st_ino ||
           st.st_size != r->file_stat.st_size ||
           memcmp(&st.st_mtim, &r->file_stat.st_mtim, sizeof(st.st_mtim)) != 0;
}

static void look_at_file(struct keyring *r)
{
    struct err e = {0};
    if (!file_changed(r))
        return;
    if (mirror_read_file(r, &e) < 0)
        log_error("the keys stay as they were", "why=\"%s\"", e.msg);
}

/* ---- Redis ----------------------------------------------------------------------------------- */

static void take_keys(struct keyring *r, const redisReply *reply)
{
    struct keylist list = {0};
    uint32_t bad = 0;
    for (size_t i = 1; i < reply->elements; i += 2) {
        const redisReply *line = reply->element[i];
        struct key k;
        char id[KEY_ID_BYTES] = "";
        const redisReply *field = reply->element[i - 1];
        bool ok = line->type == REDIS_REPLY_STRING && field->type == REDIS_REPLY_STRING &&
                  key_parse(line->str, line->len, &k, NULL) == 0;
        if (ok)
            key_id(&k, id);
        if (!ok || strcmp(field->str, id) != 0 || keylist_add(&list, &k, NULL) < 0)
            bad++;
    }
    if (bad)
        log_warn("what is no key was passed over in Redis", "n=%u", bad);
    keylist_release(&r->from_redis);
    r->from_redis = list;
    r->mirrored = true;
    keyring_follow(r);
}

static void on_looked(void *ctx, uint32_t tag, const redisReply *reply);

static void ask_for_keys(struct keyring *r)
{
    redis_cmd(r->redis, "HGETALL");
    redis_cmd_fmt(r->redis, "argosy:{%s}:keys", r->cluster);
    r->looking = redis_cmd_send(r->redis, on_looked, LOOK_KEYS);
}

static void take_version(struct keyring *r, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_STRING) {
        int64_t version = strtoll(reply->str, NULL, 10);
        if (r->mirrored && version == r->version)
            return;
        r->version = version;
        r->told_lost = false;
        ask_for_keys(r);
    } else if (reply->type == REDIS_REPLY_NIL && r->version >= 0 && !r->told_lost) {
        log_warn("Redis has lost the keys, those that are known stay", "known=%zu",
                 r->from_redis.n);
        r->told_lost = true;
    }
}

static void on_looked(void *ctx, uint32_t tag, const redisReply *reply)
{
    struct keyring *r = ctx;
    r->looking = false;
    if (!reply)
        return;
    if (tag == LOOK_VERSION)
        take_version(r, reply);
    else if (reply->type == REDIS_REPLY_ARRAY)
        take_keys(r, reply);
    else if (reply->type == REDIS_REPLY_ERROR)
        log_warn("Redis does not give the keys", "why=\"%s\"", reply->str);
}

static void look_at_redis(struct keyring *r)
{
    if (r->looking || !r->redis_up)
        return;
    redis_cmd(r->redis, "GET");
    redis_cmd_fmt(r->redis, "argosy:{%s}:keys:version", r->cluster);
    r->looking = redis_cmd_send(r->redis, on_looked, LOOK_VERSION);
}

void mirror_down(struct keyring *r)
{
    r->looking = r->mirrored = false;
}

void mirror_tick(struct keyring *r, uint64_t now_ms)
{
    if (now_ms - r->looked_ms < LOOK_MS)
        return;
    r->looked_ms = now_ms;
    if (r->file)
        look_at_file(r);
    if (r->redis)
        look_at_redis(r);
}
