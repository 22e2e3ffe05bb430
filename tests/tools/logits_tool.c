/* logits_tool.c: the raw results of a model, for tests in Python.
 *
 *     logits_tool MODEL tokenize < text
 *     logits_tool MODEL manifest
 *     logits_tool MODEL ends
 *     logits_tool MODEL ISA THREADS CHUNK LOGITS HIDDEN [RANKS [KV_TYPE]] < ids
 *
 * The first prints the token ids of a text, the second the manifest's hash, the third which
 * tokens start and end a text, as JSON. The last reads token
 * ids in decimal from stdin and computes them as one sequence, CHUNK rows a pass. Writes the logits
 * of every position to LOGITS, (n, vocab) fp32, and the residual stream behind the last layer to
 * HIDDEN, (n, n_embd) fp32. "-" for a file: not wanted. Prints n, vocab, n_embd.
 * RANKS: processes that share the model out. KV_TYPE: f16 or int8. ISA may be "cuda" for GPUs,
 * which logits_tool_emulated has: the same program over the emulated device.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/gpu.h"
#include "runtime/engine/rank.h"
#include "runtime/engine/ranks.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "runtime/text/checkpoint_text.h"
#include "runtime/text/tokenizer.h"

struct tool {
    struct gpu gpu;
    struct ranks *ranks; /* NULL: this process alone */
    struct buf message;
    struct model model;
    struct threads *threads;
    struct backend *backend;
    uint32_t *ids;
    uint32_t n_ids;
    uint32_t *pages;
    struct pick *picks; /* (chunk) */
    uint32_t chunk;
    enum kn_kv_type kv_type;
    FILE *logits, *hidden; /* NULL: not wanted */
};

static enum kn_isa isa_of(const char *name)
{
    if (strcmp(name, "auto") == 0)
        return kn_isa_best();
    for (int i = 0; i < KN_ISA_COUNT; i++)
        if (strcmp(name, kn_isa_name((enum kn_isa)i)) == 0 && kn_isa_available((enum kn_isa)i))
            return (enum kn_isa)i;
    fprintf(stderr, "isa '%s' is not available\n", name);
    exit(2);
}

static uint32_t number_of(const char *word)
{
    char *end;
    unsigned long n = strtoul(word, &end, 10);
    if (end == word || *end || n < 1 || n > 65536) {
        fprintf(stderr, "'%s' is no number from 1 to 65536\n", word);
        exit(2);
    }
    return (uint32_t)n;
}

static void read_ids(struct tool *t)
{
    size_t cap = 0;
    unsigned long id;
    while (scanf("%lu", &id) == 1) {
        if (t->n_ids == cap) {
            cap = cap ? 2 * cap : 1024;
            t->ids = realloc(t->ids, cap * sizeof(*t->ids));
            if (!t->ids)
                abort();
        }
        if (id >= t->model.h.vocab) {
            fprintf(stderr, "token %lu is not in the vocabulary\n", id);
            exit(2);
        }
        t->ids[t->n_ids++] = (uint32_t)id;
    }
}

static int open_model(struct tool *t, char **argv, struct err *e)
{
    bool cuda = strcmp(argv[2], "cuda") == 0;
    struct rank_setup setup = {.isa = cuda ? KN_ISA_REF : isa_of(argv[2]),
                               .threads = number_of(argv[3])};
    uint32_t ranks = argv[7] ? number_of(argv[7]) : 1;
    int rc = gpu_choose(cuda ? "cuda" : "cpu", ranks, &setup.gpu, e);
    t->gpu = setup.gpu;
    if (rc == 0)
        rc = checkpoint_open(argv[1], &setup.file, e);
    if (rc == 0 && ranks > 1)
        rc = ranks_start(ranks, rank_serve, &setup, &t->ranks, e);
    if (rc == 0)
        rc = threads_create(setup.threads, &t->threads, e);
    if (rc < 0)
        return rc;
    rc = model_load_rank(&t->model, setup.file, setup.isa, 0, ranks, t->threads, e);
    checkpoint_close(setup.file);
    if (t->ranks)
        rc = collective_agree(ranks_collective(t->ranks), rc, e, e);
    return rc;
}

static int create_backend(struct tool *t, struct collective *group,
                          const struct backend_limits *limits, struct err *e)
{
    const struct gpu_group gpus = {.control = group, .watch = ranks_watch, .arg = t->ranks};
    if (!gpu_computes(&t->gpu))
        return backend_cpu_create(&t->model, t->threads, group, limits, &t->backend, e);
    return backend_cuda_create(&t->model, &t->gpu, group ? &gpus : NULL, limits, &t->backend, e);
}

static int open_backend(struct tool *t, struct err *e)
{
    uint32_t n_pages = t->n_ids / KN_PAGE_TOKENS + 1;
    const struct backend_limits limits = {.rows_max = t->chunk,
                                          .picks_max = t->chunk,
                                          .context = t->n_ids + 1,
                                          .kv_pages = n_pages,
                                          .kv_type = t->kv_type};
    t->pages = calloc(n_pages, sizeof(*t->pages));
    t->picks = calloc(t->chunk, sizeof(*t->picks));
    if (!t->pages || !t->picks)
        abort();
    for (uint32_t i = 0; i < n_pages; i++)
        t->pages[i] = n_pages - 1 - i; /* any order will do */
    struct collective *group = t->ranks ? ranks_collective(t->ranks) : NULL;
    int rc = group ? rank_send_limits(group, &limits, e) : 0;
    if (rc == 0)
        rc = create_backend(t, group, &limits, e);
    return group ? collective_agree(group, rc, e, e) : rc;
}

static void compute(struct tool *t, uint32_t pos, uint32_t rows)
{
    const struct kn_span span = {.page_table = t->pages, .pos = pos, .rows = rows};
    struct batch b = {.ids = t->ids + pos,
                      .n_rows = rows,
                      .spans = &span,
                      .n_spans = 1,
                      .picks = t->picks,
                      .n_picks = t->logits ? rows : 0};
    for (uint32_t i = 0; i < rows; i++)
        t->picks[i] = (struct pick){.row = i};
    struct collective *group = t->ranks ? ranks_collective(t->ranks) : NULL;
    if (group && rank_send_batch(group, &b, &t->message, NULL) < 0)
        abort();
    backend_run(t->backend, &b);
    struct err e;
    if ((group && group->lost.code < 0) || backend_check(t->backend, &e) < 0) {
        fprintf(stderr, "%s\n", group && group->lost.code < 0 ? group->lost.msg : e.msg);
        exit(1);
    }
    for (uint32_t i = 0; i < rows; i++) {
        if (t->logits)
            fwrite(backend_logits(t->backend, i), sizeof(float), t->model.h.vocab, t->logits);
        if (t->hidden)
            fwrite(backend_hidden(t->backend, i), sizeof(float), t->model.h.n_embd, t->hidden);
    }
}

static FILE *open_out(const char *path)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "wb") : NULL;
    if (!f && strcmp(path, "-")) {
        perror(path);
        exit(2);
    }
    return f;
}

static int close_out(FILE *f)
{
    return f && (ferror(f) | fclose(f));
}

static int tokenize(const char *path)
{
    struct err e;
    struct checkpoint *file;
    struct tokenizer *tokenizer;
    struct tokenvec ids;
    struct buf text;
    size_t n;
    char piece[4096];
    buf_init(&text, 0);
    tokenvec_init(&ids, 0);
    while ((n = fread(piece, 1, sizeof(piece), stdin)) > 0)
        buf_add(&text, piece, n);
    if (checkpoint_open(path, &file, &e) < 0 || tokenizer_open(file, &tokenizer, &e) < 0 ||
        tokenizer_encode(tokenizer, buf_str(&text), text.len, TOKENIZER_PARSE_SPECIAL, &ids, &e) <
            0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    for (size_t i = 0; i < ids.n; i++)
        printf("%u\n", ids.ids[i]);
    tokenvec_release(&ids);
    buf_release(&text);
    tokenizer_free(tokenizer);
    checkpoint_close(file);
    return 0;
}

static int print_manifest(const char *path)
{
    struct err e;
    struct checkpoint *file = NULL;
    char hex[65];
    int rc = checkpoint_open(path, &file, &e);
    if (rc == 0)
        rc = checkpoint_manifest(file, hex, &e);
    if (rc == 0)
        printf("%s\n", hex);
    else
        fprintf(stderr, "%s\n", e.msg);
    checkpoint_close(file);
    return rc < 0;
}

static int print_ends(const char *path)
{
    struct err e;
    struct checkpoint *file = NULL;
    struct tokenizer *t = NULL;
    const char *comma = "";
    int rc = checkpoint_open(path, &file, &e);
    if (rc == 0)
        rc = tokenizer_open(file, &t, &e);
    if (rc == 0) {
        printf("{\"bos\": %u, \"eos\": %u, \"ends\": [", tokenizer_bos(t), tokenizer_eos(t));
        for (uint32_t id = 0; id < tokenizer_vocab_size(t); id++)
            if (tokenizer_is_eog(t, id)) {
                printf("%s%u", comma, id);
                comma = ", ";
            }
        printf("]}\n");
    } else {
        fprintf(stderr, "%s\n", e.msg);
    }
    tokenizer_free(t);
    checkpoint_close(file);
    return rc < 0;
}

int main(int argc, char **argv)
{
    struct err e;
    struct tool t = {.n_ids = 0};
    if (argc == 3 && strcmp(argv[2], "tokenize") == 0)
        return tokenize(argv[1]);
    if (argc == 3 && strcmp(argv[2], "ends") == 0)
        return print_ends(argv[1]);
    if (argc == 3 && strcmp(argv[2], "manifest") == 0)
        return print_manifest(argv[1]);
    if (argc < 7 || argc > 9) {
        fprintf(stderr, "usage: logits_tool MODEL ISA THREADS CHUNK LOGITS HIDDEN "
                        "[RANKS [KV_TYPE]] < ids\n");
        return 2;
    }
    t.chunk = number_of(argv[4]);
    t.kv_type = argc == 9 && strcmp(argv[8], "int8") == 0 ? KN_KV_INT8 : KN_KV_F16;
    t.logits = open_out(argv[5]);
    t.hidden = open_out(argv[6]);
    if (open_model(&t, argv, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    read_ids(&t);
    if (open_backend(&t, &e) < 0) {
        fprintf(stderr, "%s\n", e.msg);
        return 1;
    }
    for (uint32_t pos = 0; pos < t.n_ids; pos += t.chunk)
        compute(&t, pos, t.n_ids - pos < t.chunk ? t.n_ids - pos : t.chunk);
    printf("%u %u %u\n", t.n_ids, t.model.h.vocab, t.model.h.n_embd);
    int failed = close_out(t.logits) | close_out(t.hidden);
    backend_free(t.backend);
    ranks_free(t.ranks);
    buf_release(&t.message);
    model_release(&t.model);
    threads_free(t.threads);
    free(t.ids);
    free(t.pages);
    free(t.picks);
    return failed ? 1 : 0;
}
