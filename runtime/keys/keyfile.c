#include "runtime/keys/keyfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the list -------------------------------------------------------------------------------- */

void keylist_release(struct keylist *l)
{
    free(l->items);
    *l = (struct keylist){0};
}

/* Where it is, or belongs. What is compared are hashes that nobody can choose: their order tells
 * nothing of a secret. The last word on equality is key_hash_is. */
static size_t place_of(const struct keylist *l, const uint8_t *hash)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (memcmp(l->items[mid].hash, hash, KEY_HASH_BYTES) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

const struct key *keylist_find(const struct keylist *l, const uint8_t hash[KEY_HASH_BYTES])
{
    size_t at = place_of(l, hash);
    return at < l->n && key_hash_is(l->items[at].hash, hash) ? &l->items[at] : NULL;
}

int keylist_add(struct keylist *l, const struct key *k, struct err *e)
{
    if (keylist_find(l, k->hash))
        return err_set(e, ERR_RANGE, "the same key is there twice");
    if (l->n == KEYS_MAX)
        return err_set(e, ERR_LIMIT, "more than %u keys", KEYS_MAX);
    if (l->n == l->max) {
        size_t max = l->max ? l->max * 2 : 16;
        struct key *items = realloc(l->items, max * sizeof(*items));
        if (!items)
            return err_set(e, ERR_NOMEM, "no memory for %zu keys", max);
        l->items = items;
        l->max = max;
    }
    size_t at = place_of(l, k->hash);
    memmove(&l->items[at + 1], &l->items[at], (l->n - at) * sizeof(*k));
    l->items[at] = *k;
    l->n++;
    return 0;
}

/* ---- text ------------------------------------------------------------------------------------ */

struct line {
    const char *p;
    size_t n; /* without its end */
};

/* The next line from *at on; false: there is none. */
static bool next_line(const char *text, size_t n, size_t *at, struct line *out)
{
    if (*at >= n)
        return false;
    const char *end = memchr(text + *at, '\n', n - *at);
    *out = (struct line){text + *at, end ? (size_t)(end - text) - *at : n - *at};
    *at += out->n + 1;
    if (out->n > 0 && out->p[out->n - 1] == '\r')
        out->n--;
    return true;
}

static bool has_key(struct line l)
{
    size_t i = 0;
    while (i < l.n && (l.p[i] == ' ' || l.p[i] == '\t'))
        i++;
    return i < l.n && l.p[i] != '#';
}

int keyfile_parse(const char *text, size_t n, const char *name, struct keylist *out, struct err *e)
{
    struct line line;
    size_t at = 0, number = 0;
    *out = (struct keylist){0};
    while (next_line(text, n, &at, &line)) {
        struct key k;
        number++;
        if (!has_key(line))
            continue;
        if (key_parse(line.p, line.n, &k, e) < 0 || keylist_add(out, &k, e) < 0) {
            keylist_release(out);
            return err_prefix(e, "%.150s:%zu", name, number);
        }
    }
    return 0;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int read_all(int fd, const char *path, struct buf *out, struct err *e)
{
    char piece[65536];
    ssize_t n;
    while ((n = read(fd, piece, sizeof(piece))) > 0)
        buf_add(out, piece, (size_t)n);
    if (n < 0)
        return err_sys(e, errno, "cannot read %.200s", path);
    if (out->failed)
        return err_set(e, ERR_LIMIT, "%.200s: more than %u bytes", path, KEYFILE_BYTES_MAX);
    return 0;
}

static int load(const char *path, struct buf *out, struct err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_NOT_FOUND, "there is no file %.200s", path);
    if (fd < 0)
        return err_sys(e, errno, "cannot read %.200s", path);
    int rc = read_all(fd, path, out, e);
    close(fd);
    return rc;
}

int keyfile_read(const char *path, struct keylist *out, struct err *e)
{
    struct buf text;
    buf_init(&text, KEYFILE_BYTES_MAX);
    *out = (struct keylist){0};
    int rc = load(path, &text, e);
    if (rc == 0)
        rc = keyfile_parse(buf_str(&text), text.len, path, out, e);
    buf_release(&text);
    return rc;
}

/* Writes text beside the file and puts it in the file's place. */
static int replace(const char *path, const struct buf *text, struct err *e)
{
    char beside[4096];
    size_t at = 0;
    if (snprintf(beside, sizeof(beside), "%s.new", path) >= (int)sizeof(beside))
        return err_set(e, ERR_CONFIG, "the path of the keys is too long");
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "cannot write %.200s", beside);
    while (at < text->len) {
        ssize_t n = write(fd, text->data + at, text->len - at);
        if (n < 0)
            break;
        at += (size_t)n;
    }
    bool ok = at == text->len && fsync(fd) == 0;
    ok = close(fd) == 0 && ok;
    if (ok && rename(beside, path) == 0)
        return 0;
    err_sys(e, errno, "cannot write %.200s", path);
    unlink(beside);
    return ERR_IO;
}

/* Two that change the file at once would lose one's change. */
static int lock(const char *path, struct err *e)
{
    char name[4096];
    if (snprintf(name, sizeof(name), "%s.lock", path) >= (int)sizeof(name))
        return err_set(e, ERR_CONFIG, "the path of the keys is too long");
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, errno, "cannot write %.200s", name);
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    close(fd);
    return err_set(e, ERR_BUSY, "%.200s is being changed by somebody else", path);
}

static int append_to(const char *path, const struct key *k, struct buf *text, struct err *e)
{
    struct keylist all;
    int rc = load(path, text, e);
    if (rc < 0 && rc != ERR_NOT_FOUND)
        return rc;
    if ((rc = keyfile_parse(buf_str(text), text->len, path, &all, e)) < 0)
        return rc;
    rc = keylist_add(&all, k, e);
    keylist_release(&all);
    if (rc < 0)
        return rc;
    if (text->len > 0 && text->data[text->len - 1] != '\n')
        buf_addc(text, '\n');
    key_write(k, text);
    buf_addc(text, '\n');
    if (text->failed)
        return err_set(e, ERR_LIMIT, "%.200s: more than %u bytes", path, KEYFILE_BYTES_MAX);
    return replace(path, text, e);
}

int keyfile_append(const char *path, const struct key *k, struct err *e)
{
    struct buf text;
    int fd = lock(path, e);
    if (fd < 0)
        return fd;
    buf_init(&text, KEYFILE_BYTES_MAX);
    int rc = append_to(path, k, &text, e);
    buf_release(&text);
    close(fd);
    return rc;
}

static int remove_from(const char *path, const uint8_t *hash, struct buf *text, struct err *e)
{
    struct buf rest;
    struct line line;
    size_t at = 0;
    bool found = false;
    int rc = load(path, text, e);
    if (rc < 0)
        return rc;
    buf_init(&rest, 0);
    while (next_line(buf_str(text), text->len, &at, &line)) {
        struct key k;
        if (has_key(line) && key_parse(line.p, line.n, &k, NULL) == 0 &&
            key_hash_is(k.hash, hash)) {
            found = true;
            continue;
        }
        buf_add(&rest, line.p, line.n);
        buf_addc(&rest, '\n');
    }
    if (!found)
        rc = err_set(e, ERR_NOT_FOUND, "%.200s has no such key", path);
    else if (rest.failed)
        rc = err_set(e, ERR_NOMEM, "no memory for the keys");
    else
        rc = replace(path, &rest, e);
    buf_release(&rest);
    return rc;
}

int keyfile_remove(const char *path, const uint8_t hash[KEY_HASH_BYTES], struct err *e)
{
    struct buf text;
    int fd = lock(path, e);
    if (fd < 0)
        return fd;
    buf_init(&text, KEYFILE_BYTES_MAX);
    int rc = remove_from(path, hash, &text, e);
    buf_release(&text);
    close(fd);
    return rc;
}
