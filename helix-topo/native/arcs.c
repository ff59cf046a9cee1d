// Counts of arcs between nodes, in a table of fixed size: what leads away from a node lies in one bucket.

#include <string.h>

#include "export.h"

// The arrays of a table, each of n_buckets * ways places. A place whose count is 0 is empty.
typedef struct {
    int64_t *source, *target, *stamp;
    int64_t *gap;  // between the last two times that the arc was counted, in arcs; 0 after one
    int32_t *symbol, *count;
    int32_t *component, *core;  // of the source, as last analysed; component -1: the arc is on no cycle
    int64_t n_buckets, ways;
} Arcs;

static int64_t bucket_of(const Arcs *arcs, int64_t node) {
    uint64_t x = (uint64_t)node * 0x9E3779B97F4A7C15u;  // Fibonacci hashing: the golden ratio of 2^64
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    x ^= x >> 32;
    return (int64_t)(x % (uint64_t)arcs->n_buckets) * arcs->ways;
}

// The place of an arc, or of what gives way to it: an empty place, or else the arc of the lowest count,
// among equals the one counted longest ago.
static int64_t place_of(const Arcs *arcs, int64_t source, int64_t target, int64_t symbol) {
    int64_t first = bucket_of(arcs, source), worst = first;
    for (int64_t i = first; i < first + arcs->ways; i++) {
        if (arcs->count[i] == 0) return i;  // places are filled from the front
        if (arcs->source[i] == source && arcs->target[i] == target && arcs->symbol[i] == symbol) return i;
        int lower = arcs->count[i] < arcs->count[worst];
        int older = arcs->count[i] == arcs->count[worst] && arcs->stamp[i] < arcs->stamp[worst];
        if (lower || older) worst = i;
    }
    return worst;
}

// Counts n arcs, in their order; a negative node is none. told: how many were counted, how many gave way,
// and how many of those lay on a cycle.
HELIX_EXPORT void helix_topo_arcs_count(const Arcs *arcs, const int64_t *source, const int64_t *target,
                                        const int64_t *symbol, int64_t n, int64_t stamp, int64_t *told) {
    memset(told, 0, 3 * sizeof *told);
    for (int64_t k = 0; k < n; k++) {
        if (source[k] < 0 || target[k] < 0) continue;
        int64_t i = place_of(arcs, source[k], target[k], symbol[k]);
        int known = arcs->count[i] > 0 && arcs->source[i] == source[k] && arcs->target[i] == target[k] &&
                    arcs->symbol[i] == symbol[k];
        if (!known) {
            told[1] += arcs->count[i] > 0;
            told[2] += arcs->count[i] > 0 && arcs->component[i] >= 0;
            arcs->source[i] = source[k];
            arcs->target[i] = target[k];
            arcs->symbol[i] = (int32_t)symbol[k];
            arcs->count[i] = 0;
            arcs->gap[i] = 0;
            arcs->component[i] = -1;
            arcs->core[i] = 0;
        }
        int64_t now = stamp + told[0]++;
        if (known) arcs->gap[i] = now - arcs->stamp[i];
        if (arcs->count[i] < INT32_MAX) arcs->count[i]++;
        arcs->stamp[i] = now;
    }
}

// Of n nodes: the share of each symbol among the arcs that lead away along a cycle, (n, n_symbols) from 0;
// how often those were counted; and the node's core number.
HELIX_EXPORT void helix_topo_arcs_predict(const Arcs *arcs, const int64_t *node, int64_t n, int64_t n_symbols,
                                          float *share, int64_t *total, int64_t *core) {
    for (int64_t k = 0; k < n; k++) {
        float *row = share + k * n_symbols;
        total[k] = core[k] = 0;
        if (node[k] < 0) continue;
        int64_t first = bucket_of(arcs, node[k]), last = first + arcs->ways;
        for (int64_t i = first; i < last && arcs->count[i] > 0; i++) {
            int symbol = arcs->symbol[i];
            if (arcs->source[i] != node[k] || arcs->component[i] < 0) continue;
            if (symbol < 0 || symbol >= n_symbols) continue;
            total[k] += arcs->count[i];
            core[k] = arcs->core[i];
        }
        for (int64_t i = first; total[k] > 0 && i < last && arcs->count[i] > 0; i++) {
            int symbol = arcs->symbol[i];
            if (arcs->source[i] != node[k] || arcs->component[i] < 0) continue;
            if (symbol < 0 || symbol >= n_symbols) continue;
            row[symbol] += (float)((double)arcs->count[i] / (double)total[k]);
        }
    }
}

// The places of the arcs that lead away from a node, `ways` of them at most; returns how many.
HELIX_EXPORT int64_t helix_topo_arcs_from(const Arcs *arcs, int64_t node, int64_t *place) {
    int64_t first = bucket_of(arcs, node), found = 0;
    for (int64_t i = first; i < first + arcs->ways && arcs->count[i] > 0; i++)
        if (arcs->source[i] == node) place[found++] = i;
    return found;
}
