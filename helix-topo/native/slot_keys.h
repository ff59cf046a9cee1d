// Which slot holds which key: open addressing with linear probing, so that a key taken out leaves no trace.
#pragma once

#include <stdint.h>

typedef struct {
    uint64_t *key;  // by slot
    int32_t *place; // (n_places), slot + 1, or 0 for nothing
    int64_t n_places;  // a power of two
} SlotKeys;

static inline uint64_t mixed(uint64_t key) {
    key = (key ^ (key >> 33)) * 0xFF51AFD7ED558CCDu;  // the finalizer of MurmurHash3, which is public domain
    key = (key ^ (key >> 33)) * 0xC4CEB9FE1A85EC53u;
    return key ^ (key >> 33);
}

static inline int64_t keys_home(const SlotKeys *keys, uint64_t key) {
    return (int64_t)(mixed(key) & (uint64_t)(keys->n_places - 1));
}

// The slot of a key, or -1.
static inline int32_t keys_find(const SlotKeys *keys, uint64_t key) {
    int64_t mask = keys->n_places - 1;
    for (int64_t at = keys_home(keys, key); keys->place[at]; at = (at + 1) & mask)
        if (keys->key[keys->place[at] - 1] == key) return keys->place[at] - 1;
    return -1;
}

static inline void keys_put(const SlotKeys *keys, uint64_t key, int32_t slot) {
    int64_t mask = keys->n_places - 1, at = keys_home(keys, key);
    while (keys->place[at]) at = (at + 1) & mask;
    keys->place[at] = slot + 1;
    keys->key[slot] = key;
}

// Takes a slot's key out; what follows it moves up (Knuth, volume 3, 6.4, algorithm R).
static inline void keys_remove(const SlotKeys *keys, int32_t slot) {
    int64_t mask = keys->n_places - 1, hole = keys_home(keys, keys->key[slot]);
    while (keys->place[hole] != slot + 1) hole = (hole + 1) & mask;
    for (int64_t at = (hole + 1) & mask; keys->place[at]; at = (at + 1) & mask) {
        int64_t home = keys_home(keys, keys->key[keys->place[at] - 1]);
        if (((at - home) & mask) < ((at - hole) & mask)) continue;
        keys->place[hole] = keys->place[at];
        hole = at;
    }
    keys->place[hole] = 0;
}
