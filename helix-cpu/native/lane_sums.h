// Sums over the lanes of many vectors at once.

#pragma once

#include <utility>

#include "vector.h"

namespace helix {

// Lanes whose number has the bit come of b, the others of a, each with its neighbour across that bit added.
template <int BIT, int... LANES>
inline vf fold(vf a, vf b, std::integer_sequence<int, LANES...>) {
    return shuffle<(LANES & BIT ? LANES + W : LANES)...>(a, b) +
           shuffle<(LANES & BIT ? LANES - BIT + W : LANES + BIT)...>(a, b);
}

template <int BIT>
inline void fold_all(vf* x) {
    for (int i = 0; i < BIT; i++) x[i] = fold<BIT>(x[i], x[i + BIT], std::make_integer_sequence<int, W>());
    if constexpr (BIT > 1) fold_all<BIT / 2>(x);
}

// Lane i of the result is the sum over the lanes of x[i]; x is overwritten.
inline vf sum_each(vf (&x)[W]) {
    fold_all<W / 2>(x);
    return x[0];
}

}  // namespace helix
