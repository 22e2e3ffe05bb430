/* test_gemm.h: the part of test.c that is about gemm.cu. */
#ifndef ARGOSY_KERNELS_MATMUL_TEST_GEMM_H
#define ARGOSY_KERNELS_MATMUL_TEST_GEMM_H

/* The number of tests that failed. */
int test_gemm(void);

#endif
