// Transposition of square tiles of W vectors in two steps: lanes within quads of four, then the quads.

#pragma once

#include <utility>

#include "always_inline.h"
#include "vector.h"

namespace helix {

constexpr int QUADS = W / 4;

namespace picking {

template <typename Pick, int... I>
HELIX_INLINE vf lanes(vf a, vf b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, Pick::lane(I)...);
#else
    return __builtin_shuffle(a, b, vi{Pick::lane(I)...});
#endif
}

template <int HALF>
struct Interleaved {  // of each quad a0 b0 a1 b1, or the same of its upper half
    static constexpr int lane(int i) { return i / 4 * 4 + 2 * HALF + i % 4 / 2 + i % 2 * W; }
};

template <int HALF>
struct Paired {  // of each quad a0 a1 b0 b1, or the same of its upper half
    static constexpr int lane(int i) { return i / 4 * 4 + 2 * HALF + i % 2 + i % 4 / 2 * W; }
};

template <int ODD>
struct Alternate {  // the even quads of a, then those of b, or the odd ones
    static constexpr int lane(int i) {
        const int quad = i / 4 < QUADS / 2 ? i / 4 : i / 4 - QUADS / 2;
        return (2 * quad + ODD) * 4 + i % 4 + (i / 4 < QUADS / 2 ? 0 : W);
    }
};

}  // namespace picking

// The vector whose lane i is lane Pick::lane(i) of a, counted on into b.
template <typename Pick>
HELIX_INLINE vf pick(vf a, vf b) {
    return picking::lanes<Pick>(a, b, std::make_integer_sequence<int, W>());
}

// Transposes v[0..4) as four by four lanes in each quad.
HELIX_INLINE void transpose_within_quads(vf* v) {
    using namespace picking;
    const vf a = pick<Interleaved<0>>(v[0], v[1]), b = pick<Interleaved<1>>(v[0], v[1]);
    const vf c = pick<Interleaved<0>>(v[2], v[3]), d = pick<Interleaved<1>>(v[2], v[3]);
    v[0] = pick<Paired<0>>(a, c);
    v[1] = pick<Paired<1>>(a, c);
    v[2] = pick<Paired<0>>(b, d);
    v[3] = pick<Paired<1>>(b, d);
}

// Transposes v[0..QUADS) as a matrix of quads.
HELIX_INLINE void transpose_quads(vf* v) {
    using namespace picking;
    if constexpr (QUADS == 2) {
        const vf a = v[0];
        v[0] = pick<Alternate<0>>(a, v[1]);
        v[1] = pick<Alternate<1>>(a, v[1]);
    } else if constexpr (QUADS == 4) {
        const vf a = pick<Alternate<0>>(v[0], v[1]), b = pick<Alternate<1>>(v[0], v[1]);
        const vf c = pick<Alternate<0>>(v[2], v[3]), d = pick<Alternate<1>>(v[2], v[3]);
        v[0] = pick<Alternate<0>>(a, c);
        v[1] = pick<Alternate<0>>(b, d);
        v[2] = pick<Alternate<1>>(a, c);
        v[3] = pick<Alternate<1>>(b, d);
    }
}

// Transposes a tile v[0..W).
HELIX_INLINE void transpose_tile(vf* v) {
    for (int a = 0; a < QUADS; a++) transpose_within_quads(v + 4 * a);
    for (int c = 0; c < 4; c++) {
        vf column[QUADS];
        for (int a = 0; a < QUADS; a++) column[a] = v[4 * a + c];
        transpose_quads(column);
        for (int a = 0; a < QUADS; a++) v[4 * a + c] = column[a];
    }
}

}  // namespace helix
