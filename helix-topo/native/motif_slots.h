// A table of slots: for each context its next symbols with counts, and how lasting the slot is.
#pragma once

#include <stdint.h>
#include <string.h>

// A slot of width w lies in one piece: 15 check bits, a bit that is set when the
// context comes again, 16 bits of age, w symbols of 16 bits, w counts of 8.
// Symbols stand by falling count; a slot whose first count is 0 is empty.
typedef struct {
    uint8_t *bytes;
    int64_t n_buckets, ways, width, size;  // size: of a slot, in bytes
} SlotTable;

enum { REPLACE_FSRS, REPLACE_LRU, REPLACE_LFU };

// An age is a class of stability, S = 2^(class / 2) ticks, and the tick of the last writing, modulo TICKS.
enum { TICKS = 2048, CLASSES = 32, FIRST_CLASS = 6 };

// How a full bucket gives way, and how stability grows.
typedef struct {
    uint32_t tick, dither;  // dither: rounds fractions of a class up or down in turns
    int32_t replace, limit;  // limit: a count above it halves all
    const uint8_t *halves;   // (TICKS,) log2 of an age, in halves, rounded
    const uint16_t *gains;   // (2 * CLASSES,) what a recall adds to the class, in 256ths, by halves - class + CLASSES
} SlotRules;

static inline uint8_t *slot_bucket(const SlotTable *table, uint64_t hash) {
    uint64_t index = (uint64_t)(((unsigned __int128)hash * (uint64_t)table->n_buckets) >> 64);
    return table->bytes + (int64_t)index * table->ways * table->size;
}

enum { CHECK = 0x7FFF, AGAIN = 0x8000 };

static inline int slot_is(const uint8_t *slot, uint64_t hash) { return !((*(const uint16_t *)slot ^ hash) & CHECK); }
static inline void slot_again(uint8_t *slot) { *(uint16_t *)slot |= AGAIN; }
static inline uint16_t *slot_age(uint8_t *slot) { return (uint16_t *)(slot + 2); }
static inline uint16_t *slot_symbols(uint8_t *slot) { return (uint16_t *)(slot + 4); }
static inline uint8_t *slot_counts(uint8_t *slot, int64_t width) { return slot + 4 + 2 * width; }

// The slot of a context, or NULL.
static inline uint8_t *slot_find(const SlotTable *table, uint64_t hash) {
    uint8_t *slot = slot_bucket(table, hash);
    for (int64_t way = 0; way < table->ways; way++, slot += table->size)
        if (slot_is(slot, hash) && *slot_counts(slot, table->width)) return slot;
    return 0;
}

// How often a context came, as far as its counts tell.
static inline int64_t slot_total(const SlotTable *table, uint8_t *slot) {
    const uint8_t *counts = slot_counts(slot, table->width);
    int64_t total = 0;
    for (int64_t i = 0; i < table->width && counts[i]; i++) total += counts[i];
    return total;
}

// How often it came at least: its symbols may have been counted after longer contexts alone.
static inline int64_t slot_came(const SlotTable *table, uint8_t *slot) {
    int64_t total = slot_total(table, slot), least = *(uint16_t *)slot & AGAIN ? 2 : 1;
    return total > least ? total : least;
}

static inline int slot_has(const SlotTable *table, uint8_t *slot, uint16_t symbol) {
    const uint8_t *counts = slot_counts(slot, table->width);
    const uint16_t *symbols = slot_symbols(slot);
    for (int64_t i = 0; i < table->width && counts[i]; i++)
        if (symbols[i] == symbol) return 1;
    return 0;
}

static inline uint32_t slot_elapsed(const SlotRules *rules, uint16_t age) {
    return (rules->tick - age) & (TICKS - 1);
}

// Larger for what is less likely to be recalled.
static inline int64_t slot_staleness(const SlotTable *table, const SlotRules *rules, uint8_t *slot) {
    uint16_t age = *slot_age(slot);
    int64_t elapsed = slot_elapsed(rules, age);
    if (rules->replace == REPLACE_LRU) return elapsed;
    if (rules->replace == REPLACE_FSRS) return (rules->halves[elapsed] - (age >> 11)) * TICKS + elapsed;
    return elapsed - slot_total(table, slot) * TICKS;
}

// The slot that a new context takes: an empty one, or the stalest.
static inline uint8_t *slot_victim(const SlotTable *table, const SlotRules *rules, uint64_t hash) {
    uint8_t *slot = slot_bucket(table, hash), *victim = slot;
    int64_t worst = INT64_MIN;
    for (int64_t way = 0; way < table->ways; way++, slot += table->size) {
        if (!*slot_counts(slot, table->width)) return slot;
        int64_t staleness = slot_staleness(table, rules, slot);
        if (staleness > worst) worst = staleness, victim = slot;
    }
    return victim;
}

static inline void slot_strengthen(const SlotRules *rules, uint8_t *slot, int correct) {
    uint16_t age = *slot_age(slot);
    int32_t strength = age >> 11;
    if (correct) {
        int32_t gain = rules->gains[rules->halves[slot_elapsed(rules, age)] - strength + CLASSES];
        strength += (gain + (int32_t)(rules->dither & 255)) >> 8;
    } else {
        strength -= 2 + ((165 + (int32_t)(rules->dither & 255)) >> 8);  // 0.4 = 2^(-2.644 / 2)
    }
    strength = strength < 0 ? 0 : strength > CLASSES - 1 ? CLASSES - 1 : strength;
    *slot_age(slot) = (uint16_t)(strength << 11 | (rules->tick & (TICKS - 1)));
}

static inline void slot_begin(const SlotTable *table, const SlotRules *rules, uint8_t *slot, uint64_t hash) {
    memset(slot, 0, (size_t)table->size);
    *(uint16_t *)slot = (uint16_t)(hash & CHECK);
    *slot_age(slot) = (uint16_t)(FIRST_CLASS << 11 | (rules->tick & (TICKS - 1)));
}

// Counts a symbol that followed.
static inline void slot_count(const SlotTable *table, const SlotRules *rules, uint8_t *slot, uint16_t symbol) {
    uint16_t *symbols = slot_symbols(slot);
    uint8_t *counts = slot_counts(slot, table->width);
    int64_t i = 0, last = table->width - 1;
    while (i < last && counts[i] && symbols[i] != symbol) i++;
    if (symbols[i] != symbol || !counts[i]) symbols[i] = symbol, counts[i] = 0;  // the rarest gives way
    if (++counts[i] > rules->limit)
        for (int64_t k = 0; k <= last; k++) counts[k] = (uint8_t)(counts[k] - counts[k] / 2);
    for (; i > 0 && counts[i] >= counts[i - 1]; i--) {
        uint16_t s = symbols[i];
        uint8_t c = counts[i];
        symbols[i] = symbols[i - 1], counts[i] = counts[i - 1];
        symbols[i - 1] = s, counts[i - 1] = c;
    }
}
