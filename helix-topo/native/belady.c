// The most hits that any memory of a size can have that lets in all it is asked for (Belady 1966).

#include <stdlib.h>

#include "export.h"

// A heap of places in the trace whose keys are in the memory, the one needed latest on top.
typedef struct {
    int64_t *place, n;
    const int64_t *next;
} Heap;

static int later(const Heap *heap, int64_t a, int64_t b) {
    return heap->next[heap->place[a]] > heap->next[heap->place[b]];
}

static void swap(Heap *heap, int64_t a, int64_t b) {
    int64_t place = heap->place[a];
    heap->place[a] = heap->place[b];
    heap->place[b] = place;
}

static void push(Heap *heap, int64_t place) {
    int64_t at = heap->n++;
    heap->place[at] = place;
    for (; at && later(heap, at, (at - 1) / 2); at = (at - 1) / 2) swap(heap, at, (at - 1) / 2);
}

static int64_t pop(Heap *heap) {
    int64_t top = heap->place[0];
    heap->place[0] = heap->place[--heap->n];
    for (int64_t at = 0;;) {
        int64_t best = at;
        for (int64_t child = 2 * at + 1; child <= 2 * at + 2 && child < heap->n; child++)
            if (later(heap, child, best)) best = child;
        if (best == at) return top;
        swap(heap, at, best);
        at = best;
    }
}

// next: (n,) where each key comes again, n or more where it does not; no two of them equal. first: (n,) whether
// it comes for the first time. What is in the memory is known by `held`, (n,) zeros: the last place of its key.
// Returns 0 where memory is short.
HELIX_EXPORT int64_t helix_topo_belady_requested(const int64_t *next, const int64_t *previous, int64_t n,
                                                 int64_t capacity, uint8_t *held, uint8_t *hits) {
    Heap heap = {malloc((size_t)(n + 1) * sizeof(int64_t)), 0, next};
    if (!heap.place) return 0;
    for (int64_t i = 0, used = 0; i < n; i++) {
        int64_t before = previous[i];
        hits[i] = before >= 0 && held[before];
        if (hits[i]) {
            held[before] = 0;
        } else if (used < capacity) {
            used++;
        } else {
            // Places of keys that came again since are needed no later than now, and so below all others.
            held[pop(&heap)] = 0;
        }
        held[i] = 1;
        push(&heap, i);
    }
    free(heap.place);
    return 1;
}
