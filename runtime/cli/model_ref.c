#include "runtime/cli/model_ref.h"

#include <dirent.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/buf.h"

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcmp(s + n - m, suffix);
}

static int check_name(const char *name, size_t n, struct err *e)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    if (n == 0 || n >= MODEL_NAME_BYTES || name[0] == '.' || strspn(name, allowed) < n)
        return err_set(e, ERR_CONFIG,
                       "'%.*s' can't be a model's name: letters, digits, '.', '_' and '-' only, "
                       "at most %d of them",
                       (int)(n < 200 ? n : 200), name, MODEL_NAME_BYTES - 1);
    return 0;
}

/* Hugging Face's files, of which config.json is always there. */
static int check_folder(const char *path, struct err *e)
{
    char config[PATH_MAX];
    int n = snprintf(config, sizeof config, "%s/config.json", path);
    if (n < 0 || (size_t)n >= sizeof config)
        return err_set(e, ERR_CONFIG, "the model's path is too long");
    if (access(config, R_OK) != 0)
        return err_sys(e, errno, "the folder %s is no model: config.json", path);
    return 0;
}

static int check_file(const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_sys(e, errno, "can't open the model %s", path);
    if (S_ISDIR(st.st_mode))
        return check_folder(path, e);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_CONFIG, "the model %s is neither a file nor a folder", path);
    if (access(path, R_OK) != 0)
        return err_sys(e, errno, "can't read the model %s", path);
    return 0;
}

static int resolve_path(const char *name, size_t name_len, const char *path, struct model_ref *out,
                        struct err *e)
{
    int rc = check_name(name, name_len, e);
    if (rc == 0)
        rc = check_file(path, e);
    if (rc != 0)
        return rc;
    if (strlen(path) >= sizeof out->path)
        return err_set(e, ERR_CONFIG, "the model's path is too long");
    snprintf(out->name, sizeof out->name, "%.*s", (int)name_len, name);
    snprintf(out->path, sizeof out->path, "%s", path);
    return 0;
}

#define NOT_IN_THIS_DIR 1

/* The file that dir/name/model.json names, in out->path. */
static int read_manifest(const char *dir, const char *name, struct model_ref *out, struct err *e)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s/model.json", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(e, ERR_CONFIG, "the path of %s's model.json is too long", name);
    if (access(path, R_OK) != 0)
        return NOT_IN_THIS_DIR;
    struct json_object *json = json_object_from_file(path);
    struct json_object *file = NULL;
    const char *s = NULL;
    if (json && json_object_object_get_ex(json, "file", &file) &&
        json_object_is_type(file, json_type_string))
        s = json_object_get_string(file);
    int rc = 0;
    if (!s || !*s || strchr(s, '/') || *s == '.') {
        rc = err_set(e, ERR_FORMAT, "%s names no \"file\"", path);
    } else {
        n = snprintf(out->path, sizeof out->path, "%s/%s/%s", dir, name, s);
        if (n < 0 || (size_t)n >= sizeof out->path)
            rc = err_set(e, ERR_CONFIG, "the path of the model %s is too long", name);
    }
    json_object_put(json);
    if (rc == 0 && access(out->path, F_OK) != 0)
        rc = err_set(e, ERR_NOT_FOUND, "%s is not here yet: type 'models/fetch.py %s'", out->path,
                     name);
    return rc;
}

static void list_known(const char *const *dirs, struct buf *out)
{
    for (; *dirs; dirs++) {
        DIR *d = opendir(*dirs);
        if (!d)
            continue;
        for (struct dirent *entry; (entry = readdir(d));) {
            char path[PATH_MAX];
            int n = snprintf(path, sizeof path, "%s/%s/model.json", *dirs, entry->d_name);
            if (n > 0 && (size_t)n < sizeof path && access(path, R_OK) == 0)
                buf_addf(out, "%s%s", out->len ? ", " : "", entry->d_name);
        }
        closedir(d);
        if (out->len)
            return;
    }
}

int model_ref_resolve(const char *typed, const char *const *dirs, struct model_ref *out,
                      struct err *e)
{
    const char *equals = strchr(typed, '=');
    if (equals)
        return resolve_path(typed, (size_t)(equals - typed), equals + 1, out, e);
    if (strchr(typed, '/') || ends_with(typed, ".gguf")) {
        const char *end = typed + strlen(typed), *base;
        while (end > typed && end[-1] == '/') /* a folder may end in one */
            end--;
        for (base = end; base > typed && base[-1] != '/'; base--)
            continue;
        size_t n = (size_t)(end - base) - (ends_with(typed, ".gguf") ? 5 : 0);
        return resolve_path(base, n, typed, out, e);
    }
    int rc = check_name(typed, strlen(typed), e);
    if (rc != 0)
        return rc;
    for (const char *const *d = dirs; *d; d++) {
        rc = read_manifest(*d, typed, out, e);
        if (rc == NOT_IN_THIS_DIR)
            continue;
        if (rc != 0)
            return rc;
        snprintf(out->name, sizeof out->name, "%s", typed);
        return check_file(out->path, e);
    }
    struct buf known;
    buf_init(&known, 300);
    list_known(dirs, &known);
    err_set(e, ERR_NOT_FOUND,
            "there is no model '%s'. Known: %s. A path to a .gguf file or a folder works too",
            typed, known.len ? buf_str(&known) : "none");
    buf_release(&known);
    return ERR_NOT_FOUND;
}
