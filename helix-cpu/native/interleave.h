// Numbers that lie in pairs, such as real and imaginary parts, taken apart into two vectors and put together.

#pragma once

#include <utility>

#include "vector.h"

namespace helix {

struct Pair {
    vf first, second;
};

namespace pairs {

// Lanes START, START + 2, ... of a and b in a row.
template <int START, int... I>
inline vf every_other(vf a, vf b, std::integer_sequence<int, I...>) {
    return shuffle<(START + 2 * I)...>(a, b);
}

// Lanes of a and b in turn, from lane START on.
template <int START, int... I>
inline vf in_turn(vf a, vf b, std::integer_sequence<int, I...>) {
    return shuffle<(START + I / 2 + I % 2 * W)...>(a, b);
}

}  // namespace pairs

// From a and b, W pairs in a row, the first of each pair and the second of each.
inline Pair deinterleave(vf a, vf b) {
    constexpr auto all = std::make_integer_sequence<int, W>();
    return {pairs::every_other<0>(a, b, all), pairs::every_other<1>(a, b, all)};
}

inline Pair interleave(Pair x) {
    constexpr auto all = std::make_integer_sequence<int, W>();
    return {pairs::in_turn<0>(x.first, x.second, all), pairs::in_turn<W / 2>(x.first, x.second, all)};
}

}  // namespace helix
