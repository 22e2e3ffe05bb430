#include "runtime/engine/stepcost.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#define N STEPCOST_PRICES

/* Standard deviations. Of a measurement, a share of the time: */
#define NOISE 0.15
/* of a step's drift of all prices together, and of each by itself, shares of the price: */
#define DRIFT_ALL 0.05
#define DRIFT_EACH 0.01
/* A price may be off by so much of the usual at most, as far as the filter believes. */
#define DOUBT_MAX 1.5
/* A measurement counts as at most so far from the prediction: a step may have been interrupted. */
#define SURPRISE_MAX 0.5
/* What can be a measurement. */
#define SECONDS_MIN 1e-9
#define SECONDS_MAX 1e6
/* No price falls below this share of the usual: everything costs something. */
#define PRICE_MIN 0.01

/* Units: of the first guess each costs about the same as a pass over the weights. */
static void units(const struct stepcost_work *w, double u[N])
{
    u[0] = w->rows > 0 ? 1 : 0;
    u[1] = w->rows / 12.0;
    u[2] = w->picks / 40.0;
    u[3] = (double)w->seen / 20000.0;
    u[4] = (double)w->read / 20000.0;
}

void stepcost_init(struct stepcost *c)
{
    *c = (struct stepcost){0};
    for (int i = 0; i < N; i++)
        c->price[i] = 1;
}

void stepcost_add(struct stepcost_work *w, uint32_t pos, uint32_t rows, uint32_t picks)
{
    w->rows += rows;
    w->picks += picks;
    w->seen += (uint64_t)rows * pos + (uint64_t)rows * (rows + 1) / 2;
    w->read += rows > 0 ? pos + rows : 0;
}

static double dot(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += a[i] * b[i];
    return sum;
}

double stepcost_predict(const struct stepcost *c, const struct stepcost_work *w)
{
    double u[N];
    units(w, u);
    return dot(c->price, u);
}

static void begin(struct stepcost *c, double usual)
{
    memset(c->covariance, 0, sizeof(c->covariance));
    for (int i = 0; i < N; i++) {
        c->price[i] = usual;
        c->covariance[i][i] = DOUBT_MAX * DOUBT_MAX * usual * usual;
    }
}

/* Time passes: prices drift, and what was known of them gets old. */
static void drift(struct stepcost *c, double usual)
{
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++)
            c->covariance[i][j] += DRIFT_ALL * DRIFT_ALL * c->price[i] * c->price[j];
        double each = DRIFT_EACH * usual;
        c->covariance[i][i] += each * each;
        double most = DOUBT_MAX * usual, now = sqrt(c->covariance[i][i]);
        for (int j = 0; j < N && now > most; j++) {
            c->covariance[i][j] *= most / now;
            c->covariance[j][i] *= most / now;
        }
    }
}

static double held(double v, double low, double high)
{
    return v < low ? low : v > high ? high : v;
}

void stepcost_learn(struct stepcost *c, const struct stepcost_work *w, double seconds)
{
    double u[N], pu[N], all = 0;
    if (w->rows == 0 || !(seconds >= SECONDS_MIN && seconds <= SECONDS_MAX))
        return;
    units(w, u);
    for (int i = 0; i < N; i++)
        all += u[i];
    if (c->n_learned++ == 0)
        begin(c, seconds / all);
    double expected = dot(c->price, u), usual = expected / all;
    drift(c, usual);
    for (int i = 0; i < N; i++)
        pu[i] = dot(c->covariance[i], u);
    double noise = NOISE * expected, variance = dot(u, pu) + noise * noise;
    double off = held(seconds - expected, -SURPRISE_MAX * expected, SURPRISE_MAX * expected);
    for (int i = 0; i < N; i++) {
        c->price[i] += pu[i] / variance * off;
        c->price[i] = held(c->price[i], PRICE_MIN * usual, INFINITY);
        for (int j = 0; j < N; j++)
            c->covariance[i][j] -= pu[i] * pu[j] / variance;
    }
}

static bool fits(const struct stepcost *c, const struct stepcost_work *w, uint32_t pos,
                 uint32_t rows, uint32_t rest, double limit)
{
    struct stepcost_work with = *w;
    stepcost_add(&with, pos, rows, rows == rest);
    return stepcost_predict(c, &with) <= limit;
}

uint32_t stepcost_rows(const struct stepcost *c, const struct stepcost_work *w, uint32_t pos,
                       uint32_t rest, uint32_t rows_max, double limit)
{
    uint32_t low = 0, high = rest < rows_max ? rest : rows_max;
    while (low < high) { /* more rows never cost less */
        uint32_t middle = high - (high - low) / 2;
        if (fits(c, w, pos, middle, rest, limit))
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}
