// The longest end of what came that a fixed text knows: look-up in the suffix array of the text read backwards.

#include <string.h>

#include "export.h"

enum { EVERY = 1024 };  // a row of counts stands at every 1024th place of the suffix array

// text: backwards, n symbols; order: its suffix array; next: by place of `order`, what came after that end in the
// text read forwards; counts: (n / EVERY + 1, 256) of each symbol before that place.
typedef struct {
    const uint8_t *text, *next;
    const int32_t *order;
    const uint32_t *counts;
    int64_t n;
} Suffixes;

// Fills `next` and `counts`; `text` has one more symbol before it, which the last end was followed by.
HELIX_EXPORT void helix_topo_suffixes_build(const uint8_t *text, const int32_t *order, int64_t n, uint8_t *next,
                                            uint32_t *counts) {
    uint32_t so_far[256] = {0};
    for (int64_t i = 0; i < n; i++) {
        if (i % EVERY == 0) memcpy(counts + i / EVERY * 256, so_far, sizeof so_far);
        so_far[next[i] = text[order[i] - 1]]++;
    }
}

// How many symbols the query, which goes backwards, shares with the suffix at a place, `length` at most.
static int64_t shared(const Suffixes *s, int64_t place, const uint8_t *end, int64_t length) {
    const uint8_t *suffix = s->text + s->order[place];
    int64_t most = s->n - s->order[place], i = 0;
    if (most > length) most = length;
    while (i < most && suffix[i] == end[-i]) i++;
    return i;
}

static int is_below(const Suffixes *s, int64_t place, const uint8_t *end, int64_t length, int or_equal) {
    int64_t i = shared(s, place, end, length), start = s->order[place];
    if (i == length) return or_equal;
    return start + i == s->n || s->text[start + i] < end[-i];
}

// The first place whose suffix is not below the query (or_equal: is above it and all that begin with it).
static int64_t bound(const Suffixes *s, int64_t low, int64_t high, const uint8_t *end, int64_t length, int or_equal) {
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (is_below(s, middle, end, length, or_equal)) low = middle + 1;
        else high = middle;
    }
    return low;
}

// The longest end of at most `length` symbols that `least` suffixes or more begin with: they lie side by side, and
// what they share with the query falls to both sides of where it would stand.
static int64_t longest(const Suffixes *s, const uint8_t *end, int64_t length, int64_t least) {
    int64_t place = bound(s, 0, s->n, end, length, 0), best = 0;
    for (int64_t first = place - least; first <= place; first++) {
        if (first < 0 || first + least > s->n) continue;
        int64_t left = shared(s, first, end, length), right = shared(s, first + least - 1, end, length);
        int64_t least_shared = left < right ? left : right;
        if (least_shared > best) best = least_shared;
    }
    return best;
}

static void count_before(const Suffixes *s, int64_t place, int64_t sign, int64_t *counts) {
    int64_t row = place / EVERY;
    for (int64_t v = 0; v < 256; v++) counts[v] += sign * s->counts[row * 256 + v];
    for (int64_t i = row * EVERY; i < place; i++) counts[s->next[i]] += sign;
}

// For each of n places of a row of `start` symbols of context and n of its own: how long the longest motif is that
// ends there, how often it came, and how often each symbol followed it (n, 256), all 0 where there is none.
HELIX_EXPORT void helix_topo_suffixes_find(const Suffixes *s, const uint8_t *row, int64_t start, int64_t n,
                                           int64_t least, int64_t *lengths, int64_t *totals, int64_t *counts) {
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *end = row + start + i;
        int64_t length = longest(s, end, start + i + 1, least);
        lengths[i] = length, totals[i] = 0;
        if (!length) continue;
        int64_t low = bound(s, 0, s->n, end, length, 0), high = bound(s, low, s->n, end, length, 1);
        totals[i] = high - low;
        count_before(s, high, 1, counts + i * 256);
        count_before(s, low, -1, counts + i * 256);
    }
}
