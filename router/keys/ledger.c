/* ledger.c: what routers have used and reserved of a key's limits, in Redis.
 *
 *   argosy:{CLUSTER}:pot:SHA256:KIND[:MINUTE]   hash; of each router that shares the limit:
 *       u:NAME  used, what runs counted in full    r:NAME  reserved beyond it
 *       e:NAME  when its lease ends, by Redis's clock
 *       spent   used by routers that are long gone
 *
 * A claim says the whole truth about one router, so that a lost or repeated one does no harm: one
 * script sets its fields, ends the leases of others that are over, and grants what is free. When a
 * router dies, what it had reserved is free again as its lease ends; what it had used stays used,
 * requests that ran counted in full, since nobody knows better. Of RUNNING nothing stays: they
 * ended with it.
 *
 * Claims leave at the end of each turn of the loop in which something was taken, before anything of
 * the request can be known elsewhere: a router that is killed has told what it admitted, but for
 * the turn that it died in. At most one claim of a key is under way.
 */
#include <stdlib.h>
#include <string.h>

#include "router/keys/keyring_internal.h"
#include "router/pool/redis_link.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"

/* Words of a claim, and answers to it. */
#define ROOM_MIN 64u
#define MINUTE_TTL_MS 180000u
#define ANSWERS 5u

/* ARGV: name, lease_ms, then of each key: limit, used, want, drop, ttl_ms, spent.
 * Returns of each key: granted, free, routers, charged, spent. */
static const char script[] =
    "local t = redis.call('TIME')\n"
    "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
    "local me, lease, out = ARGV[1], tonumber(ARGV[2]), {}\n"
    "local function text(x) return string.format('%.0f', x) end\n"
    "for k, key in ipairs(KEYS) do\n"
    "  local at = 6 * k - 3\n"
    "  local limit, used, want = tonumber(ARGV[at]), tonumber(ARGV[at+1]), tonumber(ARGV[at+2])\n"
    "  local drop, ttl, spent = ARGV[at+3] == '1', tonumber(ARGV[at+4]), tonumber(ARGV[at+5])\n"
    "  local all = redis.call('HGETALL', key)\n"
    "  local u, r, e = {}, {}, {}\n"
    "  for i = 1, #all, 2 do\n"
    "    local kind, who, v = string.sub(all[i], 1, 2), string.sub(all[i], 3), tonumber(all[i+1])\n"
    "    if all[i] == 'spent' then spent = math.max(spent, v or 0)\n"
    "    elseif kind == 'u:' then u[who] = v elseif kind == 'r:' then r[who] = v\n"
    "    elseif kind == 'e:' then e[who] = v end\n"
    "  end\n"
    "  local others, held, n = 0, 0, 1\n"
    "  for who, till in pairs(e) do\n"
    "    if who ~= me then\n"
    "      if till > now then\n"
    "        others, held, n = others + (u[who] or 0), held + (r[who] or 0), n + 1\n"
    "      elseif drop or till + 86400000 < now then\n"
    "        if not drop then spent = spent + (u[who] or 0) end\n"
    "        redis.call('HDEL', key, 'u:'..who, 'r:'..who, 'e:'..who)\n"
    "      else\n"
    "        others = others + (u[who] or 0)\n"
    "        if (r[who] or 0) > 0 then redis.call('HSET', key, 'r:'..who, 0) end\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "  local free = math.max(0, limit - spent - others - held - used)\n"
    "  local grant = math.min(want, free)\n"
    "  redis.call('HSET', key, 'u:'..me, text(used), 'r:'..me, text(grant),\n"
    "             'e:'..me, text(now + lease), 'spent', text(spent))\n"
    "  if ttl > 0 then redis.call('PEXPIRE', key, ttl) end\n"
    "  for _, v in ipairs({grant, free - grant, n, spent + others + used, spent}) do\n"
    "    out[#out+1] = v\n"
    "  end\n"
    "end\n"
    "return out\n";

static uint64_t answer_of(const redisReply *reply, size_t at)
{
    const redisReply *r = reply->element[at];
    return r->type == REDIS_REPLY_INTEGER && r->integer > 0 ? (uint64_t)r->integer : 0;
}

/* False: it is none that the script gives. */
static bool take_answer(struct keyring *r, struct tenant *t, const redisReply *reply)
{
    size_t at = 0;
    if (reply->type != REDIS_REPLY_ARRAY ||
        reply->elements != ANSWERS * (size_t)__builtin_popcount(t->sent_pots))
        return false;
    tenant_turn(t);
    for (unsigned i = 0; i < POT_KINDS; i++) {
        struct pot *p = &t->pots[i];
        if (!(t->sent_pots & 1u << i))
            continue;
        if (pot_granted(p, answer_of(reply, at), r->lease_ms)) {
            p->free = answer_of(reply, at + 1);
            p->routers = (uint32_t)answer_of(reply, at + 2);
            p->charged = answer_of(reply, at + 3);
            p->spent = answer_of(reply, at + 4);
        }
        at += ANSWERS;
    }
    return true;
}

static void on_claimed(void *ctx, uint32_t tag, const redisReply *reply)
{
    struct keyring *r = ctx;
    struct tenant *t = r->claims[tag];
    r->claims[tag] = NULL;
    t->in_flight = false;
    bool asked = reply && take_answer(r, t, reply);
    if (reply && !asked)
        log_warn("Redis refuses a claim", "why=\"%s\"",
                 reply->type == REDIS_REPLY_ERROR ? reply->str : "not understood");
    admit_decide(r, t, asked);
    if (t->again || t->waiting.first)
        tenant_mark(r, t);
    t->again = false;
    tenant_put(t);
}

static void add_pot(struct keyring *r, struct pot *p, uint64_t need, bool idle, uint64_t now_ms)
{
    uint64_t want = pot_claim(p, need, idle, now_ms);
    uint64_t ttl_ms = p->kind == POT_BUDGET    ? 0
                      : p->kind == POT_RUNNING ? 10 * (uint64_t)r->lease_ms
                                               : MINUTE_TTL_MS;
    redis_cmd_fmt(r->redis, "%llu", (unsigned long long)p->limit);
    redis_cmd_fmt(r->redis, "%llu", (unsigned long long)p->used);
    redis_cmd_fmt(r->redis, "%llu", (unsigned long long)want);
    redis_cmd_str(r->redis, p->kind == POT_RUNNING ? "1" : "0");
    redis_cmd_fmt(r->redis, "%llu", (unsigned long long)ttl_ms);
    redis_cmd_fmt(r->redis, "%llu", (unsigned long long)p->spent);
}

static void add_keys(struct keyring *r, struct tenant *t)
{
    static const char *const kinds[POT_KINDS] = {"requests", "tokens", "running", "budget"};
    char id[KEY_ID_BYTES];
    key_id(&t->key, id);
    redis_cmd_fmt(r->redis, "%d", __builtin_popcount(t->sent_pots));
    for (unsigned i = 0; i < POT_KINDS; i++) {
        if (!(t->sent_pots & 1u << i))
            continue;
        if (i == POT_REQUESTS || i == POT_TOKENS)
            redis_cmd_fmt(r->redis, "argosy:{%s}:pot:%s:%s:%llu", r->cluster, id, kinds[i],
                          (unsigned long long)t->pots[i].minute);
        else
            redis_cmd_fmt(r->redis, "argosy:{%s}:pot:%s:%s", r->cluster, id, kinds[i]);
    }
}

/* What those that wait for this claim need together. */
static void sum_needs(const struct tenant *t, uint64_t needs[POT_KINDS])
{
    for (const struct grant *g = t->asking.first; g; g = g->next) {
        needs[POT_REQUESTS]++;
        needs[POT_RUNNING]++;
        needs[POT_TOKENS] += g->tokens;
        needs[POT_BUDGET] += g->tokens;
    }
}

static void begin_asking(struct tenant *t)
{
    if (!t->waiting.first)
        return;
    *t->asking.end = t->waiting.first;
    t->asking.end = t->waiting.end;
    t->waiting.first = NULL;
    t->waiting.end = &t->waiting.first;
}

static void send_claim(struct keyring *r, struct tenant *t, uint32_t tag)
{
    uint64_t now_ms = clock_mono_ms();
    uint64_t needs[POT_KINDS] = {0};
    bool idle = now_ms - t->used_ms > 1000;
    tenant_turn(t);
    begin_asking(t);
    sum_needs(t, needs);
    t->sent_pots = 0;
    for (unsigned i = 0; i < POT_KINDS; i++)
        if (t->pots[i].limit)
            t->sent_pots |= 1u << i;
    t->claimed_ms = now_ms;
    if (t->sent_pots) {
        redis_cmd(r->redis, "EVAL");
        redis_cmd_str(r->redis, script);
        add_keys(r, t);
        redis_cmd_str(r->redis, r->claim_name);
        redis_cmd_fmt(r->redis, "%u", r->lease_ms);
        for (unsigned i = 0; i < POT_KINDS; i++)
            if (t->sent_pots & 1u << i)
                add_pot(r, &t->pots[i], needs[i], idle, now_ms);
        t->in_flight = redis_cmd_send(r->redis, on_claimed, tag);
    }
    if (t->in_flight)
        r->claims[tag] = tenant_keep(t);
    else
        admit_decide(r, t, false);
}

static bool find_tag(struct keyring *r, uint32_t *tag)
{
    for (uint32_t i = 0; i < CLAIMS_MAX; i++) {
        uint32_t at = (r->claim_hint + i) % CLAIMS_MAX;
        if (r->claims[at])
            continue;
        *tag = at;
        r->claim_hint = at + 1;
        return true;
    }
    return false;
}

void ledger_send(struct keyring *r)
{
    struct tenant *left = NULL, *t;
    while ((t = r->dirty)) {
        uint32_t tag = 0;
        r->dirty = t->dirty_next;
        if (t->in_flight) {
            t->again = true;
        } else if (r->redis_up && (redis_link_room(r->redis) < ROOM_MIN || !find_tag(r, &tag))) {
            t->dirty_next = left; /* still dirty, for the next tick */
            left = t;
            continue;
        }
        t->dirty = false;
        if (t->in_flight) {
            tenant_put(t);
            continue;
        }
        if (r->redis_up) {
            send_claim(r, t, tag);
        } else {
            begin_asking(t);
            admit_decide(r, t, false);
        }
        tenant_put(t);
    }
    r->dirty = left;
}
