#include "runtime/cli/plan.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/check.h"

#define DEFAULT_PORT 8080
#define ARGS_MAX (24 + 2 * UP_MODELS_MAX)
#define ONCE_TOKENS_MAX "512"
#define ARENA_BYTES_MAX (4u << 20)

/* ---- command lines --------------------------------------------------------------------------- */

struct args {
    struct plan *plan;
    char **argv; /* NULL-terminated */
    uint32_t n;
};

static char *text(struct plan *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static char *text(struct plan *p, const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    char *copy = n < 0 ? NULL : arena_strndup(&p->arena, s, (size_t)n);
    ASSERT(copy);
    free(s);
    return copy;
}

static struct args args_new(struct plan *p, char *program)
{
    struct args a = {.plan = p, .argv = arena_calloc(&p->arena, ARGS_MAX + 1, sizeof(char *))};
    ASSERT(a.argv);
    a.argv[a.n++] = program;
    return a;
}

static void args_add(struct args *a, const char *option, const char *value)
{
    ASSERT(a->n + 2 <= ARGS_MAX);
    a->argv[a->n++] = text(a->plan, "%s", option);
    if (value)
        a->argv[a->n++] = text(a->plan, "%s", value);
}

static void plan_redis(struct plan *p)
{
    struct args a = args_new(p, text(p, "redis-server"));
    args_add(&a, "--port", "0");
    args_add(&a, "--unixsocket", p->redis_socket);
    args_add(&a, "--unixsocketperm", "700");
    args_add(&a, "--save", "");
    args_add(&a, "--appendonly", "no");
    args_add(&a, "--dir", p->dir);
    args_add(&a, "--loglevel", "warning");
    p->redis = a.argv;
}

static void add_models(struct args *a, const char *option)
{
    const struct plan *p = a->plan;
    for (unsigned i = 0; i < p->n_models; i++)
        args_add(a, option, text(a->plan, "%s=%s", p->models[i].name, p->models[i].path));
}

static void plan_router(struct plan *p, const struct up_options *o)
{
    bool v6 = strchr(o->host, ':') != NULL;
    struct args a = args_new(p, text(p, "%s/argosy-router", p->bin_dir));
    args_add(&a, "--listen", text(p, v6 ? "[%s]:%u" : "%s:%u", o->host, p->port));
    args_add(&a, "--rpc-listen", p->rpc_address);
    add_models(&a, "--models");
    args_add(&a, "--redis", o->redis ? o->redis : text(p, "unix:%s", p->redis_socket));
    if (o->keys) {
        args_add(&a, "--auth", "keys");
        args_add(&a, "--keys", o->keys);
    }
    p->router = a.argv;
}

static void plan_worker(struct plan *p, const struct up_options *o, uint32_t i)
{
    struct args a = args_new(p, text(p, "%s/argosy-worker", p->bin_dir));
    args_add(&a, "--routers", p->rpc_address);
    args_add(&a, "--id", text(p, "local-%u", i + 1));
    add_models(&a, "--model");
    args_add(&a, "--threads", text(p, "%u", p->threads));
    if (o->memory)
        args_add(&a, "--memory", o->memory);
    p->workers[i] = a.argv;
}

static void plan_once(struct plan *p, const struct up_options *o)
{
    bool v6 = strchr(p->host, ':') != NULL;
    struct args a = args_new(p, text(p, "%s/argosy", p->bin_dir));
    args_add(&a, "chat", NULL);
    args_add(&a, "--url", text(p, v6 ? "http://[%s]:%u" : "http://%s:%u", p->host, p->port));
    args_add(&a, "--model", p->models[0].name);
    /* The same answer every time. */
    args_add(&a, "--temperature", "0");
    args_add(&a, "--max-tokens", ONCE_TOKENS_MAX);
    args_add(&a, "--system", "You are a helpful assistant.");
    args_add(&a, "--", o->once);
    p->once = a.argv;
}

/* ---- where --------------------------------------------------------------------------------- */

static int find_bin_dir(struct plan *p, struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", p->bin_dir, sizeof p->bin_dir - 1);
    if (n < 0)
        return err_sys(e, errno, "can't find out where this program is");
    p->bin_dir[n] = '\0';
    char *slash = strrchr(p->bin_dir, '/');
    ASSERT(slash);
    *slash = '\0';
    static const char *const sisters[] = {"argosy-router", "argosy-worker"};
    for (size_t i = 0; i < ARRAY_LEN(sisters); i++) {
        const char *path = text(p, "%s/%s", p->bin_dir, sisters[i]);
        if (access(path, X_OK) != 0)
            return err_sys(e, errno, "can't run %s", path);
    }
    return 0;
}

/* Our tree's models/ when we are build/VARIANT/argosy, the current directory's, an installation's.
 */
static int find_models(struct plan *p, const struct up_options *o, struct err *e)
{
    const char *dirs[] = {text(p, "%s/../../models", p->bin_dir), "models",
                          text(p, "%s/../share/argosy/models", p->bin_dir), NULL};
    for (unsigned i = 0; i < o->n_models; i++) {
        struct model_ref *m = &p->models[i];
        int rc = model_ref_resolve(o->models[i], dirs, m, e);
        for (unsigned k = 0; rc == 0 && k < i; k++)
            if (strcmp(m->name, p->models[k].name) == 0)
                rc = err_set(e, ERR_CONFIG, "two models are called %s", m->name);
        if (rc != 0)
            return rc;
        p->n_models++;
    }
    return 0;
}

static int try_port(const char *host, long wanted, uint16_t *port, struct err *e)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)wanted)};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)wanted)};
    struct sockaddr *address = (struct sockaddr *)&v4;
    socklen_t n = sizeof v4;
    if (inet_pton(AF_INET, host, &v4.sin_addr) != 1) {
        if (inet_pton(AF_INET6, host, &v6.sin6_addr) != 1)
            return err_set(e, ERR_CONFIG, "--host is an IP address, not '%.100s'", host);
        address = (struct sockaddr *)&v6;
        n = sizeof v6;
    }
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, errno, "can't make a socket");
    int on = 1, rc = 0;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, address, n) != 0 || listen(fd, 1) != 0) {
        int why = errno;
        rc = err_sys(e, why, "can't listen on port %ld of %s", wanted, host);
        if (why == EADDRINUSE)
            err_set(e, ERR_BUSY,
                    "port %ld is taken, perhaps by another 'argosy up'. Choose another one with "
                    "--port N (make run PORT=N); 0 takes any free one",
                    wanted);
    } else {
        getsockname(fd, address, &n);
        *port = ntohs(address->sa_family == AF_INET ? v4.sin_port : v6.sin6_port);
    }
    close(fd);
    return rc;
}

static int check_rpc_listen(const char *address, struct err *e)
{
    const char *colon = address ? strrchr(address, ':') : NULL;
    if (colon && !strcmp(colon, ":0"))
        return err_set(e, ERR_CONFIG, "--rpc-listen needs a port: our workers must know it");
    return 0;
}

static int make_dir(struct plan *p, struct err *e)
{
    /* A socket's path has room for 107 bytes: a long TMPDIR is not for us. */
    const char *tmp = getenv("TMPDIR");
    if (!tmp || tmp[0] != '/' || strlen(tmp) + sizeof "/argosy-XXXXXX" > sizeof p->dir)
        tmp = "/tmp";
    snprintf(p->dir, sizeof p->dir, "%s/argosy-XXXXXX", tmp);
    if (mkdtemp(p->dir))
        return 0;
    int rc = err_sys(e, errno, "can't make a directory in %s", tmp);
    p->dir[0] = '\0';
    return rc;
}

static void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *entry; (entry = readdir(d));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(d), entry->d_name, 0);
    closedir(d);
    if (rmdir(dir) != 0)
        fprintf(stderr, "argosy: can't remove %s: %s\n", dir, strerror(errno));
}

static uint32_t cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (uint32_t)CPU_COUNT(&set) : 1;
}

int plan_init(struct plan *p, const struct up_options *o, struct err *e)
{
    memset(p, 0, sizeof *p);
    arena_init(&p->arena, ARENA_BYTES_MAX);
    int rc = find_bin_dir(p, e);
    if (rc == 0)
        rc = find_models(p, o, e);
    if (rc == 0)
        rc = try_port(o->host, o->port >= 0 ? o->port : o->once ? 0 : DEFAULT_PORT, &p->port, e);
    if (rc == 0)
        rc = check_rpc_listen(o->rpc_listen, e);
    if (rc == 0)
        rc = make_dir(p, e);
    if (rc != 0)
        return rc;

    p->host = !strcmp(o->host, "0.0.0.0") ? "127.0.0.1" : !strcmp(o->host, "::") ? "::1" : o->host;
    uint32_t share = cores() / (uint32_t)o->workers;
    p->threads = o->threads ? (uint32_t)o->threads : share ? share : 1;
    p->redis_socket = text(p, "%s/redis.sock", p->dir);
    p->rpc_address = o->rpc_listen ? o->rpc_listen : text(p, "unix:%s/rpc.sock", p->dir);
    if (!o->redis)
        plan_redis(p);
    plan_router(p, o);
    for (uint32_t i = 0; i < (uint32_t)o->workers; i++)
        plan_worker(p, o, i);
    if (o->once)
        plan_once(p, o);
    return 0;
}

void plan_release(struct plan *p)
{
    if (p->dir[0])
        remove_dir(p->dir);
    p->dir[0] = '\0';
    arena_release(&p->arena);
}
