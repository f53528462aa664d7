#include "x86.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,amx-tile,amx-int8")))

int amx_is_allowed(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    const unsigned tiles = 1u << 24, int8 = 1u << 25;
    // Linux gives the eight kilobytes of tiles to processes that ask for them: ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA.
    return (d & tiles) && (d & int8) && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

enum { ROWS = 16, COLUMNS = 16 }; // of a tile register of int32

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} configuration;

// Registers 0 to 3 hold sums and 4 and 5 codes, of `upper` and `lower` tokens; 6 and 7 hold digits, of which columns 0 and 16 are
// the first.
AMX static void configure(int upper, int lower) {
    configuration all = {.palette = 1};
    const int rows[8] = {upper, upper, lower, lower, upper, lower, AMX_LINE, AMX_LINE};
    for (int i = 0; i < 8; i++) all.row_bytes[i] = 64, all.rows[i] = (uint8_t)(rows[i] ? rows[i] : 1);
    _tile_loadconfig(&all);
}

// One line of digits, 32 columns. Behind the tile's last quad nothing may be read; codes are zero there.
AMX static inline __attribute__((always_inline)) void load_digits(const kv_inverse_job *job, size_t quad) {
    const uint8_t *digits = job->tile + quad * TILE_QUAD;
    uint8_t rest[AMX_LINE * TILE_QUAD];
    if (job->quads - quad < AMX_LINE) {
        memcpy(rest, digits, (job->quads - quad) * TILE_QUAD);
        digits = rest;
    }
    _tile_loadd(6, digits, TILE_QUAD);
    _tile_loadd(7, digits + TILE_QUAD / 2, TILE_QUAD);
}

// Few digits are multiplied sooner in vector registers, where they are needed next.
enum { FEW = 4 };
// Terms' products wait together in the core's own cache, those of one sum at least.
enum { MOST = KV_MOST_PARTS };

typedef int32_t kv_products[2 * ROWS][KV_TILE];

static size_t lines_of(kv_term term) { return (term.quads + AMX_LINE - 1) / AMX_LINE; }
static const int8_t *codes_of(const kv_inverse_job *job, kv_term term, uint32_t first) {
    return term.codes + ((size_t)job->slab * KV_SLAB * lines_of(term) + first) * (AMX_LINE * KV_QUAD);
}

// products[token][32] of one term for up to 32 tokens from `first` on.
AMX static inline __attribute__((always_inline)) void multiply(const int blocks, const kv_inverse_job *job, kv_term term,
                                                               uint32_t first, uint32_t near, kv_ahead *ahead,
                                                               kv_products products) {
    enum { LINE_BYTES = AMX_LINE * KV_QUAD };
    const int8_t *codes = codes_of(job, term, first);
    _tile_zero(0);
    _tile_zero(1);
    if (blocks == 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t line = 0; line < lines_of(term); line++, codes += job->tokens * LINE_BYTES) {
        for (uint32_t i = 0; i < near && ahead->next < ahead->lines; i++, ahead->next++)
            _mm_prefetch((const char *)(ahead->at + ahead->next / 16 * ahead->stride + ahead->next % 16 * 64), _MM_HINT_T1);
        load_digits(job, term.first + line * AMX_LINE);
        _tile_loadd(4, codes, LINE_BYTES);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        if (blocks == 1) continue;
        _tile_loadd(5, codes + ROWS * LINE_BYTES, LINE_BYTES);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(0, products, KV_TILE * sizeof(int32_t));
    _tile_stored(1, products[0] + COLUMNS, KV_TILE * sizeof(int32_t));
    if (blocks == 1) return;
    _tile_stored(2, products[ROWS], KV_TILE * sizeof(int32_t));
    _tile_stored(3, products[ROWS] + COLUMNS, KV_TILE * sizeof(int32_t));
}

// Adds whole sums, the terms first…end, to some tokens from `done` on.
AMX static inline __attribute__((always_inline)) void add(const int tokens, const kv_inverse_job *job, size_t first, size_t end,
                                                          uint32_t done, uint32_t token, kv_products *products) {
    __m512 target[4][2];
    __m512i sum[4][2];
    float *to = job->target + (size_t)(done + token) * job->stride;
    const uint32_t in_slab = job->first + done + token;
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < 2; h++) {
            target[t][h] = _mm512_loadu_ps(to + t * job->stride + h * COLUMNS);
            sum[t][h] = _mm512_setzero_si512();
        }
    for (size_t i = first; i < end; i++) {
        const kv_term term = job->terms[i];
        const __m128i shift = _mm_cvtsi32_si128(term.shift);
        const int32_t *sums = term.sums + job->slab * KV_SLAB + in_slab;
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++)
                // The digits are 128 too large each.
                sum[t][h] = _mm512_sub_epi32(_mm512_sll_epi32(sum[t][h], shift), _mm512_set1_epi32(128 * sums[t]));
        if (term.quads > FEW) {
#pragma clang loop unroll(full)
            for (int t = 0; t < tokens; t++)
                for (int h = 0; h < 2; h++)
                    sum[t][h] = _mm512_add_epi32(sum[t][h], _mm512_load_si512((*products)[token + t] + h * COLUMNS));
            products++;
        } else {
            const uint8_t *digits = job->tile + term.first * (size_t)TILE_QUAD;
            const int8_t *codes = codes_of(job, term, in_slab);
            for (uint32_t q = 0; q < term.quads; q++, digits += TILE_QUAD, codes += KV_QUAD) {
                const __m512i left = _mm512_loadu_si512(digits), right = _mm512_loadu_si512(digits + 64);
#pragma clang loop unroll(full)
                for (int t = 0; t < tokens; t++) {
                    int32_t quad;
                    memcpy(&quad, codes + t * (AMX_LINE * KV_QUAD), sizeof quad);
                    const __m512i code = _mm512_set1_epi32(quad);
                    sum[t][0] = _mm512_dpbusd_epi32(sum[t][0], left, code);
                    sum[t][1] = _mm512_dpbusd_epi32(sum[t][1], right, code);
                }
            }
        }
        if (term.scale == 0) continue;
        const __m512 scale = _mm512_set1_ps(term.scale);
#pragma clang loop unroll(full)
        for (int t = 0; t < tokens; t++)
            for (int h = 0; h < 2; h++) {
                target[t][h] = _mm512_add_ps(target[t][h], _mm512_mul_ps(_mm512_cvtepi32_ps(sum[t][h]), scale));
                sum[t][h] = _mm512_setzero_si512();
            }
    }
#pragma clang loop unroll(full)
    for (int t = 0; t < tokens; t++)
        for (int h = 0; h < 2; h++) _mm512_storeu_ps(to + t * job->stride + h * COLUMNS, target[t][h]);
}

AMX static void group(const kv_inverse_job *job, uint32_t done, uint32_t count, kv_ahead *ahead) {
    kv_products products[MOST] __attribute__((aligned(64)));
    // Of what is needed next, so that it has come when all tokens have passed.
    const uint32_t near = 2 * AMX_LINE * 2 * ROWS / (job->count < 2 * ROWS ? 2 * ROWS : job->count);
    for (size_t i = 0, end; i < job->term_count; i = end) {
        size_t used = 0;
        end = i;
        for (size_t next = i, room = 0; next < job->term_count;) {
            do room += job->terms[next].quads > FEW;
            while (job->terms[next++].scale == 0 && next < job->term_count);
            if (room > MOST && end > i) break;
            end = next;
        }
        for (size_t j = i; j < end; j++) {
            if (job->terms[j].quads <= FEW) continue;
            if (count > ROWS) multiply(2, job, job->terms[j], job->first + done, near, ahead, products[used++]);
            else multiply(1, job, job->terms[j], job->first + done, near, ahead, products[used++]);
        }
        uint32_t token = 0;
        for (; token + 4 <= count; token += 4) add(4, job, i, end, done, token, products);
        for (; token < count; token++) add(1, job, i, end, done, token, products);
    }
}

void amx_inverse(const kv_inverse_job *job) {
    kv_ahead nothing = {0}, *ahead = job->ahead ? job->ahead : &nothing;
    const uint32_t whole = job->count / (2 * ROWS) * 2 * ROWS, rest = job->count - whole;
    if (whole) configure(ROWS, ROWS);
    for (uint32_t done = 0; done < whole; done += 2 * ROWS) group(job, done, 2 * ROWS, ahead);
    if (rest) {
        configure(rest < ROWS ? (int)rest : ROWS, rest > ROWS ? (int)rest - ROWS : 0);
        group(job, whole, rest, ahead);
    }
    // What a thread leaves in its tiles is saved whenever another one takes its place.
    __asm__ volatile("tilerelease");
}
#endif
