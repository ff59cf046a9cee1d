// Numbers that lie in pairs, such as real and imaginary parts, taken apart into two vectors and put together.

#pragma once

#include <utility>

#include "vector.h"

namespace helix {

struct Pair {
    vf first, second;
};

namespace lanes {

template <int... I>
inline vf pick(vf a, vf b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, I...);
#else
    return __builtin_shuffle(a, b, vi{I...});
#endif
}

// Lanes START, START + 2, ... of a and b in a row.
template <int START, int... I>
inline vf every_other(vf a, vf b, std::integer_sequence<int, I...>) {
    return pick(a, b, std::integer_sequence<int, (START + 2 * I)...>());
}

// Lanes of a and b in turn, from lane START on.
template <int START, int... I>
inline vf in_turn(vf a, vf b, std::integer_sequence<int, I...>) {
    return pick(a, b, std::integer_sequence<int, (START + I / 2 + I % 2 * W)...>());
}

}  // namespace lanes

// From a and b, W pairs in a row, the first of each pair and the second of each.
inline Pair deinterleave(vf a, vf b) {
    constexpr auto all = std::make_integer_sequence<int, W>();
    return {lanes::every_other<0>(a, b, all), lanes::every_other<1>(a, b, all)};
}

inline Pair interleave(Pair x) {
    constexpr auto all = std::make_integer_sequence<int, W>();
    return {lanes::in_turn<0>(x.first, x.second, all), lanes::in_turn<W / 2>(x.first, x.second, all)};
}

}  // namespace helix
