"""Where a chunk's tokens lie, and which chunks a sequence has: see `helix_cuda.ops.chunks.Chunks`.

`per_row` is 0 in a packed call. Tokens are counted over the whole batch, in int64.
"""

import triton
import triton.language as tl


@triton.jit
def tokens_of(slot, bounds, per_row, seq_len, SIZE: tl.constexpr, PACKED: tl.constexpr):
    """Return the first token of a slot's chunk and the end of its tokens; both alike where it is empty."""
    if PACKED:
        first = tl.load(bounds + slot)
        end = tl.load(bounds + slot + 1)
    else:
        row = (slot // per_row).to(tl.int64) * seq_len
        first = row + (slot % per_row) * SIZE
        end = tl.minimum(first + SIZE, row + seq_len)
    return first, end


@triton.jit
def slots_of(sequence, firsts, per_row, PACKED: tl.constexpr):
    """Return the first slot of a sequence and the end of its slots; both alike where it has no token."""
    if PACKED:
        first = tl.load(firsts + sequence).to(tl.int32)
        end = tl.load(firsts + sequence + 1).to(tl.int32)
    else:
        first = sequence * per_row
        end = first + per_row
    return first, end
