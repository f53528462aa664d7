#pragma once
// What calibration uses of OpenBLAS. The library is loaded when it is first needed: a program that multiplies no matrices does
// not carry its 36 MB and its threads, and its kernels can be chosen beforehand (kernels.c), which linking it would be too late for.

#include <stdbool.h>
#include <stdint.h>

// Values and signatures of the CBLAS interface (BLAS Technical Forum Standard, appendix B), LAPACK by its Fortran names.
typedef enum { CblasRowMajor = 101, CblasColMajor = 102 } openblas_order;
typedef enum { CblasNoTrans = 111, CblasTrans = 112 } openblas_transpose;
typedef enum { CblasUpper = 121, CblasLower = 122 } openblas_triangle;
typedef enum { CblasLeft = 141, CblasRight = 142 } openblas_side;

typedef struct {
    void (*cblas_sgemm)(openblas_order, openblas_transpose, openblas_transpose, int32_t m, int32_t n, int32_t k, float alpha,
                        const float *a, int32_t lda, const float *b, int32_t ldb, float beta, float *c, int32_t ldc);
    void (*cblas_ssymm)(openblas_order, openblas_side, openblas_triangle, int32_t m, int32_t n, float alpha, const float *a,
                        int32_t lda, const float *b, int32_t ldb, float beta, float *c, int32_t ldc);
    void (*cblas_ssyrk)(openblas_order, openblas_triangle, openblas_transpose, int32_t n, int32_t k, float alpha, const float *a,
                        int32_t lda, float beta, float *c, int32_t ldc);
    void (*cblas_ssyr)(openblas_order, openblas_triangle, int32_t n, float alpha, const float *x, int32_t incx, float *a,
                       int32_t lda);
    void (*cblas_sgemv)(openblas_order, openblas_transpose, int32_t m, int32_t n, float alpha, const float *a, int32_t lda,
                        const float *x, int32_t incx, float beta, float *y, int32_t incy);
    void (*cblas_saxpy)(int32_t n, float alpha, const float *x, int32_t incx, float *y, int32_t incy);
    uint64_t (*cblas_isamax)(int32_t n, const float *x, int32_t incx);
    void (*sgeqrf_)(const int32_t *m, const int32_t *n, float *a, const int32_t *lda, float *tau, float *work,
                    const int32_t *lwork, int32_t *info);
    void (*sorgqr_)(const int32_t *m, const int32_t *n, const int32_t *k, float *a, const int32_t *lda, const float *tau,
                    float *work, const int32_t *lwork, int32_t *info);
    void (*ssyevd_)(const char *job, const char *uplo, const int32_t *n, float *a, const int32_t *lda, float *w, float *work,
                    const int32_t *lwork, int32_t *iwork, const int32_t *liwork, int32_t *info);
    void (*openblas_set_num_threads)(int32_t);
    int32_t (*openblas_get_num_threads)(void);
    // Names the kernels in use, such as "SkylakeX".
    char *(*openblas_get_corename)(void);
} openblas_table;

// The loaded library, or NULL where it can't be. Any thread may call it, and all get the same.
const openblas_table *openblas_load(void);
// Why openblas_load returns NULL, in the words of the dynamic loader.
const char *openblas_failure(void);
// The loaded library; ends the program where there is none.
const openblas_table *openblas(void);

// The name of the fastest of OpenBLAS's float32 kernels that this processor and its operating system can run; NULL where the
// library is left to choose.
const char *openblas_best_kernels(void);
// Has the library take those when it is loaded, unless OPENBLAS_CORETYPE says which.
void openblas_choose_kernels(void);

// Multiplies and adds in registers with the widest instructions of this processor, `rounds` times; returns the floating-point
// operations that it was. Two a lane and instruction where they are fused, as the processor's peak is counted.
double openblas_peak_loop(uint64_t rounds);

static inline void cblas_sgemm(openblas_order order, openblas_transpose ta, openblas_transpose tb, int32_t m, int32_t n, int32_t k,
                               float alpha, const float *a, int32_t lda, const float *b, int32_t ldb, float beta, float *c,
                               int32_t ldc) {
    openblas()->cblas_sgemm(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
static inline void cblas_ssymm(openblas_order order, openblas_side side, openblas_triangle half, int32_t m, int32_t n, float alpha,
                               const float *a, int32_t lda, const float *b, int32_t ldb, float beta, float *c, int32_t ldc) {
    openblas()->cblas_ssymm(order, side, half, m, n, alpha, a, lda, b, ldb, beta, c, ldc);
}
static inline void cblas_ssyrk(openblas_order order, openblas_triangle half, openblas_transpose t, int32_t n, int32_t k,
                               float alpha, const float *a, int32_t lda, float beta, float *c, int32_t ldc) {
    openblas()->cblas_ssyrk(order, half, t, n, k, alpha, a, lda, beta, c, ldc);
}
static inline void cblas_ssyr(openblas_order order, openblas_triangle half, int32_t n, float alpha, const float *x, int32_t incx,
                              float *a, int32_t lda) {
    openblas()->cblas_ssyr(order, half, n, alpha, x, incx, a, lda);
}
static inline void cblas_sgemv(openblas_order order, openblas_transpose t, int32_t m, int32_t n, float alpha, const float *a,
                               int32_t lda, const float *x, int32_t incx, float beta, float *y, int32_t incy) {
    openblas()->cblas_sgemv(order, t, m, n, alpha, a, lda, x, incx, beta, y, incy);
}
static inline void cblas_saxpy(int32_t n, float alpha, const float *x, int32_t incx, float *y, int32_t incy) {
    openblas()->cblas_saxpy(n, alpha, x, incx, y, incy);
}
static inline uint64_t cblas_isamax(int32_t n, const float *x, int32_t incx) { return openblas()->cblas_isamax(n, x, incx); }
static inline void sgeqrf_(const int32_t *m, const int32_t *n, float *a, const int32_t *lda, float *tau, float *work,
                           const int32_t *lwork, int32_t *info) {
    openblas()->sgeqrf_(m, n, a, lda, tau, work, lwork, info);
}
static inline void sorgqr_(const int32_t *m, const int32_t *n, const int32_t *k, float *a, const int32_t *lda, const float *tau,
                           float *work, const int32_t *lwork, int32_t *info) {
    openblas()->sorgqr_(m, n, k, a, lda, tau, work, lwork, info);
}
static inline void ssyevd_(const char *job, const char *uplo, const int32_t *n, float *a, const int32_t *lda, float *w,
                           float *work, const int32_t *lwork, int32_t *iwork, const int32_t *liwork, int32_t *info) {
    openblas()->ssyevd_(job, uplo, n, a, lda, w, work, lwork, iwork, liwork, info);
}
static inline void openblas_set_num_threads(int32_t threads) { openblas()->openblas_set_num_threads(threads); }
static inline int32_t openblas_get_num_threads(void) { return openblas()->openblas_get_num_threads(); }
static inline const char *openblas_get_corename(void) { return openblas()->openblas_get_corename(); }
