/* keyring_internal.h: what the files of the key ring share.
 *
 *   keyring.c: tenants, opening, time    mirror.c: files and Redis to keys
 *   admit.c:   admission and settling    ledger.c: claims in Redis
 */
#ifndef ARGOSY_ROUTER_KEYS_KEYRING_INTERNAL_H
#define ARGOSY_ROUTER_KEYS_KEYRING_INTERNAL_H

#include <sys/stat.h>

#include "router/keys/keyring.h"
#include "router/keys/pot.h"
#include "runtime/keys/keyfile.h"

#define TENANT_BUCKETS 16384u /* a power of two, more than KEYS_MAX */
#define CLAIMS_MAX 1024u      /* on their way to Redis at once */
#define WAITING_MAX 4096u     /* requests that wait for Redis at once */
#define CLAIM_NAME_BYTES 96

struct redis_link;
struct event;

struct grants {
    struct grant *first, **end;
};

struct tenant {
    struct tenant *next; /* in its bucket */
    struct tenant *dirty_next;
    struct key key;
    uint64_t hash;
    uint32_t refs;
    bool known; /* in the table */
    bool seen;  /* by the look at the lists that is under way */
    bool dirty; /* in the list of those whose claims are due */
    bool in_flight;
    bool again;         /* what the claim in flight says is not the last of it */
    unsigned sent_pots; /* with that claim, a bit each */
    struct pot pots[POT_KINDS];
    uint64_t used_ms;      /* its last request */
    uint64_t claimed_ms;   /* its last claim */
    struct grants waiting; /* for the next claim */
    struct grants asking;  /* for the one in flight */
};

struct keyring {
    char *file;
    char *cluster;
    char claim_name[CLAIM_NAME_BYTES]; /* of this process: router id and a random number */
    uint32_t wait_ms, lease_ms;
    struct event *tick, *turn;
    struct tenant *buckets[TENANT_BUCKETS];
    struct tenant *dirty;
    struct keylist from_file, from_redis;
    /* Of the file as it was last read. */
    struct stat file_stat;
    bool file_there, file_told;
    struct redis_link *redis; /* NULL: alone */
    bool redis_up;            /* it answers */
    bool mirrored;            /* since it was last up */
    bool told_lost;
    int64_t version; /* of the keys in Redis; -1: none was seen */
    bool looking;    /* an answer about them is due */
    uint64_t looked_ms;
    struct tenant *claims[CLAIMS_MAX]; /* by tag; NULL: free */
    uint32_t claim_hint;
    uint32_t n_waiting;
};

/* keyring.c */
enum pot_mode keyring_mode(const struct keyring *r);
uint64_t keyring_minute(void);
void tenant_turn(struct tenant *t);
/* Its claim leaves at the end of this turn of the loop. */
void tenant_mark(struct keyring *r, struct tenant *t);
/* The lists have changed: tenants follow. */
void keyring_follow(struct keyring *r);
void grants_add(struct grants *l, struct grant *g);

/* mirror.c */
int mirror_read_file(struct keyring *r, struct err *e);
void mirror_tick(struct keyring *r, uint64_t now_ms);
void mirror_down(struct keyring *r);

/* ledger.c */
void ledger_send(struct keyring *r);

/* admit.c */
/* Those that asked are told. `asked` false: Redis will not answer. */
void admit_decide(struct keyring *r, struct tenant *t, bool asked);
void admit_expire(struct keyring *r, struct tenant *t, uint64_t now_ms);

#endif
