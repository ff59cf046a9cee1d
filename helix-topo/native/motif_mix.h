// The distribution of the next symbol, blended from the shortest known context to the longest.
#pragma once

#include <math.h>

#include "motif_slots.h"

enum { MOST_ORDERS = 16, MOST_RUN = 16, TOTALS = 8, DISTINCTS = 4, LEVELS = 12, RUNS = 4, BINS = 33 };
enum { C_PLACES, C_ADDED, C_EVICTED, C_REPEATED };

typedef struct {
    SlotTable tables[4];
    int64_t n_orders, order[MOST_ORDERS], table_of[MOST_ORDERS];
    int64_t vocab_size, min_count, longest, rate_limit, places_a_tick;
    SlotRules rules;
    uint32_t *zero;         // (V + 1,) counts of symbols, and their sum
    uint16_t *first;        // (V, V) counts of symbols after each, or NULL
    uint32_t *first_total;  // (V,)
    float *trust;           // by bucket: how far a context is trusted over shorter ones
    uint32_t *taught;       // by bucket: how often that was learned
    float *refined;         // (n_orders + 1, RUNS, BINS) how often the likeliest comes, by how likely it is
    int64_t *counters;
} Motifs;

// Where one place's blending happens: p(symbol) = scale * (stamped now ? part : base).
typedef struct {
    const Motifs *motifs;
    double *part;
    uint32_t *stamp, now;
    double scale, uniform, zero, first;
    const uint16_t *first_counts;  // of the last symbol, or NULL
    // What was found and what there is to learn of it.
    uint8_t *slot[MOST_ORDERS];
    int64_t n_lessons, lesson[2 * MOST_ORDERS + 2];
    double responsible[2 * MOST_ORDERS + 2];
    int64_t known, best, bin, run;  // known: the longest of the orders found, from 1; run: of hits before
    double share, certain;  // certain: how likely the likeliest symbol is
} Place;

static inline double base_of(const Place *at, int64_t symbol) {
    double p = at->uniform + at->zero * at->motifs->zero[symbol];
    return at->first_counts ? p + at->first * at->first_counts[symbol] : p;
}

static inline double probability(const Place *at, int64_t symbol) {
    return at->scale * (at->stamp[symbol] == at->now ? at->part[symbol] : base_of(at, symbol));
}

static inline void add(Place *at, int64_t symbol, double amount) {
    if (at->stamp[symbol] != at->now) {
        at->stamp[symbol] = at->now;
        at->part[symbol] = base_of(at, symbol);
    }
    at->part[symbol] += amount / at->scale;
}

static inline int64_t level_of(int64_t total) {  // 1, 2, 3, 4, 5-8, 9-16, 17-64, more
    if (total < 5) return total - 1;
    return total < 9 ? 4 : total < 17 ? 5 : total < 65 ? 6 : 7;
}

static inline int64_t likelihood_of(double p) {
    static const double bounds[LEVELS - 1] = {0.005, 0.02, 0.07, 0.2, 0.4, 0.6, 0.8, 0.92, 0.97, 0.99, 0.997};
    int64_t level = 0;
    while (level < LEVELS - 1 && p > bounds[level]) level++;
    return level;
}

static inline int64_t run_level(const Place *at) {
    return at->run < 1 ? 0 : at->run < 4 ? 1 : at->run < MOST_RUN ? 2 : 3;
}

// Buckets of trust: 0 to 31 for the symbols' own frequencies, 32 to 63 for the dense first order, then each
// order's by total, distinct symbols, how likely shorter contexts make its first symbol, and the run of hits; then
// each order's for symbols other than the likeliest, by whether that one is among the context's.
enum {
    DENSE_LIMIT = 4096,
    DENSE_BUCKETS = 64,
    ORDER_BUCKETS = TOTALS * DISTINCTS * LEVELS * RUNS,
    OTHER_BUCKETS = TOTALS * DISTINCTS * LEVELS * 2,
};

static inline int64_t log2_of(uint64_t n) { return n ? 64 - __builtin_clzll(n) : 0; }

static inline void learn_at(Place *at, int64_t bucket, double before, double own, double trust) {
    double p = (1 - trust) * before + trust * own;
    at->lesson[at->n_lessons] = bucket;
    at->responsible[at->n_lessons++] = trust * own / p;
}

// Begins with the frequencies of symbols, and of symbols after the last one.
static inline void begin(Place *at, int64_t last, int64_t next) {
    const Motifs *m = at->motifs;
    at->now++;
    at->scale = 1;
    at->n_lessons = at->known = 0;
    at->best = -1;
    double total = m->zero[m->vocab_size], even = 1.0 / (double)m->vocab_size;
    int64_t bucket = log2_of((uint64_t)total);
    double trust = total > 0 ? m->trust[bucket] : 0;
    at->uniform = (1 - trust) * even;
    at->zero = total > 0 ? trust / total : 0;
    at->first = 0, at->first_counts = 0;
    if (next >= 0 && total > 0) learn_at(at, bucket, even, m->zero[next] / total, trust);
    if (!m->first || last < 0 || !m->first_total[last]) return;
    const uint16_t *counts = m->first + last * m->vocab_size;
    double before = next >= 0 ? base_of(at, next) : 0;
    total = m->first_total[last];
    bucket = 32 + log2_of((uint64_t)total);
    trust = m->trust[bucket];
    if (next >= 0) learn_at(at, bucket, before, counts[next] / total, trust);
    at->uniform *= 1 - trust, at->zero *= 1 - trust;
    at->first = trust / total, at->first_counts = counts;
}

// Blends in what followed one context.
static inline void blend(Place *at, int64_t k, int64_t next) {
    const Motifs *m = at->motifs;
    uint8_t *slot = at->slot[k];
    int64_t width = m->tables[m->table_of[k]].width, total = 0, distinct = 0;
    const uint16_t *symbols = slot_symbols(slot);
    const uint8_t *counts = slot_counts(slot, width);
    for (; distinct < width && counts[distinct]; distinct++) total += counts[distinct];
    int64_t level = level_of(total) * DISTINCTS + (distinct < DISTINCTS ? distinct : DISTINCTS) - 1;
    int64_t likelihood = likelihood_of(probability(at, symbols[0]));
    int64_t bucket = DENSE_BUCKETS + k * ORDER_BUCKETS + (level * LEVELS + likelihood) * RUNS + run_level(at);
    double trust = m->trust[bucket], each = trust / (double)total, before = 0, own = 0;
    if (next >= 0) before = probability(at, next);
    at->scale *= 1 - trust;
    for (int64_t i = 0; i < distinct; i++) {
        add(at, symbols[i], each * counts[i]);
        if (symbols[i] == next) own = counts[i];
    }
    if (next >= 0) learn_at(at, bucket, before, own / (double)total, trust);
    if (at->best < 0 || symbols[0] == at->best || probability(at, symbols[0]) > probability(at, at->best))
        at->best = symbols[0];
}

// How likely the likeliest symbol is: half of it what the blend says, half how often such a one came.
static inline void refine(Place *at) {
    double p = probability(at, at->best);
    p = p < 1e-4 ? 1e-4 : p > 1 - 1e-4 ? 1 - 1e-4 : p;
    double where = (log(p / (1 - p)) / 9.21034 + 1) * (BINS - 1) / 2;
    int64_t bin = (int64_t)where;
    bin = bin > BINS - 2 ? BINS - 2 : bin;
    at->share = where - (double)bin;
    at->bin = (at->known * RUNS + run_level(at)) * BINS + bin;
    const float *refined = at->motifs->refined + at->bin;
    at->certain = (p + (1 - at->share) * refined[0] + at->share * refined[1]) / 2;
}

// Blends in what followed one context other than the likeliest symbol. Trust is learned of the places where that
// one did not come: they know another trust than all places.
static inline void blend_others(Place *at, int64_t k, int64_t next) {
    const Motifs *m = at->motifs;
    int64_t width = m->tables[m->table_of[k]].width, total = 0, distinct = 0, has = 0, first = -1, own = 0;
    const uint16_t *symbols = slot_symbols(at->slot[k]);
    const uint8_t *counts = slot_counts(at->slot[k], width);
    int64_t n = 0;
    for (; n < width && counts[n]; n++) {
        if (symbols[n] == at->best) {
            has = 1;
            continue;
        }
        if (first < 0) first = symbols[n];
        if (symbols[n] == next) own = counts[n];
        total += counts[n], distinct++;
    }
    if (!total) return;
    int64_t level = level_of(total) * DISTINCTS + (distinct < DISTINCTS ? distinct : DISTINCTS) - 1;
    int64_t bucket = DENSE_BUCKETS + m->n_orders * ORDER_BUCKETS + k * OTHER_BUCKETS;
    bucket += (level * LEVELS + likelihood_of(probability(at, first))) * 2 + has;
    double trust = m->trust[bucket], each = trust / (double)total;
    if (next >= 0) learn_at(at, bucket, probability(at, next), (double)own / (double)total, trust);
    at->scale *= 1 - trust;
    for (int64_t i = 0; i < n; i++)
        if (symbols[i] != at->best) add(at, symbols[i], each * counts[i]);
}

// Makes `probability` that of each symbol, given that the likeliest does not come.
static inline void blend_all_others(Place *at, int64_t next) {
    double others = 1 - base_of(at, at->best);
    at->now++, at->scale = 1;
    at->uniform /= others, at->zero /= others, at->first /= others;
    for (int64_t k = 0; k < at->motifs->n_orders; k++)
        if (at->slot[k]) blend_others(at, k, next);
}

// How likely a symbol is; of others than the likeliest only after `blend_all_others`.
static inline double expected(const Place *at, int64_t symbol) {
    if (at->best < 0 || at->motifs->longest) return probability(at, symbol);
    return symbol == at->best ? at->certain : (1 - at->certain) * probability(at, symbol);
}
