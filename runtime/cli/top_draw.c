/* top_draw.c: the screen of `argosy top`. Wider terminals get more columns and longer names. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/cli/top_view.h"

#define BAR 8
#define LINE_BYTES_MAX 512

struct screen {
    uint32_t columns, left; /* characters of a line; lines that there is still room for */
    bool color;
    const char *line_end;
    struct buf *out;
};

#define PLAIN "\033[0m"
#define BOLD "\033[1m"
#define DIM "\033[2m"
#define GREEN "\033[32m"
#define YELLOW "\033[33m"

/* Of plain ASCII: bytes are characters. */
static void line(struct screen *s, const char *color, const char *text)
{
    int n = (int)strlen(text);
    if (s->left == 0)
        return;
    s->left--;
    if (n > (int)s->columns)
        n = (int)s->columns;
    while (n > 0 && text[n - 1] == ' ')
        n--;
    if (s->color && color)
        buf_addf(s->out, "%s%.*s" PLAIN "%s", color, n, text, s->line_end);
    else
        buf_addf(s->out, "%.*s%s", n, text, s->line_end);
}

static void put_count(double v, char *out, size_t n)
{
    if (v >= 1e6)
        snprintf(out, n, "%.1fM", v / 1e6);
    else if (v >= 1e4)
        snprintf(out, n, "%.1fk", v / 1e3);
    else
        snprintf(out, n, "%.0f", v);
}

static void put_ms(double ms, char *out, size_t n)
{
    if (ms < 0)
        snprintf(out, n, "-");
    else if (ms >= 1000)
        snprintf(out, n, "%.2f s", ms / 1000);
    else
        snprintf(out, n, ms < 10 ? "%.1f ms" : "%.0f ms", ms);
}

static void put_span(uint64_t s, char *out, size_t n)
{
    if (s < 60)
        snprintf(out, n, "%" PRIu64 "s", s);
    else if (s < 3600)
        snprintf(out, n, "%" PRIu64 "m", s / 60);
    else if (s < 86400)
        snprintf(out, n, "%" PRIu64 "h%02" PRIu64, s / 3600, s % 3600 / 60);
    else
        snprintf(out, n, "%" PRIu64 "d%02" PRIu64 "h", s / 86400, s % 86400 / 3600);
}

static void draw_head(struct screen *s, const struct top_view *v)
{
    char text[LINE_BYTES_MAX], up[24], out[16], in[16], first[2][24], each[2][24];
    put_span(v->up_s, up, sizeof(up));
    put_count(v->tokens_per_s, out, sizeof(out));
    put_count(v->prompt_tokens_per_s, in, sizeof(in));
    for (int i = 0; i < 2; i++) {
        put_ms(v->first_ms[i], first[i], sizeof(first[i]));
        put_ms(v->each_ms[i], each[i], sizeof(each[i]));
    }
    snprintf(text, sizeof(text), "argosy  router %s, %s, up %s", v->version, v->state, up);
    line(s, BOLD, text);
    snprintf(text, sizeof(text), "%u workers   %u streams run, %u wait   %" PRIu64 " moved",
             v->n_attached, v->running, v->waiting, v->moves);
    line(s, NULL, text);
    snprintf(text, sizeof(text), "tokens/s %s out, %s in   requests/s %.0f, %.0f failed", out, in,
             v->requests_per_s, v->failed_per_s);
    line(s, NULL, text);
    snprintf(text, sizeof(text), "first token p50 %s, p95 %s   between tokens p50 %s, p95 %s",
             first[0], first[1], each[0], each[1]);
    line(s, NULL, text);
    line(s, NULL, "");
}

/* Widths of the three names; what is left of a wide terminal goes to them. */
struct widths {
    int id, device, region;
};

static struct widths widths_of(uint32_t columns)
{
    int spare = (int)columns - 80;
    struct widths w = {18, 18, 0};
    if (spare >= 11) {
        w.region = 10;
        spare -= 11;
    }
    if (spare > 0) {
        w.id += spare / 2;
        w.device += spare - spare / 2;
    }
    w.id = w.id > TOP_NAME_BYTES ? TOP_NAME_BYTES : w.id;
    w.device = w.device > TOP_NAME_BYTES ? TOP_NAME_BYTES : w.device;
    return w;
}

static void draw_titles(struct screen *s, struct widths w)
{
    char text[LINE_BYTES_MAX];
    snprintf(text, sizeof(text), "%-*s %-*s %-*s%s%-*s %5s %4s %3s %6s %6s", w.id, "WORKER",
             w.device, "DEVICE", w.region, w.region ? "REGION" : "", w.region ? " " : "", BAR + 2,
             "IN USE", "RUN", "WAIT", "KV", "TOK/S", "HERE");
    line(s, DIM, text);
}

static void draw_worker(struct screen *s, struct widths w, const struct top_worker *k)
{
    char text[LINE_BYTES_MAX], bar[BAR + 1], tokens[16], here[24];
    double use = k->sequences_max ? (double)k->running / k->sequences_max : 0;
    int full = use >= 1 ? BAR : (int)(use * BAR + 0.5);
    bool ready = strcmp(k->state, "ready") == 0;
    memset(bar, '.', BAR);
    memset(bar, '#', (size_t)full);
    bar[BAR] = 0;
    put_count(k->tokens_per_s, tokens, sizeof(tokens));
    put_span(k->attached_s, here, sizeof(here));
    snprintf(text, sizeof(text), "%-*.*s %-*.*s %-*.*s%s[%s] %5u %4u %2.0f%% %6s %6s", w.id, w.id,
             k->id, w.device, w.device, ready ? k->device : k->state, w.region, w.region, k->region,
             w.region ? " " : "", bar, k->running, k->waiting, k->kv * 100, tokens, here);
    line(s, !ready ? YELLOW : k->running ? GREEN : NULL, text);
}

void top_draw(const struct top_view *v, uint32_t columns, uint32_t rows, uint32_t first, bool color,
              const char *line_end, struct buf *out)
{
    struct screen s = {.columns = columns,
                       .left = rows ? rows : UINT32_MAX,
                       .color = color,
                       .line_end = line_end,
                       .out = out};
    struct widths w = widths_of(columns);
    char text[LINE_BYTES_MAX];
    draw_head(&s, v);
    draw_titles(&s, w);
    uint32_t i = first < v->n ? first : 0;
    for (; i < v->n && (s.left > 1 || i + 1 == v->n); i++)
        draw_worker(&s, w, &v->workers[i]);
    if (i < v->n || v->n < v->n_attached) {
        snprintf(text, sizeof(text), "and %u more", v->n_attached > i ? v->n_attached - i : 0);
        line(&s, DIM, text);
    }
    if (v->n == 0)
        line(&s, DIM, "no worker is attached");
}
