// Copies of tensors with their last two dimensions exchanged, for callers whose time runs along the rows.

#include <algorithm>

#include "call.h"
#include "parallel.h"
#include "transpose.h"

namespace helix {
namespace {

struct Arguments {
    const float* in;  // (B, R, C), batches and rows apart by their strides
    float* out;       // (B, C, R)
    int64_t batch_size, n_rows, n_columns, batch_stride, row_stride;
};

// Columns copied at a time: few enough rows of `out` for the pages that they lie in to stay known.
constexpr int64_t COLUMNS = 64;

void run(const Arguments& a, int64_t threads) {
    const int64_t n_blocks = (a.n_columns + COLUMNS - 1) / COLUMNS;
    for_blocks(a.batch_size * n_blocks, threads, [&](int64_t i) {
        const int64_t batch = i / n_blocks, begin = i % n_blocks * COLUMNS;
        const float* in = a.in + batch * a.batch_stride + begin;
        float* out = a.out + (batch * a.n_columns + begin) * a.n_rows;
        transpose(in, a.row_stride, a.n_rows, std::min(COLUMNS, a.n_columns - begin), out, a.n_rows);
    });
}

}  // namespace
}  // namespace helix

HELIX_KERNEL(transposed_copy, helix::Arguments, helix::run)
