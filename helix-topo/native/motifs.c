// Motifs: what followed each of the last symbols' ends, read and written place by place.

#include <stdlib.h>

#include "export.h"
#include "motif_mix.h"

enum { BLOCK = 32 };

static const uint64_t BASE = 0x9E3779B97F4A7C15u;

// A row with what came before it; ids below 0 are nothing. The hash of the k symbols up to place i is that of
// sums[i + 1] - sums[i + 1 - k] * BASE^k; they lie in one piece where i + 1 - begins[i] >= k.
typedef struct {
    const int64_t *ids;
    uint64_t *sums;
    int64_t *begins, n;
    uint64_t powers[MOST_ORDERS];
} Row;

// What is to be learned of a place once its row was read.
typedef struct {
    int64_t bucket;
    float responsible, share;  // share: of a bin of `refined`, or -1
} Lesson;

typedef struct {
    Lesson *lessons;
    int64_t n, room;
} Notes;

// What a call tells of each place; NULL for what is not wanted.
typedef struct {
    float *probabilities, *bits;
    int64_t *bucket, *motif, *length, *count;
} Told;

static uint64_t finished(uint64_t x) {  // the finaliser of MurmurHash3 spreads all bits over all
    x ^= x >> 33, x *= 0xFF51AFD7ED558CCDu;
    x ^= x >> 33, x *= 0xC4CEB9FE1A85EC53u;
    return x ^ x >> 33;
}

static void row_sums(const Motifs *m, Row *row) {
    row->sums[0] = 0;
    for (int64_t i = 0; i < row->n; i++) {
        row->sums[i + 1] = row->sums[i] * BASE + (uint64_t)(row->ids[i] + 1);
        row->begins[i] = row->ids[i] < 0 ? i + 1 : i ? row->begins[i - 1] : 0;
    }
    for (int64_t k = 0; k < m->n_orders; k++) {
        row->powers[k] = 1;
        for (int64_t i = 0; i < m->order[k]; i++) row->powers[k] *= BASE;
    }
}

// The hashes of all orders at a place, 0 where the row is too short.
static void row_hashes(const Motifs *m, const Row *row, int64_t place, uint64_t *hashes) {
    int64_t length = place < 0 ? 0 : place + 1 - row->begins[place];
    for (int64_t k = 0; k < m->n_orders; k++) {
        int64_t order = m->order[k];
        hashes[k] = 0;
        if (length < order) continue;
        uint64_t sum = row->sums[place + 1] - row->sums[place + 1 - order] * row->powers[k];
        hashes[k] = finished(sum + (uint64_t)order * 0xD6E8FEB86659FD93u) | 1;
        __builtin_prefetch(slot_bucket(&m->tables[m->table_of[k]], hashes[k]), 1);
    }
}

static void find_slots(Place *at, const uint64_t *hashes) {
    const Motifs *m = at->motifs;
    for (int64_t k = 0; k < m->n_orders; k++)
        at->slot[k] = hashes[k] ? slot_find(&m->tables[m->table_of[k]], hashes[k]) : 0;
}

// all: whether the probabilities of all symbols are wanted, and not only of `next`.
static void read_place(Place *at, const uint64_t *hashes, int64_t last, int64_t next, int all) {
    const Motifs *m = at->motifs;
    begin(at, last, next);
    find_slots(at, hashes);
    int64_t longest = -1;
    for (int64_t k = 0; k < m->n_orders; k++) {
        if (!at->slot[k]) continue;
        at->known = k + 1;
        if (!m->longest) blend(at, k, next);
        else if (slot_came(&m->tables[m->table_of[k]], at->slot[k]) >= m->min_count) longest = k;
    }
    if (longest >= 0) blend(at, longest, next);
    if (m->longest || at->best < 0) return;
    refine(at);
    if (all || (next >= 0 && next != at->best)) blend_all_others(at, next != at->best ? next : -1);
}

static void write_dense(Motifs *m, int64_t last, int64_t next) {
    m->zero[next]++, m->zero[m->vocab_size]++;
    if (!m->first || last < 0) return;
    uint16_t *counts = m->first + last * m->vocab_size;
    counts[next]++;
    if (++m->first_total[last] < DENSE_LIMIT) return;
    m->first_total[last] = 0;
    for (int64_t v = 0; v < m->vocab_size; v++) m->first_total[last] += counts[v] -= counts[v] / 2;
}

// Counts `next` after each context, but after none that is shorter than one that had it already: what a
// shorter one is asked for is what longer ones do not know (update exclusion, Moffat 1990).
static void write_place(Motifs *m, Place *at, const uint64_t *hashes, int64_t last, int64_t next) {
    int64_t deepest = 0;
    for (int64_t k = 0; k < m->n_orders; k++)
        if (at->slot[k] && slot_has(&m->tables[m->table_of[k]], at->slot[k], (uint16_t)next)) deepest = k;
    m->counters[C_PLACES]++;
    m->rules.tick = (uint32_t)(m->counters[C_PLACES] / m->places_a_tick);
    m->rules.dither = (uint32_t)((uint64_t)m->counters[C_PLACES] * 0x9E3779B1u >> 8);
    if (!deepest) write_dense(m, last, next);
    for (int64_t k = 0; k < deepest; k++)
        if (at->slot[k]) slot_again(at->slot[k]);
    for (int64_t k = deepest; k < m->n_orders; k++) {
        if (!hashes[k]) continue;
        const SlotTable *table = &m->tables[m->table_of[k]];
        uint8_t *slot = at->slot[k];
        if (slot && slot_is(slot, hashes[k])) {  // another order may have taken it just now
            slot_again(slot);
            slot_strengthen(&m->rules, slot, slot_symbols(slot)[0] == next);
        } else {
            slot = slot_victim(table, &m->rules, hashes[k]);
            m->counters[C_ADDED]++;
            m->counters[C_EVICTED] += *slot_counts(slot, table->width) > 0;
            slot_begin(table, &m->rules, slot, hashes[k]);
        }
        slot_count(table, &m->rules, slot, (uint16_t)next);
    }
}

static int note(Notes *notes, int64_t bucket, double responsible, double share) {
    if (notes->n == notes->room) {
        int64_t room = notes->room ? 2 * notes->room : 4096;
        Lesson *lessons = realloc(notes->lessons, (size_t)room * sizeof *lessons);
        if (!lessons) return 0;
        notes->lessons = lessons, notes->room = room;
    }
    notes->lessons[notes->n++] = (Lesson){bucket, (float)responsible, (float)share};
    return 1;
}

static int note_place(Notes *notes, const Place *at, int64_t next) {
    for (int64_t i = 0; i < at->n_lessons; i++)
        if (!note(notes, at->lesson[i], at->responsible[i], -1)) return 0;
    if (at->best < 0 || at->motifs->longest) return 1;
    double hit = at->best == next;
    return note(notes, at->bin, hit, 1 - at->share) && note(notes, at->bin + 1, hit, at->share);
}

static void learn(Motifs *m, const Lesson *lesson) {
    if (lesson->share >= 0) {
        m->refined[lesson->bucket] += (lesson->responsible - m->refined[lesson->bucket]) * lesson->share * 0.02f;
        return;
    }
    uint32_t n = m->taught[lesson->bucket];
    if (n < m->rate_limit) m->taught[lesson->bucket] = ++n;
    float trust = m->trust[lesson->bucket];
    trust += (lesson->responsible - trust) / ((float)n + 1.5f);
    m->trust[lesson->bucket] = trust < 1e-4f ? 1e-4f : trust > 0.9998f ? 0.9998f : trust;
}

static void learn_all(Motifs *m, Notes *notes) {
    for (int64_t i = 0; i < notes->n; i++) learn(m, notes->lessons + i);
    notes->n = 0;
}

static void tell(const Place *at, const uint64_t *hashes, int64_t next, const Told *told, int64_t i) {
    const Motifs *m = at->motifs;
    if (told->bits && next >= 0) told->bits[i] = (float)-log2(expected(at, next));
    if (told->probabilities)
        for (int64_t v = 0; v < m->vocab_size; v++)
            told->probabilities[i * m->vocab_size + v] = m->zero[m->vocab_size] ? (float)expected(at, v) : 0;
    if (told->bucket) {
        double best = at->best < 0 ? 0 : expected(at, at->best);
        told->bucket[i] = m->zero[m->vocab_size] ? 1 + at->known * LEVELS + likelihood_of(best) : 0;
    }
    if (!told->motif) return;
    int64_t k = m->n_orders - 1, total = 0;
    for (; k >= 0; k--)
        if (at->slot[k] && (total = slot_came(&m->tables[m->table_of[k]], at->slot[k])) >= m->min_count) break;
    told->motif[i] = k < 0 ? -1 : (int64_t)(hashes[k] >> 1);
    told->length[i] = k < 0 ? 0 : m->order[k];
    told->count[i] = k < 0 ? 0 : total;
}

// Whether the longest context of a place is known, with what followed.
static int is_known(const Place *at, int64_t next) {
    int64_t k = at->motifs->n_orders - 1;
    return at->slot[k] && slot_has(&at->motifs->tables[at->motifs->table_of[k]], at->slot[k], (uint16_t)next);
}

// Reads the places after `start` - 1 and on, the last of them the row's last; `each`: learns and writes each
// at once. Returns how many were known already, or -1 where memory is short.
static int64_t read_row(Motifs *m, Place *at, const Row *row, int64_t start, int each, Notes *notes,
                        const Told *told, int64_t skip) {
    uint64_t hashes[BLOCK][MOST_ORDERS];
    int64_t known = 0, from = start - 1 - MOST_RUN < -1 ? -1 : start - 1 - MOST_RUN;
    at->run = 0;
    for (int64_t first = from; first < row->n; first += BLOCK) {
        int64_t stop = first + BLOCK < row->n ? first + BLOCK : row->n;
        for (int64_t i = first; i < stop; i++) row_hashes(m, row, i, hashes[i - first]);
        for (int64_t i = first; i < stop; i++) {
            int64_t last = i < 0 ? -1 : row->ids[i], next = i + 1 < row->n ? row->ids[i + 1] : -1;
            const uint64_t *own = hashes[i - first];
            read_place(at, own, last, next, told->probabilities != 0);
            int64_t place = i - start + skip;
            if (place >= 0 && place < row->n - start) tell(at, own, next, told, place);
            at->run = at->best >= 0 && at->best == next ? at->run + (at->run < MOST_RUN) : 0;
            if (i < start - 1 || next < 0) continue;
            known += is_known(at, next);
            if (notes && !note_place(notes, at, next)) return -1;
            if (!each) continue;
            learn_all(m, notes);
            write_place(m, at, own, last, next);
        }
    }
    return known;
}

// At how many places after `start` - 1 the longest context is there, and so could be known.
static int64_t n_whole(const Motifs *m, const Row *row, int64_t start) {
    int64_t n = 0;
    for (int64_t i = start < 1 ? 0 : start - 1; i + 1 < row->n; i++)
        n += row->begins[i] + m->order[m->n_orders - 1] <= i + 1;
    return n;
}

static void write_row(Motifs *m, Place *at, const Row *row, int64_t start) {
    uint64_t hashes[MOST_ORDERS];
    for (int64_t i = start - 1; i + 1 < row->n; i++) {
        row_hashes(m, row, i, hashes);
        find_slots(at, hashes);
        write_place(m, at, hashes, i < 0 ? -1 : row->ids[i], row->ids[i + 1]);
    }
}

static Told told_from(const Told *told, int64_t place, int64_t vocab_size) {
    return (Told){
        told->probabilities ? told->probabilities + place * vocab_size : 0,
        told->bits ? told->bits + place : 0,
        told->bucket ? told->bucket + place : 0,
        told->motif ? told->motif + place : 0,
        told->length ? told->length + place : 0,
        told->count ? told->count + place : 0,
    };
}

enum { READ, READ_THEN_WRITE, READ_AND_WRITE };

// Rows of `start` symbols of context (-1: nothing) and `n - start` of their own. `repeated`: (rows,) becomes 1 for
// a row that was written before, which READ_THEN_WRITE neither writes nor learns from. `skip` is 0 where each
// place tells of the symbol after it, 1 where of its own. Returns 0 where memory is short; nothing was written.
HELIX_EXPORT int64_t helix_topo_motifs_advance(Motifs *m, const int64_t *ids, int64_t rows, int64_t n, int64_t start,
                                               int64_t how, int64_t skip, const Told *told, int64_t *repeated) {
    Place at = {.motifs = m};
    Notes notes = {0};
    Row row = {.n = n};
    row.sums = malloc((size_t)(n + 1) * sizeof *row.sums);
    row.begins = malloc((size_t)(n + 1) * sizeof *row.begins);
    at.part = malloc((size_t)m->vocab_size * sizeof *at.part);
    at.stamp = calloc((size_t)m->vocab_size, sizeof *at.stamp);
    int64_t done = row.sums && row.begins && at.part && at.stamp;
    for (int64_t r = 0; r < rows && done; r++) {
        row.ids = ids + r * n;
        row_sums(m, &row);
        Told own = told_from(told, r * (n - start), m->vocab_size);
        int64_t before = notes.n;
        int64_t known = read_row(m, &at, &row, start, how == READ_AND_WRITE, how == READ ? 0 : &notes, &own, skip);
        int64_t whole = n_whole(m, &row, start);
        repeated[r] = known >= 0 && how == READ_THEN_WRITE && whole && 10 * known >= 9 * whole;
        if (repeated[r]) notes.n = before;
        done = known >= 0;
    }
    if (done && how == READ_THEN_WRITE) {
        learn_all(m, &notes);
        for (int64_t r = 0; r < rows; r++) {
            if (repeated[r]) continue;
            row.ids = ids + r * n;
            row_sums(m, &row);
            write_row(m, &at, &row, start);
        }
    }
    free(notes.lessons), free(row.sums), free(row.begins), free(at.part), free(at.stamp);
    return done;
}
