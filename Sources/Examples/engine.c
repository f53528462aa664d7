// An engine's turn with libkvtc: brings back what kvtcd has of a prompt's cache, computes the rest, and hands that over.
//
//     cc -Wall -Wextra -Werror -o engine engine.c $(pkg-config --cflags --libs kvtc) && ./engine && ./engine
//
// The second run finds what the first one left. Without kvtcd both compute everything: none of this fails for want of it.
#include <kvtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The model: four layers with two heads of 16 values each for K and V, kept as f16.
enum { LAYERS = 4, HEADS = 2, HEAD_DIM = 16, PAGE_TOKENS = 16, PAGES = 8, TOKENS = PAGES * PAGE_TOKENS };
enum { LAYER_BYTES = 2 * 2 * HEADS * HEAD_DIM * PAGE_TOKENS, PAGE_BYTES = LAYERS * LAYER_BYTES };

// What an engine keeps: for every page, layer after layer, K and V of the page's tokens.
static uint8_t cache[PAGES][LAYERS][LAYER_BYTES];

// Called with some layers of a page as they arrive: an engine with its own layout takes them apart here.
static void place(void *context, size_t page, uint16_t begin, uint16_t end, const void *bytes, size_t length) {
    (void)context, (void)end;
    if (begin * (size_t)LAYER_BYTES + length <= PAGE_BYTES) memcpy(cache[page][begin], bytes, length);
}

// Stands for the model: numbers between 1 and 2 that depend on layer and position.
static void compute(size_t page) {
    for (int layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < LAYER_BYTES; i += 2) {
            cache[page][layer][i] = (uint8_t)(i / 2 + page + 16 * (size_t)layer);
            cache[page][layer][i + 1] = 0x3C;
        }
}

int main(void) {
    kvtc_tensor tensors[2 * LAYERS];
    float frequencies[HEAD_DIM / 2];
    kvtc_fill_tensors(tensors, LAYERS, HEADS, HEAD_DIM, KVTC_ROPE_HALF_SPLIT);
    for (int i = 0; i < HEAD_DIM / 2; i++) frequencies[i] = 1.0f / (float)(1 << i);

    kvtc_options options;
    kvtc_options_init(&options);
    options.name = "example engine";
    // A digest of the weights' files, adapters, scales, rank: whatever the values depend on besides the tokens.
    options.identity = (const uint8_t *)"example-weights-sha256-0123456789";
    options.identity_bytes = 32;
    options.tensors = tensors, options.tensor_count = 2 * LAYERS;
    options.rope_frequencies = frequencies, options.rope_frequency_count = HEAD_DIM / 2;
    options.grouping = KVTC_LAYER_PAIRS;
    options.page_tokens = PAGE_TOKENS;

    kvtc_session *session = NULL;
    kvtc_status status = kvtc_open(&options, &session);
    if (status != KVTC_OK) fprintf(stderr, "%s\n", kvtc_error());
    // Unavailable: the session is there all the same, and looks for kvtcd again later.
    if (!session) return 1;

    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++) tokens[i] = i;
    kvtc_key keys[PAGES];
    if (kvtc_page_keys(tokens, TOKENS, PAGE_TOKENS, NULL, NULL, keys) != KVTC_OK) return 1;

    // The lease keeps what was found until it is here.
    size_t found = 0, restored = 0;
    uint64_t lease = 0;
    uint8_t outcomes[PAGES];
    memset(outcomes, KVTC_MISS, sizeof outcomes);
    kvtc_lookup(session, keys, PAGES, 10000, &found, &lease, NULL);
    // The first layer of all pages comes first: the engine could begin while the others are on their way.
    if (found) kvtc_pull(session, keys, found, lease, 1, place, NULL, outcomes);
    kvtc_release(session, lease);
    while (restored < PAGES && outcomes[restored] == KVTC_HIT) restored++;

    kvtc_page pages[PAGES];
    for (size_t page = restored; page < PAGES; page++) {
        compute(page);
        pages[page] = (kvtc_page){keys[page], (uint32_t)page * PAGE_TOKENS, PAGE_TOKENS, cache[page]};
    }
    size_t stored = 0;
    if (restored < PAGES) kvtc_push(session, pages + restored, PAGES - restored, outcomes + restored);
    for (size_t page = restored; page < PAGES; page++) stored += outcomes[page] == KVTC_STORED;
    kvtc_close(session);

    // What came back is what was computed then.
    static uint8_t back[PAGES][LAYERS][LAYER_BYTES];
    memcpy(back, cache, sizeof back);
    for (size_t page = 0; page < PAGES; page++) compute(page);
    if (memcmp(back, cache, sizeof back) != 0) {
        fprintf(stderr, "other bytes came back\n");
        return 1;
    }
    printf("%zu pages restored, %zu computed, %zu stored\n", restored, PAGES - restored, stored);
}
