/* simt/test.c: the emulator finds the planted bugs and nothing in their twins; its layouts are
 * those of the PTX manual, written down here a second time. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/simt/planted.h"
#include "kernels/simt/simt.h"
#include "kernels/testing.h"

#define SEEDS 20

static void set_run(uint64_t seed)
{
    simt_set(&(struct simt_options){
        .seed = seed,
        .preempt = seed % 3 == 0 ? 0 : 8,
        .eager_copies = seed % 2 == 0,
    });
}

/* What a run of p leaves in `out`. False: it was found faulty. */
static bool run_planted(const struct planted *p, bool bug, uint64_t seed, int *out)
{
    int values[PLANTED_N], zeros[PLANTED_N] = {0};
    int *in = simt_malloc(sizeof values, "in"), *device_out = simt_malloc(sizeof values, "out");
    int *scratch = simt_malloc(sizeof values, "scratch");

    for (int i = 0; i < PLANTED_N; i++) {
        values[i] = 3 * i + 1;
    }
    simt_upload(in, values, sizeof values);
    simt_upload(device_out, zeros, sizeof zeros);
    set_run(seed);
    bool good = p->run(bug, device_out, in, scratch) == 0;
    good = good && simt_download(out, device_out, PLANTED_N * sizeof *out);
    if (good && strcmp(p->name, "tail_not_written") == 0) {
        good = simt_download(out, scratch, PLANTED_N * sizeof *out);
    }
    simt_free(in);
    simt_free(device_out);
    simt_free(scratch);
    return good;
}

/* Whether the fault has one of the phrases, which '|' parts. */
static bool said_one_of(const char *phrases)
{
    char phrase[64];

    for (size_t n; *phrases != '\0'; phrases += n + (phrases[n] == '|')) {
        n = strcspn(phrases, "|");
        (void)snprintf(phrase, sizeof phrase, "%.*s", (int)n, phrases);
        if (strstr(simt_fault(), phrase) != NULL) {
            return true;
        }
    }
    return false;
}

/* ASan ends the program: a child of it runs into the bug. */
static bool child_dies(const struct planted *p, uint64_t seed)
{
    int out[PLANTED_N], status = 0, ends[2];
    char said[4096];
    ssize_t n, said_bytes = 0;

    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        _exit(run_planted(p, true, seed, out) ? 0 : 3);
    }
    close(ends[1]);
    while ((n = read(ends[0], said + said_bytes, sizeof said - 1 - (size_t)said_bytes)) > 0) {
        said_bytes += n;
    }
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    said[said_bytes] = '\0';
    return status != 0 && strstr(said, "AddressSanitizer") != NULL;
}

static void test_planted_bugs_are_found(void **state)
{
    (void)state;
    int out[PLANTED_N], found = 0;

    for (int i = 0; i < n_planted; i++) {
        const struct planted *p = &planted[i];
        if (p->found == PLANTED_BOUNDS && !simt_has_shadow()) {
            assert_true(child_dies(p, 1));
            found++;
            continue;
        }
        if (p->found == PLANTED_SHADOW && !simt_has_shadow()) {
            continue;
        }
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            if (run_planted(p, true, seed, out)) {
                fail_msg("%s: not found with seed %d", p->name, (int)seed);
            }
            if (!said_one_of(p->says)) {
                fail_msg("%s: should say '%s': %s", p->name, p->says, simt_fault());
            }
        }
        print_message("%s\n", simt_fault());
        found++;
    }
    print_message("%d of %d planted bugs looked for and found in this build\n", found, n_planted);
}

static void test_the_same_kernels_without_the_bugs_pass(void **state)
{
    (void)state;
    int first[PLANTED_N], out[PLANTED_N];

    for (int i = 0; i < n_planted; i++) {
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            if (!run_planted(&planted[i], false, seed, seed == 1 ? first : out)) {
                fail_msg("%s without its bug, seed %d: %s", planted[i].name, (int)seed,
                         simt_fault());
            }
            assert_true(seed == 1 || memcmp(first, out, sizeof out) == 0);
        }
    }
}

static void test_a_race_names_both_lines(void **state)
{
    (void)state;
    int out[PLANTED_N];

    if (!simt_has_shadow()) {
        skip();
    }
    int i = 0;
    while (strcmp(planted[i].name, "no_barrier_before_reuse") != 0) {
        i++;
    }
    assert_false(run_planted(&planted[i], true, 1, out));
    const char *first = strstr(simt_fault(), "planted.cu:");
    assert_non_null(first);
    const char *second = strstr(first + 1, "planted.cu:");
    assert_non_null(second);
    long a = strtol(first + 11, NULL, 10), b = strtol(second + 11, NULL, 10);
    assert_true(a != b && labs(a - b) < 10);
}

static void test_traffic_is_counted(void **state)
{
    (void)state;
    int values[PLANTED_N] = {0};

    if (!simt_has_shadow()) {
        skip();
    }
    int *in = simt_malloc(sizeof values, "in"), *out = simt_malloc(sizeof values, "out");
    simt_upload(in, values, sizeof values);
    set_run(1);
    assert_int_equal(planted_strided(1, out, in), 0);
    const struct simt_stats *s = simt_last_stats();
    assert_int_equal(s->loads, 1);
    assert_int_equal(s->stores, 1);
    assert_int_equal(s->load_bytes, 128);
    assert_int_equal(s->sectors, 8);
    assert_int_equal(s->sectors_min, 8);
    assert_int_equal(s->unique_sectors, 8);
    assert_int_equal(s->shared_accesses, 2);
    assert_int_equal(s->bank_conflicts, 0);
    assert_int_equal(planted_strided(8, out, in), 0); /* a sector a lane, eight lanes a bank */
    assert_int_equal(s->sectors, 32 + 4);
    assert_int_equal(s->sectors_min, 8);
    assert_int_equal(s->unique_sectors, 32 + 4);
    assert_int_equal(s->bank_conflicts, 2 * 7);
    simt_free(in);
    simt_free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_planted_bugs_are_found),
        cmocka_unit_test(test_the_same_kernels_without_the_bugs_pass),
        cmocka_unit_test(test_a_race_names_both_lines),
        cmocka_unit_test(test_traffic_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
