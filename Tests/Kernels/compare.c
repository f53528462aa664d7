// Compares every table of kernels that this processor can run with the scalar one, on seeded input, and prints a digest of
// the scalar results: it must be the same on every architecture. `deploy/checks/kernels` builds and runs it.
#include "CKernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUADS = 37, TOKENS = 77, COMPONENTS = 90, ELEMENTS = 1003 };

static uint64_t state;
static uint32_t next_random(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}
static float next_float(void) { return ((float)(next_random() & 0xFFFFFF) - 8388608.0f) * (1.0f / 65536.0f); }

static uint64_t digest = 14695981039346656037u;
static void add(const void *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) digest = (digest ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
}

static int failures;
static void same(const char *table, const char *what, const void *a, const void *b, size_t count) {
    if (!memcmp(a, b, count)) return;
    printf("FAILED: %s of %s differs from scalar\n", what, table);
    failures++;
}

static uint16_t halves[65536], rounded[2][ELEMENTS];
static float floats[2][65536], rows[2][2 * ELEMENTS], scales[ELEMENTS], offsets[ELEMENTS], tiles[2][2 * KV_SLAB * KV_TILE];
static uint8_t packed[3 * QUADS * KV_TILE * KV_QUAD], turned[2][5][16 * KV_TILE * KV_QUAD];
static int16_t codes[COMPONENTS * TOKENS], decoded[COMPONENTS * TOKENS];
static int8_t quads[3][(QUADS + 16) * KV_QUAD * TOKENS];
static int32_t sums[3][TOKENS];
static kv_table symbols[4];
static uint16_t words[2 * (COMPONENTS * TOKENS + KV_MOST_LANES)];
static uint8_t bits[2 * COMPONENTS * TOKENS + 8];

static void conversions(const kv_kernels *k, int i) {
    for (int h = 0; h < 65536; h++) halves[h] = (uint16_t)h;
    k->convert.to_float(KV_F16, halves, floats[i], 65536);
    // NaNs may differ in their payload.
    for (int h = 0; h < 65536; h++)
        if (isnan(floats[i][h])) floats[i][h] = 0;
    float values[ELEMENTS];
    for (int n = 0; n < ELEMENTS; n++) values[n] = next_float() * (n % 7 ? 1.0f : 1e4f) * (n % 11 ? 1.0f : 1e-7f);
    k->convert.from_float(KV_F16, values, rounded[i], ELEMENTS);
    if (!i) add(floats[0], sizeof floats[0]), add(rounded[0], sizeof rounded[0]);
    same(k->name, "f16 to float", floats[0], floats[i], sizeof floats[0]);
    same(k->name, "float to f16", rounded[0], rounded[i], sizeof rounded[0]);
}

static void row_kernels(const kv_kernels *k, int i) {
    float frequencies[64], angles[128];
    for (int n = 0; n < 64; n++) frequencies[n] = ldexpf(next_float() + 130.0f, -8);
    kv_rotation_table(123456, frequencies, 64, angles);
    for (int n = 0; n < ELEMENTS; n++) rows[i][n] = next_float(), scales[n] = next_float(), offsets[n] = next_float();
    k->rows.scale_offset(rows[i], scales, offsets, ELEMENTS);
    k->rows.multiply(rows[i] + 3, 5, 29, scales, 27);
    k->rows.multiply(rows[i] + 200, 7, 90, scales, 16);
    kv_rotation rotations[] = {{1, 64, 1, 64, 0}, {200, 61, 2, 1, 0}, {400, 13, 1, 13, 4}, {500, 3, 2, 1, 0}};
    k->rows.rotate(rows[i], rotations, 4, angles, 1);
    k->rows.rotate(rows[i], rotations + 1, 2, angles, -1);
    if (!i) add(angles, sizeof angles), add(rows[0], ELEMENTS * sizeof(float));
    same(k->name, "scale, offset, matrix, rotation", rows[0], rows[i], ELEMENTS * sizeof(float));
}

static void transforms(const kv_kernels *k, int i) {
    for (size_t n = 0; n < sizeof packed; n++) packed[n] = (uint8_t)(next_random() % 5 ? next_random() : 255);
    uint32_t places[16];
    for (int n = 0; n < 16; n++) places[n] = (uint32_t)(n * 5 % 16);
    for (size_t n = 0; n < 5; n++)
        k->transform.turn(packed, QUADS, 8 * n, QUADS - 8 * n < 8 ? QUADS - 8 * n : 8, places, 2, turned[i][n]);
    if (!i) add(turned[0], sizeof turned[0]);
    same(k->name, "turned tile", turned[0], turned[i], sizeof turned[0]);
    const unsigned line = k->transform.line;
    int32_t components[QUADS * KV_QUAD];
    for (int n = 0; n < QUADS * KV_QUAD; n++) components[n] = n % COMPONENTS;
    for (int n = 0; n < COMPONENTS * TOKENS; n++) codes[n] = (int16_t)(next_random() % 16 ? (int)(next_random() % 17) - 8 : -8);
    kv_pack_codes(codes, TOKENS, components, QUADS * KV_QUAD, (kv_digits){0, 7, line, quads[0], sums[0]});
    kv_pack_codes(codes, TOKENS, components, 32, (kv_digits){0, 7, line, quads[1], sums[1]});
    kv_pack_codes(codes, TOKENS, components + 7, 11, (kv_digits){0, 7, line, quads[2], sums[2]});
    // Sums of one to three terms, of many digits and of few, more of them than any kernel makes at once.
    kv_term terms[] = {{quads[1], sums[1], 3, 8, 0, 0, 8},        {quads[0], sums[0], 0, QUADS, 0.37f, 7, 8},
                       {quads[1], sums[1], 5, 8, 1.25f, 0, 1},    {quads[2], sums[2], 9, 3, 0, 0, 1},
                       {quads[2], sums[2], QUADS - 3, 3, 0, 7, 8}, {quads[1], sums[1], QUADS - 8, 8, 0.5f, 7, 8},
                       {quads[2], sums[2], 1, 3, 3.5f, 0, 8},     {quads[1], sums[1], 0, 8, 0, 0, 8},
                       {quads[2], sums[2], 20, 3, 0.11f, 7, 8},   {quads[0], sums[0], 0, QUADS, 0, 0, 1},
                       {quads[0], sums[0], 0, QUADS, 0, 4, 1},    {quads[0], sums[0], 0, QUADS, 0.01f, 1, 1},
                       {quads[1], sums[1], 7, 8, 0.7f, 0, 8},     {quads[1], sums[1], 2, 8, 0.9f, 0, 8}};
    enum { TERMS = sizeof terms / sizeof *terms };
    for (int n = 0; n < 2 * KV_SLAB * KV_TILE; n++) tiles[i][n] = 1;
    for (uint32_t slab = 0; slab < 2; slab++) {
        uint32_t count = slab ? TOKENS - KV_SLAB : KV_SLAB;
        kv_inverse_job job = {packed, QUADS, terms, TERMS, slab, count, 0, count, tiles[i] + slab * KV_SLAB * KV_TILE, KV_TILE, NULL};
        k->transform.inverse(&job);
    }
    if (!i) add(tiles[0], sizeof tiles[0]);
    same(k->name, "inverse transform", tiles[0], tiles[i], sizeof tiles[0]);
}

static void make_symbols(void) {
    for (int t = 0; t < 4; t++) {
        uint16_t frequency[KV_SYMBOLS];
        for (int s = 0; s < KV_SYMBOLS; s++) frequency[s] = (uint16_t)(8 << t);
        frequency[KV_CENTRE] = (uint16_t)(4096 - (KV_SYMBOLS - 1) * (8 << t));
        kv_table_make(frequency, symbols + t);
    }
}

static void entropy(const kv_kernels *k, int i) {
    make_symbols();
    kv_rans_component components[COMPONENTS];
    int coded = 0;
    // Two of three sets of 30 have low bits.
    for (int c = 0; c < COMPONENTS; c++)
        if (c % 9) components[coded++] = (kv_rans_component){(uint32_t)c, (uint8_t)(c % 4), (uint8_t)(c / 30 % 3 ? c % 3 : 0), 0};
    for (int n = 0; n < COMPONENTS * TOKENS; n++) {
        int wild = next_random() % 500 == 0;
        codes[n] = (int16_t)(n / TOKENS % 9 == 0 ? 0 : (int)(next_random() % (wild ? 30000 : 19)) - (wild ? 15000 : 9));
    }
    for (unsigned lanes = 1; lanes <= KV_MOST_LANES; lanes += lanes < 5 ? 4 : 9) {
        kv_rans_chunk chunk = {symbols, components, (size_t)coded, TOKENS, lanes, NULL, 0};
        size_t capacity = sizeof words / 2, count = kv_rans_encode(&chunk, codes, words, capacity);
        if (!count) printf("FAILED: the encoder has too little room\n"), failures++;
        uint16_t largest[COMPONENTS] = {0};
        chunk.words = (const uint8_t *)(words + capacity - count);
        chunk.word_count = count;
        memset(decoded, 0, sizeof decoded);
        if (k->rans.decode(&chunk, decoded, largest)) memset(decoded, 1, sizeof decoded);
        if (!i) add(chunk.words, 2 * count), add(largest, sizeof largest);
        same(k->name, "rANS decoder", codes, decoded, sizeof codes);
        chunk.word_count--;
        if (!k->rans.decode(&chunk, decoded, largest))
            printf("FAILED: %s decodes a chunk that is cut short\n", k->name), failures++;
    }
    uint64_t costs[2] = {kv_scalar()->rans.cost(symbols + 1, codes, COMPONENTS * TOKENS, 2),
                         k->rans.cost(symbols + 1, codes, COMPONENTS * TOKENS, 2)};
    same(k->name, "cost", costs, costs + 1, sizeof *costs);
}

static void streams(const kv_kernels *k, int i) {
    make_symbols();
    kv_component components[COMPONENTS];
    for (int c = 0; c < COMPONENTS; c++) components[c] = (kv_component){c % 9 ? symbols + c % 4 : NULL, (uint8_t)(c % 3), 0};
    for (int n = 0; n < COMPONENTS * TOKENS; n++) {
        int wild = next_random() % 50 == 0;
        codes[n] = (int16_t)(n / TOKENS % 9 == 0 ? 0 : (int)(next_random() % (wild ? 30000 : 19)) - (wild ? 15000 : 9));
    }
    kv_stream_buffer coded = {words, sizeof words / 2, 0, bits, sizeof bits, 0};
    if (kv_stream_encode(codes, components, COMPONENTS, TOKENS, &coded))
        printf("FAILED: the encoder of streams has too little room\n"), failures++;
    size_t count = coded.word_count, bit_count = coded.bits_length;
    kv_stream stream = {components, COMPONENTS, TOKENS, (const uint8_t *)words, count, bits, bit_count};
    uint16_t largest[COMPONENTS];
    memset(decoded, 1, sizeof decoded);
    int result = k->rans.decode_stream(&stream, decoded, largest);
    if (result) memset(decoded, 1, sizeof decoded);
    if (!i) add(words, 2 * count), add(bits, bit_count), add(largest, sizeof largest);
    same(k->name, "decoder of streams", codes, decoded, sizeof codes);
    stream.word_count--;
    if (!k->rans.decode_stream(&stream, decoded, largest))
        printf("FAILED: %s decodes a stream that is cut short\n", k->name), failures++;
}

int main(void) {
    const kv_kernels *tables[] = {kv_scalar(), kv_avx2(), kv_avx512(), kv_amx(), kv_neon()};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
        if (!tables[t]) continue;
        for (uint64_t seed = 1; seed <= 20; seed++) {
            // The scalar side again for each seed, as the results of only two sides are kept.
            for (int i = 0; i < (t ? 2 : 1); i++) {
                const kv_kernels *k = i ? tables[t] : kv_scalar();
                uint64_t before = digest;
                void (*parts[])(const kv_kernels *, int) = {conversions, row_kernels, transforms, entropy, streams};
                for (size_t p = 0; p < 5; p++) state = seed * 1000 + p, parts[p](k, i);
                if (t) digest = before;
            }
        }
        printf("%s: %s\n", tables[t]->name, t ? "compared with scalar" : "digest follows");
    }
    printf("digest %016llx\n", (unsigned long long)digest);
    return failures ? 1 : 0;
}
