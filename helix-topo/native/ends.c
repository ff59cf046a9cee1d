// Keys of symbols with values, sorted from their ends: those that share an end with a query lie side by side.

#include <math.h>
#include <string.h>

#include "export.h"

// Arrays by slot, but `order`: slots by their keys read backwards. counts: entries, the next serial, ids given.
typedef struct {
    uint8_t *keys, *values;
    int64_t *order, *ids, *serials, *counts;
    double *times, *stabilities;
    int64_t d_key, value_bytes, capacity;
    double growth;
} Ends;

enum { ENTRIES, SERIAL, NEXT_ID, MERGED, EVICTED };

static int64_t shared_end(const uint8_t *a, const uint8_t *b, int64_t d_key) {
    int64_t n = 0;
    while (n < d_key && a[d_key - 1 - n] == b[d_key - 1 - n]) n++;
    return n;
}

static int is_before(const uint8_t *a, const uint8_t *b, int64_t d_key) {
    int64_t n = shared_end(a, b, d_key);
    return n < d_key && a[d_key - 1 - n] < b[d_key - 1 - n];
}

static const uint8_t *key_at(const Ends *e, int64_t place) { return e->keys + e->order[place] * e->d_key; }

// The first place whose key is not before the given one.
static int64_t place_of(const Ends *e, const uint8_t *key) {
    int64_t low = 0, high = e->counts[ENTRIES];
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (is_before(key_at(e, middle), key, e->d_key)) low = middle + 1;
        else high = middle;
    }
    return low;
}

// The slot of the lowest retrievability, which falls with age / stability; of equals the one written first.
static int64_t victim_of(const Ends *e, double time) {
    int64_t victim = 0;
    double worst = -1;
    for (int64_t slot = 0; slot < e->capacity; slot++) {
        double staleness = (time - e->times[slot]) / e->stabilities[slot];
        if (staleness > worst || (staleness == worst && e->serials[slot] < e->serials[victim]))
            worst = staleness, victim = slot;
    }
    return victim;
}

static void move_out(Ends *e, int64_t place) {
    int64_t behind = --e->counts[ENTRIES] - place;
    memmove(e->order + place, e->order + place + 1, (size_t)behind * sizeof *e->order);
}

static int64_t insert(Ends *e, const uint8_t *key, double time) {
    int64_t slot = e->counts[ENTRIES];
    if (slot == e->capacity) {
        slot = victim_of(e, time);
        move_out(e, place_of(e, e->keys + slot * e->d_key));
        e->counts[EVICTED]++;
    }
    int64_t place = place_of(e, key);
    memmove(e->order + place + 1, e->order + place, (size_t)(e->counts[ENTRIES]++ - place) * sizeof *e->order);
    e->order[place] = slot;
    memcpy(e->keys + slot * e->d_key, key, (size_t)e->d_key);
    e->ids[slot] = e->counts[NEXT_ID]++;
    e->stabilities[slot] = 1;
    return slot;
}

// What a correct recall multiplies a stability by.
static double gain_of(double elapsed, double stability, double growth) {
    double retrievability = 1 / sqrt(1 + 19.0 / 81 * elapsed / stability);
    return 1 + growth * (exp(1 - retrievability) - 1);
}

// Remembers n values by keys, one after another. A key that is known gets the new value, and is recalled:
// correctly where the old value was the same.
HELIX_EXPORT void helix_topo_ends_write(Ends *e, const uint8_t *keys, const uint8_t *values, int64_t n, double time,
                                        int64_t *ids) {
    for (int64_t i = 0; i < n; i++, keys += e->d_key, values += e->value_bytes) {
        int64_t place = place_of(e, keys), slot;
        int known = place < e->counts[ENTRIES] && shared_end(key_at(e, place), keys, e->d_key) == e->d_key;
        if (known) {
            slot = e->order[place];
            int right = !memcmp(e->values + slot * e->value_bytes, values, (size_t)e->value_bytes);
            double elapsed = time - e->times[slot];
            e->stabilities[slot] *= right ? gain_of(elapsed, e->stabilities[slot], e->growth) : 0.4;
            e->counts[MERGED]++;
        } else {
            slot = insert(e, keys, time);
        }
        memcpy(e->values + slot * e->value_bytes, values, (size_t)e->value_bytes);
        e->times[slot] = time;
        e->serials[slot] = e->counts[SERIAL]++;
        ids[i] = e->ids[slot];
    }
}

// Puts one more find among the best so far, by length and then the later serial; returns how many there are.
static int64_t keep(const Ends *e, int64_t slot, int64_t length, int64_t *slots, int64_t *lengths, int64_t found,
                    int64_t k) {
    int64_t at = found < k ? found++ : k;
    for (; at > 0; at--) {
        int64_t above = slots[at - 1];
        if (lengths[at - 1] > length || (lengths[at - 1] == length && e->serials[above] > e->serials[slot])) break;
        if (at < k) slots[at] = above, lengths[at] = lengths[at - 1];
    }
    if (at < k) slots[at] = slot, lengths[at] = length;
    return found;
}

// Finds the k slots whose keys share the longest ends with a query: from where it would stand to both sides,
// until what lies there shares less than the k-th.
static void find(const Ends *e, const uint8_t *query, int64_t k, int64_t *slots, int64_t *lengths) {
    int64_t right = place_of(e, query), left = right - 1, found = 0, n = e->counts[ENTRIES];
    for (;;) {
        int64_t on_left = left < 0 ? 0 : shared_end(key_at(e, left), query, e->d_key);
        int64_t on_right = right >= n ? 0 : shared_end(key_at(e, right), query, e->d_key);
        int64_t most = on_left > on_right ? on_left : on_right;
        if (!most || (found == k && most < lengths[k - 1])) return;
        int64_t place = on_left > on_right ? left-- : right++;
        found = keep(e, e->order[place], most, slots, lengths, found, k);
    }
}

// slots, lengths: (n, k), of which those without a find keep their -1 and 0.
HELIX_EXPORT void helix_topo_ends_read(const Ends *e, const uint8_t *queries, int64_t n, int64_t k, int64_t *slots,
                                       int64_t *lengths) {
    for (int64_t i = 0; i < n; i++) find(e, queries + i * e->d_key, k, slots + i * k, lengths + i * k);
}
