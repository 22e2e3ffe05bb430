#include "runtime/format/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/mapping.h"
#include "runtime/format/jsonpull.h"
#include "runtime/format/safetensors_internal.h"

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

struct safetensors {
    struct tensor_table tensors; /* sorted by name */
    struct arena names;
    struct mapped *files;
    size_t n_files;
};

struct mapped {
    const char *name; /* without the folder; the arena's */
    struct mapping map;
};

/* ---- files ------------------------------------------------------------------------------------
 */

/* Maps one more file. */
static int map_file(struct safetensors *s, const char *path, struct mapping *m, struct err *e)
{
    const char *slash = strrchr(path, '/');
    struct mapped *files = realloc(s->files, (s->n_files + 1) * sizeof(*files));
    if (!files)
        return err_set(e, ERR_NOMEM, "safetensors: no memory");
    s->files = files;
    struct mapped f = {.name = arena_strdup(&s->names, slash ? slash + 1 : path)};
    if (!f.name)
        return err_set(e, ERR_NOMEM, "safetensors: no memory");
    int rc = mapping_open(&f.map, path, e);
    if (rc == 0)
        files[s->n_files++] = f;
    *m = f.map;
    return rc;
}

/* Maps one more file of tensors and appends what is in it. */
static int add_file(struct safetensors *s, const char *path, struct err *e)
{
    struct mapping m;
    int rc = map_file(s, path, &m, e);
    if (rc < 0)
        return rc;
    rc = safetensors_parse(m.bytes, m.n, &s->tensors, &s->names, e);
    if (rc < 0 && e)
        err_prefix(e, "%s", path);
    return rc;
}

/* ---- shards -----------------------------------------------------------------------------------
 */

/* What the index says: which file a tensor is in. */
struct place {
    const char *name;
    const char *file; /* beside the index */
};

struct shards {
    struct place *places;
    size_t n_places, cap;
};

/* A name in the same folder: no way out of it. */
static bool plain_name(const struct jsonpull_str *s)
{
    return s->n && s->n <= 255 && *s->s != '.' && !memchr(s->s, '/', s->n) &&
           !memchr(s->s, 0, s->n);
}

/* The file's name in the arena: that of the tensor before, where it is the same. */
static int read_file_name(struct jsonpull *j, const struct shards *sh, struct arena *a,
                          const char **file)
{
    struct jsonpull_str s;
    int rc = jsonpull_string(j, &s);
    if (rc < 0)
        return rc;
    if (sh->n_places && jsonpull_is(&s, sh->places[sh->n_places - 1].file)) {
        *file = sh->places[sh->n_places - 1].file;
        return 0;
    }
    if (!plain_name(&s))
        return jsonpull_fail(j, ERR_FORMAT, "a shard's name is that of a file in the same folder");
    *file = arena_strndup(a, s.s, s.n);
    return *file ? 0 : jsonpull_fail(j, ERR_NOMEM, "no memory");
}

static int add_place(struct jsonpull *j, struct shards *sh, const char *name, struct arena *a)
{
    if (sh->n_places == sh->cap) {
        size_t cap = sh->cap ? 2 * sh->cap : 256;
        struct place *places = realloc(sh->places, cap * sizeof(*places));
        if (!places)
            return jsonpull_fail(j, ERR_NOMEM, "no memory");
        sh->places = places;
        sh->cap = cap;
    }
    struct place p = {.name = name};
    int rc = read_file_name(j, sh, a, &p.file);
    if (rc == 0)
        sh->places[sh->n_places++] = p;
    return rc;
}

static int read_weight_map(struct jsonpull *j, struct shards *sh, struct arena *a)
{
    struct jsonpull_str key;
    int more = 0, rc = jsonpull_object(j);
    while (rc == 0 && (more = jsonpull_key(j, &key)) > 0) {
        const char *name = memchr(key.s, 0, key.n) ? NULL : arena_strndup(a, key.s, key.n);
        if (!name)
            return jsonpull_fail(j, ERR_FORMAT, "a tensor's name with a NUL, or no memory for it");
        rc = add_place(j, sh, name, a);
    }
    return rc < 0 ? rc : more;
}

static int read_index(struct jsonpull *j, struct shards *sh, struct arena *a)
{
    struct jsonpull_str key;
    int more = 0, rc = jsonpull_object(j);
    while (rc == 0 && (more = jsonpull_key(j, &key)) > 0) {
        if (!jsonpull_is(&key, "weight_map"))
            rc = jsonpull_skip(j, NULL);
        else if (sh->n_places)
            rc = jsonpull_fail(j, ERR_FORMAT, "weight_map is there twice");
        else
            rc = read_weight_map(j, sh, a);
    }
    if (rc == 0)
        rc = more;
    if (rc == 0)
        rc = jsonpull_end(j);
    if (rc == 0 && sh->n_places == 0)
        rc = jsonpull_fail(j, ERR_FORMAT, "a weight_map with a tensor in it is wanted");
    return rc;
}

static int by_file(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int d = strcmp(x->file, y->file);
    return d ? d : strcmp(x->name, y->name);
}

static int compare_names(const void *key, const void *tensor)
{
    return strcmp(key, ((const struct safetensors_tensor *)tensor)->name);
}

/* Of one shard's tensors, which start at `from`, keeps those that the index gives to it. */
static int keep_placed(struct safetensors *s, size_t from, const struct shards *sh, size_t first,
                       size_t end, struct err *e)
{
    size_t n = s->tensors.n - from, kept = 0;
    struct safetensors_tensor *at = n ? s->tensors.at + from : NULL;
    for (size_t i = first; i < end; i++) {
        const char *name = sh->places[i].name;
        struct safetensors_tensor *t =
            n > kept ? bsearch(name, at + kept, n - kept, sizeof(*at), compare_names) : NULL;
        if (!t)
            return err_set(e, ERR_FORMAT, INDEX ": tensor '%s' is not in %s, or named twice",
                           SHOWN(name), SHOWN(sh->places[i].file));
        at[kept++] = *t; /* both are sorted: never past t */
    }
    s->tensors.n = from + kept;
    return 0;
}

static int open_shards(struct safetensors *s, const char *folder, struct shards *sh, struct err *e)
{
    struct buf path;
    int rc = 0;
    buf_init(&path, 0);
    qsort(sh->places, sh->n_places, sizeof(*sh->places), by_file);
    for (size_t first = 0, end; first < sh->n_places && rc == 0; first = end) {
        const char *file = sh->places[first].file;
        size_t from = s->tensors.n;
        for (end = first; end < sh->n_places && !strcmp(sh->places[end].file, file); end++)
            continue;
        if (s->n_files > SAFETENSORS_SHARDS_MAX) {
            rc = err_set(e, ERR_LIMIT, INDEX ": more than %u shards", SAFETENSORS_SHARDS_MAX);
            break;
        }
        buf_clear(&path);
        buf_addf(&path, "%s/%s", folder, file);
        rc = add_file(s, buf_str(&path), e);
        if (rc == 0)
            rc = keep_placed(s, from, sh, first, end, e);
    }
    buf_release(&path);
    return rc == 0 ? safetensors_sort(s->tensors.at, s->tensors.n, e) : rc;
}

static int open_index(struct safetensors *s, const char *folder, const struct mapping *index,
                      struct err *e)
{
    struct jsonpull j;
    struct arena a;
    struct shards sh = {0};
    arena_init(&a, 0);
    int rc = 0;
    if (index->n > SAFETENSORS_HEADER_BYTES_MAX)
        rc = err_set(e, ERR_LIMIT, INDEX ": %zu bytes; the limit is %u", index->n,
                     SAFETENSORS_HEADER_BYTES_MAX);
    jsonpull_init(&j, index->bytes, index->n, INDEX, e);
    if (rc == 0)
        rc = read_index(&j, &sh, &a);
    if (rc == 0)
        rc = open_shards(s, folder, &sh, e);
    jsonpull_release(&j);
    arena_release(&a);
    free(sh.places);
    return rc;
}

static int open_folder(struct safetensors *s, const char *folder, struct err *e)
{
    struct buf path;
    struct mapping index;
    buf_init(&path, 0);
    buf_addf(&path, "%s/" INDEX, folder);
    int rc = map_file(s, buf_str(&path), &index, e);
    if (rc == 0) {
        rc = open_index(s, folder, &index, e);
    } else if (rc == ERR_NOT_FOUND) {
        buf_clear(&path);
        buf_addf(&path, "%s/" SINGLE, folder);
        rc = add_file(s, buf_str(&path), e);
        if (rc == ERR_NOT_FOUND)
            rc = err_set(e, rc, "%s: neither " SINGLE " nor " INDEX, folder);
    }
    buf_release(&path);
    return rc;
}

/* ---- the public functions ---------------------------------------------------------------------
 */

static struct safetensors *create(struct err *e)
{
    struct safetensors *s = calloc(1, sizeof(*s));
    if (s)
        arena_init(&s->names, 0);
    else
        err_set(e, ERR_NOMEM, "safetensors: no memory");
    return s;
}

static int finish(struct safetensors *s, int rc, struct safetensors **out)
{
    if (rc < 0)
        safetensors_close(s);
    else
        *out = s;
    return rc;
}

int safetensors_open(const char *path, struct safetensors **out, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno == ENOENT ? err_set(e, ERR_NOT_FOUND, "%s: there is no such file", path)
                               : err_sys(e, errno, "%s", path);
    struct safetensors *s = create(e);
    if (!s)
        return ERR_NOMEM;
    return finish(s, S_ISDIR(st.st_mode) ? open_folder(s, path, e) : add_file(s, path, e), out);
}

int safetensors_open_mem(const void *bytes, size_t n, struct safetensors **out, struct err *e)
{
    struct safetensors *s = create(e);
    if (!s)
        return ERR_NOMEM;
    return finish(s, safetensors_parse(bytes, n, &s->tensors, &s->names, e), out);
}

void safetensors_close(struct safetensors *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_files; i++)
        mapping_release(&s->files[i].map);
    free(s->files);
    free(s->tensors.at);
    arena_release(&s->names);
    free(s);
}

size_t safetensors_count(const struct safetensors *s)
{
    return s->tensors.n;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i)
{
    ASSERT(i < s->tensors.n);
    return &s->tensors.at[i];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name)
{
    if (s->tensors.n == 0)
        return NULL;
    return bsearch(name, s->tensors.at, s->tensors.n, sizeof(*s->tensors.at), compare_names);
}

int safetensors_data(const struct safetensors_tensor *t, const void **data, struct err *e)
{
    size_t align = t->dtype == SAFETENSORS_F32 ? 4 : 2;
    if (t->dtype == SAFETENSORS_OTHER)
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor '%s' is of type %s; F32, F16 and BF16 are served", SHOWN(t->name),
                       t->dtype_name);
    if (t->bytes && (uintptr_t)t->start % align)
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor '%s': its file starts it at no multiple of %zu bytes",
                       SHOWN(t->name), align);
    *data = t->bytes ? t->start : NULL;
    return 0;
}

size_t safetensors_file_count(const struct safetensors *s)
{
    return s->n_files;
}

struct safetensors_file safetensors_file_at(const struct safetensors *s, size_t i)
{
    ASSERT(i < s->n_files);
    const struct mapped *f = &s->files[i];
    return (struct safetensors_file){.name = f->name, .bytes = f->map.bytes, .n = f->map.n};
}
