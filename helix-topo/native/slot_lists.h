// Doubly linked lists through the slots of a table: each slot is in one list or in none.
#pragma once

#include <stdint.h>

enum { NOWHERE = -1 };

typedef struct {
    int32_t *older, *newer, *list;  // by slot; NOWHERE ends a list and marks a slot that is in none
    int32_t *oldest, *newest, *length;  // by list
} SlotLists;

static inline void list_remove(const SlotLists *lists, int32_t slot) {
    int32_t list = lists->list[slot], older = lists->older[slot], newer = lists->newer[slot];
    if (list == NOWHERE) return;
    *(older == NOWHERE ? &lists->oldest[list] : &lists->newer[older]) = newer;
    *(newer == NOWHERE ? &lists->newest[list] : &lists->older[newer]) = older;
    lists->length[list]--;
    lists->list[slot] = NOWHERE;
}

// Makes a slot the newest of a list, wherever it was.
static inline void list_append(const SlotLists *lists, int32_t slot, int32_t list) {
    list_remove(lists, slot);
    int32_t newest = lists->newest[list];
    lists->older[slot] = newest;
    lists->newer[slot] = NOWHERE;
    *(newest == NOWHERE ? &lists->oldest[list] : &lists->newer[newest]) = slot;
    lists->newest[list] = slot;
    lists->length[list]++;
    lists->list[slot] = list;
}
