#include "COpenBLAS.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static openblas_table table;
static const openblas_table *loaded;
static char failure[512];

static void load(void) {
    openblas_choose_kernels();
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(failure, sizeof failure, "%s", dlerror());
        return;
    }
#define FIND(name)                                                                          \
    if (!(*(void **)&table.name = dlsym(library, #name))) {                                 \
        snprintf(failure, sizeof failure, "libopenblas.so.0 has no %s: it is another's", #name); \
        return;                                                                             \
    }
    FIND(cblas_sgemm)
    FIND(cblas_ssymm)
    FIND(cblas_ssyrk)
    FIND(cblas_ssyr)
    FIND(cblas_sgemv)
    FIND(cblas_saxpy)
    FIND(cblas_isamax)
    FIND(sgeqrf_)
    FIND(sorgqr_)
    FIND(ssyevd_)
    FIND(openblas_set_num_threads)
    FIND(openblas_get_num_threads)
    FIND(openblas_get_corename)
    loaded = &table;
}

const openblas_table *openblas_load(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return loaded;
}

const char *openblas_failure(void) { return openblas_load() ? "" : failure; }

const openblas_table *openblas(void) {
    const openblas_table *library = openblas_load();
    if (!library) {
        fprintf(stderr, "%s\n", failure);
        abort();
    }
    return library;
}
