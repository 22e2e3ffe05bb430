#include "runtime/grammar/grammar_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/fnv.h"

struct grammar_entry {
    struct grammar_entry *newer, *older; /* in the store's list */
    uint64_t hash;
    struct grammar_source source; /* text behind the struct */
    struct grammar *grammar;      /* NULL: `why` says why */
    struct err why;
    size_t bytes;
    uint32_t users;
    bool listed;                /* else it goes with its last user */
    bool pending;               /* not compiled yet; the queue is a user */
    struct grammar_entry *next; /* in the queue */
};

struct grammar_store {
    pthread_mutex_t lock;
    struct token_trie *trie;
    struct grammar_store_limits limits;
    struct grammar_entry *newest, *oldest;
    uint32_t n_listed;
    size_t kept_bytes, in_use_bytes;

    /* The thread that compiles, from the first that is asked for on. */
    pthread_t thread;
    pthread_cond_t work, done;
    bool has_thread, stop;
    struct grammar_entry *queue, **queue_end;
    uint32_t n_pending;
    void (*ready)(void *ctx);
    void *ready_ctx;
};

void grammar_store_limits_default(struct grammar_store_limits *l)
{
    struct grammar_options o;
    grammar_options_default(&o);
    *l = (struct grammar_store_limits){.entries_max = 512,
                                       .kept_bytes_max = 64u << 20,
                                       .in_use_bytes_max = 256u << 20,
                                       .each = o.limits};
}

int grammar_store_create(const struct tokenizer *t, const struct grammar_store_limits *l,
                         struct grammar_store **out, struct err *e)
{
    struct grammar_store *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ERR_NOMEM, "grammar: no memory");
    s->limits = *l;
    int rc = token_trie_of_tokenizer(t, &s->trie, e);
    if (rc < 0) {
        free(s);
        return rc;
    }
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->done, NULL);
    s->queue_end = &s->queue;
    *out = s;
    return 0;
}

const struct token_trie *grammar_store_trie(const struct grammar_store *s)
{
    return s->trie;
}

size_t grammar_store_memory_bytes(struct grammar_store *s)
{
    pthread_mutex_lock(&s->lock);
    size_t n = token_trie_memory_bytes(s->trie) + s->kept_bytes + s->in_use_bytes;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* ---- the list, newest use first; under the lock ------------------------------------------------
 */

static void unlist(struct grammar_store *s, struct grammar_entry *n)
{
    *(n->newer ? &n->newer->older : &s->newest) = n->older;
    *(n->older ? &n->older->newer : &s->oldest) = n->newer;
    n->newer = n->older = NULL;
    n->listed = false;
    s->n_listed--;
}

static void list(struct grammar_store *s, struct grammar_entry *n)
{
    n->older = s->newest;
    n->newer = NULL;
    *(s->newest ? &s->newest->newer : &s->oldest) = n;
    s->newest = n;
    n->listed = true;
    s->n_listed++;
}

static void entry_free(struct grammar_entry *n)
{
    grammar_free(n->grammar);
    free(n);
}

/* Lets go of the oldest until the limits are kept. One in use leaves the list only for the number
 * of entries, and stays in memory. */
static void trim(struct grammar_store *s)
{
    for (struct grammar_entry *n = s->oldest, *newer; n; n = newer) {
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): what was freed is in no list any more */
        newer = n->newer;
        bool too_many = s->n_listed > s->limits.entries_max;
        if (!too_many && s->kept_bytes <= s->limits.kept_bytes_max)
            return;
        if (n->users > 0 && !too_many)
            continue;
        unlist(s, n);
        if (n->users == 0) {
            s->kept_bytes -= n->bytes;
            entry_free(n);
        }
    }
}

static void use(struct grammar_store *s, struct grammar_entry *n)
{
    if (n->users++ == 0) {
        s->kept_bytes -= n->bytes;
        s->in_use_bytes += n->bytes;
    }
}

static void unuse(struct grammar_store *s, struct grammar_entry *n)
{
    ASSERT(n->users > 0);
    if (--n->users > 0)
        return;
    s->in_use_bytes -= n->bytes;
    if (!n->listed) {
        entry_free(n);
        return;
    }
    s->kept_bytes += n->bytes;
    trim(s);
}

static uint64_t hash_of(const struct grammar_source *source)
{
    uint64_t seed = FNV_SEED ^ (uint64_t)source->kind << 8 ^ source->space;
    return fnv1a(seed, source->text, source->n);
}

static struct grammar_entry *find(struct grammar_store *s, const struct grammar_source *source,
                                  uint64_t hash)
{
    for (struct grammar_entry *n = s->newest; n; n = n->older)
        if (n->hash == hash && n->source.kind == source->kind && n->source.space == source->space &&
            n->source.n == source->n &&
            (source->n == 0 || memcmp(n->source.text, source->text, source->n) == 0))
            return n;
    return NULL;
}

/* ---- compiling ---------------------------------------------------------------------------------
 */

static struct grammar_entry *entry_create(const struct grammar_source *source, uint64_t hash)
{
    struct grammar_entry *n = calloc(1, sizeof(*n) + source->n);
    if (!n)
        return NULL;
    char *text = (char *)(n + 1);
    if (source->n)
        memcpy(text, source->text, source->n);
    n->hash = hash;
    n->source = *source;
    n->source.text = text;
    return n;
}

static void entry_compile(struct grammar_entry *n, const struct grammar_store *s)
{
    struct grammar_options o = {.space = n->source.space, .limits = s->limits.each};
    grammar_compile(n->source.kind, n->source.text, n->source.n, s->trie, &o, &n->grammar, &n->why);
    n->bytes = sizeof(*n) + n->source.n + (n->grammar ? grammar_memory_bytes(n->grammar) : 0);
}

/* Takes a use of what was found or compiled, or says why there is none. */
static int take(struct grammar_store *s, struct grammar_entry *n, struct grammar_entry **out,
                struct err *e)
{
    use(s, n);
    while (n->pending)
        pthread_cond_wait(&s->done, &s->lock);
    int rc = 0;
    if (!n->grammar)
        rc = err_set(e, n->why.code, "%s", n->why.msg);
    else if (n->users == 1 && s->in_use_bytes > s->limits.in_use_bytes_max)
        rc = err_set(e, ERR_BUSY, "the grammars in use take %zu bytes: no more now",
                     s->in_use_bytes);
    if (rc == 0)
        *out = n;
    else
        unuse(s, n);
    return rc;
}

static int check_size(const struct grammar_store *s, const struct grammar_source *source,
                      struct err *e)
{
    if (source->n <= s->limits.each.text_bytes_max)
        return 0;
    return err_set(e, ERR_LIMIT, "%zu bytes, more than %zu", source->n,
                   s->limits.each.text_bytes_max);
}

/* One that is there, as the newest; NULL. */
static struct grammar_entry *renew(struct grammar_store *s, const struct grammar_source *source,
                                   uint64_t hash)
{
    struct grammar_entry *n = find(s, source, hash);
    if (n) {
        unlist(s, n);
        list(s, n);
    }
    return n;
}

int grammar_store_get(struct grammar_store *s, const struct grammar_source *source,
                      struct grammar_entry **out, struct err *e)
{
    uint64_t hash = hash_of(source);
    if (check_size(s, source, e) < 0)
        return ERR_LIMIT;
    pthread_mutex_lock(&s->lock);
    struct grammar_entry *n = renew(s, source, hash);
    if (!n) {
        pthread_mutex_unlock(&s->lock);
        n = entry_create(source, hash);
        if (n)
            entry_compile(n, s);
        if (!n || n->why.code == ERR_NOMEM) {
            free(n);
            return err_set(e, ERR_NOMEM, "grammar: no memory");
        }
        pthread_mutex_lock(&s->lock);
        s->kept_bytes += n->bytes;
        list(s, n);
    }
    int rc = take(s, n, out, e);
    trim(s);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* ---- the thread --------------------------------------------------------------------------------
 */

static struct grammar_entry *dequeue(struct grammar_store *s)
{
    struct grammar_entry *n = s->queue;
    s->queue = n->next;
    if (!s->queue)
        s->queue_end = &s->queue;
    n->next = NULL;
    return n;
}

static void *compile_all(void *arg)
{
    struct grammar_store *s = arg;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        if (!s->queue) {
            pthread_cond_wait(&s->work, &s->lock);
            continue;
        }
        struct grammar_entry *n = dequeue(s);
        pthread_mutex_unlock(&s->lock);
        entry_compile(n, s);
        pthread_mutex_lock(&s->lock);
        n->pending = false;
        s->n_pending--;
        s->in_use_bytes += n->bytes; /* the queue used it */
        if (n->why.code == ERR_NOMEM && n->listed)
            unlist(s, n);
        unuse(s, n);
        pthread_cond_broadcast(&s->done);
        if (s->ready)
            s->ready(s->ready_ctx);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static int enqueue(struct grammar_store *s, const struct grammar_source *source, uint64_t hash,
                   struct err *e)
{
    if (s->n_pending >= GRAMMAR_STORE_PENDING_MAX)
        return err_set(e, ERR_BUSY, "%u grammars wait to be compiled: no more now", s->n_pending);
    if (!s->has_thread)
        s->has_thread = pthread_create(&s->thread, NULL, compile_all, s) == 0;
    struct grammar_entry *n = s->has_thread ? entry_create(source, hash) : NULL;
    if (!n)
        return err_set(e, ERR_NOMEM, "grammar: no memory");
    n->pending = true;
    n->users = 1;
    *s->queue_end = n;
    s->queue_end = &n->next;
    s->n_pending++;
    list(s, n);
    pthread_cond_signal(&s->work);
    return 0;
}

int grammar_store_ask(struct grammar_store *s, const struct grammar_source *source, struct err *e)
{
    uint64_t hash = hash_of(source);
    if (check_size(s, source, e) < 0)
        return ERR_LIMIT;
    pthread_mutex_lock(&s->lock);
    struct grammar_entry *n = renew(s, source, hash);
    int rc = n ? !n->pending : enqueue(s, source, hash, e);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void grammar_store_notify(struct grammar_store *s, void (*ready)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&s->lock);
    s->ready = ready;
    s->ready_ctx = ctx;
    pthread_mutex_unlock(&s->lock);
}

static void stop_thread(struct grammar_store *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (s->has_thread)
        pthread_join(s->thread, NULL);
    while (s->queue) {
        struct grammar_entry *n = dequeue(s);
        n->pending = false;
        unuse(s, n);
    }
}

void grammar_store_put(struct grammar_store *s, struct grammar_entry *entry)
{
    if (!entry)
        return;
    pthread_mutex_lock(&s->lock);
    unuse(s, entry);
    pthread_mutex_unlock(&s->lock);
}

const struct grammar *grammar_entry_grammar(const struct grammar_entry *entry)
{
    return entry->grammar;
}

void grammar_store_free(struct grammar_store *s)
{
    if (!s)
        return;
    stop_thread(s);
    ASSERT(s->in_use_bytes == 0);
    for (struct grammar_entry *n = s->newest, *older; n; n = older) {
        older = n->older;
        entry_free(n);
    }
    token_trie_free(s->trie);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->done);
    free(s);
}
