/* The layouts of ptx.h's instructions against the PTX ISA's formulas, written down here apart from
 * the emulator. On a GPU the same tests hold the formulas to the hardware. */
#include "kernels/simt/probes.h"

#include "kernels/simt/simt.h"
#include "kernels/testing.h"

/* PTX ISA, "Matrix Fragments for mma.m16n8k32": row and column of element i of a lane. */
static void fragment_a(int lane, int i, int *row, int *col)
{
    int group = lane >> 2, in_group = lane % 4;

    *row = (0 <= i && i < 4) || (8 <= i && i < 12) ? group : group + 8;
    *col = i < 8 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
}

static void fragment_b(int lane, int i, int *row, int *col)
{
    int group = lane >> 2, in_group = lane % 4;

    *row = i < 4 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
    *col = group;
}

static void fragment_c(int lane, int i, int *row, int *col)
{
    int group = lane >> 2, in_group = lane % 4;

    *row = i < 2 ? group : group + 8;
    *col = in_group * 2 + (i & 1);
}

static void check_mma(int (*probe)(const uint32_t *, const uint32_t *, int *))
{
    struct random r = {1};
    int8_t a[16][32], b[32][8], a_regs[32][16], b_regs[32][8];
    int c[16][8], c_regs[32][4], row, col;

    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 512; i++) {
            a[i / 32][i % 32] = round == 0 ? -128 : (int8_t)random_u32(&r);
            b[i % 32][i / 32 % 8] = round == 0 ? -128 : (int8_t)random_u32(&r);
            c[i / 32][i % 8] = round == 1 ? INT32_MAX - 1 : (int)random_below(&r, 1000);
        }
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 16; i++) {
                fragment_a(lane, i, &row, &col);
                a_regs[lane][i] = a[row][col];
            }
            for (int i = 0; i < 8; i++) {
                fragment_b(lane, i, &row, &col);
                b_regs[lane][i] = b[row][col];
            }
            for (int i = 0; i < 4; i++) {
                fragment_c(lane, i, &row, &col);
                c_regs[lane][i] = c[row][col];
            }
        }
        uint32_t *da = simt_malloc(sizeof a_regs, "a"), *db = simt_malloc(sizeof b_regs, "b");
        int *dc = simt_malloc(sizeof c_regs, "c");
        simt_upload(da, a_regs, sizeof a_regs);
        simt_upload(db, b_regs, sizeof b_regs);
        simt_upload(dc, c_regs, sizeof c_regs);
        assert_int_equal(probe(da, db, dc), 0);
        assert_true(simt_download(c_regs, dc, sizeof c_regs));
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < 4; i++) {
                fragment_c(lane, i, &row, &col);
                uint32_t want = (uint32_t)c[row][col];
                for (int k = 0; k < 32; k++) {
                    want += (uint32_t)(a[row][k] * b[k][col]);
                }
                assert_int_equal((uint32_t)c_regs[lane][i], want);
            }
        }
        simt_free(da);
        simt_free(db);
        simt_free(dc);
    }
}

static void test_mma_s8_is_a_matrix_product(void **state)
{
    (void)state;
    check_mma(probe_mma);
}

/* "Matrix Fragments for mma.m16n8k16" of .s8: elements 0 to 3 and 4 to 7 of A, 0 to 3 of B, are
 * where those of k32 are; so the second half of k is k32's elements from 8, and from 4, on. */
static void test_mma_s8_of_k16_is_half_of_it(void **state)
{
    (void)state;
    check_mma(probe_mma_k16);
}

/* PTX ISA, "ldmatrix": thread l holds row l / 4, elements 2 (l % 4) and 2 (l % 4) + 1. */
static void test_ldmatrix_gives_lanes_their_elements(void **state)
{
    (void)state;
    uint16_t m[4][8][8];
    uint32_t out[32][4];

    for (int i = 0; i < 256; i++) {
        m[i / 64][i / 8 % 8][i % 8] = (uint16_t)(1000 * (i / 64) + i % 64);
    }
    uint16_t *device = simt_malloc(sizeof m, "matrices");
    uint32_t *device_out = simt_malloc(sizeof out, "out");
    simt_upload(device, m, sizeof m);
    for (int n = 2; n <= 5; n++) {
        bool turned = n == 3 || n == 5;
        assert_int_equal(probe_ldmatrix(n, device, device_out), 0);
        assert_true(simt_download(out, device_out, sizeof out));
        for (int lane = 0; lane < 32; lane++) {
            for (int i = 0; i < (n >= 4 ? 4 : 2); i++) {
                int row = lane / 4, col = 2 * (lane % 4);
                uint32_t low = turned ? m[i][col][row] : m[i][row][col];
                uint32_t high = turned ? m[i][col + 1][row] : m[i][row][col + 1];
                assert_int_equal(out[lane][i], low | high << 16);
            }
        }
    }
    simt_free(device);
    simt_free(device_out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mma_s8_is_a_matrix_product),
        cmocka_unit_test(test_mma_s8_of_k16_is_half_of_it),
        cmocka_unit_test(test_ldmatrix_gives_lanes_their_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
