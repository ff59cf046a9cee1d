// Which entry of a full memory gives way: by recency, by count, by estimated frequency, or by stability.

#include <math.h>
#include <string.h>

#include "export.h"
#include "slot_keys.h"
#include "slot_lists.h"

enum { LRU, LFU, TINY_LFU, FSRS };
enum { WINDOW, PROBATION, PROTECTED };
enum { EVENTS, USED, COUNTED, SERIAL };  // `counters`
enum { ROWS = 4, MOST = 15 };            // of the sketch

#define FACTOR (19.0 / 81.0)  // makes the retrievability 0.9 where the time that passed is the stability
#define PER_OCTAVE 4          // classes of stability

typedef struct {
    SlotLists lists;
    SlotKeys keys;
    int64_t *count;  // recalls, by slot as all that follows up to `n_gaps`
    double *stability, *recalled_at, *saved;
    int64_t *n_saved;
    uint64_t *before;
    double *phase_sum;  // (capacity, 2)
    int64_t *n_gaps;
    uint8_t *sketch;    // (ROWS, width): about how often keys came lately
    int64_t *counters;
    int64_t capacity, n_lists, kind, by_events;
    int64_t width, sample, window, protects;
    double initial, growth, lapse, w_evidence, w_context, w_phase, w_frequency;
} Policy;

static uint8_t *cell_of(const Policy *p, uint64_t key, int row) {
    uint64_t hash = mixed(key + (uint64_t)row * 0x9E3779B97F4A7C15u);
    return p->sketch + row * p->width + (int64_t)(hash & (uint64_t)(p->width - 1));
}

static int estimate(const Policy *p, uint64_t key) {
    int least = MOST;
    for (int row = 0; row < ROWS; row++) {
        int count = *cell_of(p, key, row);
        if (count < least) least = count;
    }
    return least;
}

// Counts a key in those of its cells that are lowest; after a sample all are halved, so that old counts fade.
static void count_key(const Policy *p, uint64_t key) {
    int least = estimate(p, key);
    for (int row = 0; row < ROWS && least < MOST; row++) {
        uint8_t *cell = cell_of(p, key, row);
        if (*cell == least) ++*cell;
    }
    if (++p->counters[COUNTED] < p->sample) return;
    for (int64_t i = 0; i < ROWS * p->width; i++) p->sketch[i] >>= 1;
    p->counters[COUNTED] /= 2;
}

static int32_t class_of(const Policy *p, double stability) {
    double class = floor(log2(stability / p->initial) * PER_OCTAVE + 0.5) + (double)(p->n_lists / 4);
    return class < 0 ? 0 : class >= (double)p->n_lists ? (int32_t)p->n_lists - 1 : (int32_t)class;
}

static double phase_of(const Policy *p, int32_t slot) {
    if (p->n_gaps[slot] < 2) return 0;
    return fmin(1, hypot(p->phase_sum[2 * slot], p->phase_sum[2 * slot + 1]) / (double)p->n_gaps[slot]);
}

static double context_of(const Policy *p, int32_t slot) {
    int empty = 64 - __builtin_popcountll(p->before[slot]);
    return 1 - 1 / (1 - 64 * log((empty ? empty : 1) / 64.0));
}

static void add_gap(const Policy *p, int32_t slot, double elapsed) {
    if (elapsed <= 0) return;
    double phase = 2 * 3.14159265358979323846 * log2(elapsed);
    p->phase_sum[2 * slot] += cos(phase);
    p->phase_sum[2 * slot + 1] += sin(phase);
    p->n_gaps[slot]++;
}

// stability.py has the formula, and ledger.py the same in Python.
static double strengthened(const Policy *p, int32_t slot, double elapsed) {
    double stability = p->stability[slot], recalled = 1 / sqrt(1 + FACTOR * elapsed / stability);
    double gain = p->growth * expm1(1 - recalled);
    if (p->w_evidence > 0 && p->saved[slot] > 0)
        gain *= 1 + p->w_evidence * p->saved[slot] / (double)p->n_saved[slot];
    if (p->w_context > 0) gain *= 1 + p->w_context * context_of(p, slot);
    if (p->w_phase > 0) gain *= 1 + p->w_phase * phase_of(p, slot);
    return stability * (1 + gain);
}

static void forget(const Policy *p, int32_t slot) {
    list_remove(&p->lists, slot);
    p->count[slot] = 0;
    if (p->kind != FSRS) return;
    p->stability[slot] = p->recalled_at[slot] = p->saved[slot] = 0;
    p->n_saved[slot] = p->n_gaps[slot] = 0;
    p->before[slot] = 0;
    p->phase_sum[2 * slot] = p->phase_sum[2 * slot + 1] = 0;
}

static double now(const Policy *p, double time) {
    double event = (double)++p->counters[EVENTS];
    return p->by_events ? event : time;
}

static void add(const Policy *p, int32_t slot, uint64_t key, double time) {
    forget(p, slot);
    time = now(p, time);
    int counts = p->kind == TINY_LFU || p->w_frequency > 0;
    if (counts) {
        p->keys.key[slot] = key;
        count_key(p, key);
    }
    if (p->kind == FSRS) {
        // What was here before and is asked for again is no stranger.
        int came = counts ? estimate(p, key) : 0;
        p->stability[slot] = p->initial * (1 + p->w_frequency * (came > 1 ? came - 1 : 0));
        p->recalled_at[slot] = time;
    }
    list_append(&p->lists, slot, p->kind == FSRS ? class_of(p, p->stability[slot]) : 0);
    if (p->kind == TINY_LFU && p->lists.length[WINDOW] > p->window)
        list_append(&p->lists, p->lists.oldest[WINDOW], PROBATION);
}

static void recall_in_segments(const Policy *p, int32_t slot) {
    int32_t list = p->lists.list[slot];
    count_key(p, p->keys.key[slot]);
    list_append(&p->lists, slot, list == WINDOW ? WINDOW : PROTECTED);
    if (p->lists.length[PROTECTED] > p->protects) list_append(&p->lists, p->lists.oldest[PROTECTED], PROBATION);
}

static void recall_stable(const Policy *p, int32_t slot, double time, int correct) {
    double elapsed = time - p->recalled_at[slot];
    if (p->w_frequency > 0) count_key(p, p->keys.key[slot]);
    add_gap(p, slot, elapsed);
    p->stability[slot] = correct ? strengthened(p, slot, elapsed) : p->lapse * p->stability[slot];
    p->recalled_at[slot] = time;
    list_append(&p->lists, slot, class_of(p, p->stability[slot]));
}

// A wrong recall is news to a stability only.
static void recall(const Policy *p, int32_t slot, double time, int correct) {
    if (p->lists.list[slot] == NOWHERE || (!correct && p->kind != FSRS)) return;
    time = now(p, time);
    p->count[slot] += correct;
    if (p->kind == LRU) list_append(&p->lists, slot, 0);
    if (p->kind == LFU) {
        int64_t last = p->n_lists - 1;
        list_append(&p->lists, slot, (int32_t)(p->count[slot] < last ? p->count[slot] : last));
    }
    if (p->kind == TINY_LFU) recall_in_segments(p, slot);
    if (p->kind == FSRS) recall_stable(p, slot, time, correct);
}

// Of what leaves the window and what would leave the main part, which came less often.
static int32_t less_frequent(const Policy *p) {
    int32_t entering = p->lists.oldest[WINDOW], leaving = p->lists.oldest[PROBATION];
    if (leaving == NOWHERE) leaving = p->lists.oldest[PROTECTED];
    if (leaving == NOWHERE || entering == NOWHERE) return leaving == NOWHERE ? entering : leaving;
    if (p->lists.length[WINDOW] < p->window) return leaving;
    return estimate(p, p->keys.key[entering]) > estimate(p, p->keys.key[leaving]) ? leaving : entering;
}

// In a class of stability the entry recalled longest ago is the least likely to be recalled, so that the least
// likely of all is among the oldest of each class.
static int32_t least_likely(const Policy *p, double time) {
    int32_t found = NOWHERE;
    double worst = -1, step = exp2(-1.0 / PER_OCTAVE);
    double weight = exp2((double)(p->n_lists / 4) / PER_OCTAVE);  // of the class: what divides by its stability
    for (int32_t class = 0; class < p->n_lists; class++, weight *= step) {
        int32_t slot = p->lists.oldest[class];
        if (slot == NOWHERE) continue;
        double overdue = (time - p->recalled_at[slot]) * weight;
        if (overdue > worst) worst = overdue, found = slot;
    }
    return found;
}

static int32_t victim(const Policy *p, double time) {
    if (p->kind == TINY_LFU) return less_frequent(p);
    if (p->kind == FSRS) return least_likely(p, p->by_events ? (double)p->counters[EVENTS] : time);
    for (int32_t list = 0; list < p->n_lists; list++)
        if (p->lists.length[list]) return p->lists.oldest[list];
    return NOWHERE;
}

HELIX_EXPORT int64_t helix_topo_eviction_victim(const Policy *p, double time) { return victim(p, time); }

// Keys of entries that are told without one are serial numbers: no two the same.
HELIX_EXPORT void helix_topo_eviction_added(const Policy *p, const int64_t *slots, int64_t n, double time) {
    for (int64_t i = 0; i < n; i++) add(p, (int32_t)slots[i], (uint64_t)p->counters[SERIAL]++, time);
}

HELIX_EXPORT void helix_topo_eviction_recalled(const Policy *p, const int64_t *slots, int64_t n, double time,
                                               int64_t correct) {
    for (int64_t i = 0; i < n; i++) recall(p, (int32_t)slots[i], time, correct != 0);
}

HELIX_EXPORT void helix_topo_eviction_forgotten(const Policy *p, const int64_t *slots, int64_t n) {
    for (int64_t i = 0; i < n; i++) forget(p, (int32_t)slots[i]);
}

static void note(const Policy *p, int32_t slot, const uint64_t *before, const double *saved, int64_t i) {
    if (p->kind != FSRS) return;
    if (before) p->before[slot] |= (uint64_t)1 << ((before[i] * 0x9E3779B97F4A7C15u) >> 58);
    if (saved) p->saved[slot] += saved[i], p->n_saved[slot]++;
}

// Runs requests for keys, each of which is then in the memory. hits: (n,) whether each was there.
HELIX_EXPORT void helix_topo_eviction_requested(const Policy *p, const uint64_t *keys, int64_t n,
                                                const uint64_t *before, const double *saved, uint8_t *hits) {
    for (int64_t i = 0; i < n; i++) {
        int32_t slot = keys_find(&p->keys, keys[i]);
        double time = (double)(p->counters[EVENTS] + 1);
        hits[i] = slot >= 0;
        if (hits[i]) {
            note(p, slot, before, saved, i);
            recall(p, slot, time, 1);
            continue;
        }
        if (p->counters[USED] < p->capacity) {
            slot = (int32_t)p->counters[USED]++;
        } else {
            slot = victim(p, time);
            keys_remove(&p->keys, slot);
        }
        keys_put(&p->keys, keys[i], slot);
        add(p, slot, keys[i], time);
        note(p, slot, before, 0, i);
    }
}
