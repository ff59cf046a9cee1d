from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.mamba2 import modeling_mamba2

from helix_kernel.backends import BackendSelector
from helix_kernel.errors import ArgumentError
from helix_ssm.ops import selective_scan, ssd_scan
from helix_ssm.ops.chunked import ChunkedBackend
from helix_ssm.ops.chunked.ssd import Chunk
from helix_ssm.ops.chunked.ssd_scan import ssd_scan as chunked
from helix_ssm.ops.chunked.ssd_scan import ssd_scan_backward as chunked_backward
from helix_ssm.ops.ssd_scan import CHUNK, contract


@pytest.fixture(params=["reference", "torch-chunked"])
def _each_backend(request):
    with BackendSelector({"torch-chunked": ChunkedBackend()}).using([request.param]):
        yield


def draw(*shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def arguments(batch_size=2, seq_len=CHUNK + 6, n_heads=4, head_dim=3, groups=2, d_state=5):
    return {
        "x": draw(batch_size, seq_len, n_heads, head_dim),
        "dt": draw(batch_size, seq_len, n_heads).abs(),
        "A": -draw(n_heads).exp(),
        "B": draw(batch_size, seq_len, groups, d_state),
        "C": draw(batch_size, seq_len, groups, d_state) + 1,
    }


def cut(given, part):
    return {name: tensor if name == "A" else tensor[:, part] for name, tensor in given.items()}


def widen(value):
    return value.double() if isinstance(value, torch.Tensor) else value


@pytest.mark.usefixtures("_each_backend")
def test_it_is_the_papers_masked_matrix():
    """Equation 6 for one head: y_i = sum over j <= i of C_i B_j exp(A (dt_{j+1} + … + dt_i)) dt_j x_j."""
    given = arguments(batch_size=1, n_heads=1, groups=1)
    x, dt, B, C = (given[name][0, :, 0] for name in ("x", "dt", "B", "C"))
    expected = torch.zeros_like(x)
    for i in range(len(x)):
        for j in range(i + 1):
            decay = torch.exp(given["A"][0] * dt[j + 1 : i + 1].sum())
            expected[i] += (C[i] @ B[j]) * decay * dt[j] * x[j]
    torch.testing.assert_close(ssd_scan(**given)[0, :, 0], expected)


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_agrees_with_transformers(dtype):
    given = {name: tensor.float() for name, tensor in arguments().items()}
    extra = {"D": draw(4).float(), "dt_bias": draw(4).float(), "dt_softplus": True, "dt_limit": (0.2, 1.0)}
    state = draw(2, 4, 3, 5).float()
    expected, final = modeling_mamba2.mamba2_chunk_scan(
        *given.values(), chunk_size=16, **extra, initial_states=state, return_final_states=True
    )
    widened = {name: tensor.to(dtype) for name, tensor in given.items()}
    y, last = ssd_scan(**widened, **extra, initial_state=state, return_final_state=True)
    assert y.dtype == last.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last.float(), final, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("_each_backend")
def test_it_is_a_selective_scan_whose_channels_decay_alike():
    given, D = arguments(), draw(4, 3)
    heads = {"u": given["x"].flatten(2), "delta": given["dt"].repeat_interleave(3, dim=2)}
    A = given["A"].repeat_interleave(3)[:, None].expand(12, 5)
    expected = selective_scan(**heads, A=A, B=given["B"], C=given["C"], D=D.flatten())
    torch.testing.assert_close(ssd_scan(**given, D=D).flatten(2), expected)


@pytest.mark.usefixtures("_each_backend")
@pytest.mark.parametrize("at", [1, 11, CHUNK + 5])
def test_it_goes_on_from_its_final_state(at):
    given = arguments()
    whole, last = ssd_scan(**given, return_final_state=True)
    first, state = ssd_scan(**cut(given, slice(at)), return_final_state=True)
    second, end = ssd_scan(**cut(given, slice(at, None)), initial_state=state, return_final_state=True)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(end, last)


@pytest.mark.usefixtures("_each_backend")
def test_packed_sequences_are_run_one_by_one():
    given, bounds = arguments(batch_size=1, seq_len=20), [0, 1, 9, 9, 20]
    packed, states = ssd_scan(**given, cu_seqlens=torch.tensor(bounds), return_final_state=True)
    for i, (start, end) in enumerate(pairwise(bounds)):
        y, state = ssd_scan(**cut(given, slice(start, end)), return_final_state=True)
        torch.testing.assert_close(packed[:, start:end], y)
        torch.testing.assert_close(states[i : i + 1], state)


@pytest.mark.usefixtures("_each_backend")
def test_bfloat16_is_computed_in_float32():
    given = {name: tensor.to(torch.bfloat16) for name, tensor in arguments().items()}
    y, state = ssd_scan(**given, D=draw(4).bfloat16(), return_final_state=True)
    wide = ssd_scan(**{name: tensor.float() for name, tensor in given.items()}, D=draw(4).bfloat16())
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(y, wide.to(torch.bfloat16))


def test_a_strong_decay_does_not_spoil_the_weak_ones_after_it():
    given = {name: tensor.float() for name, tensor in arguments(seq_len=CHUNK).items()}
    given["dt"] = torch.full_like(given["dt"], 0.01)
    given["dt"][:, 5] = 1e5
    given["x"][:, 5] = 0  # what enters with such a step would outweigh all else
    values = (*given.values(), None, None, False, None, None, None)
    (y, _), (exact, _) = chunked(*values), contract.reference(*map(widen, values))
    assert (y - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_decays_have_no_numbers_so_small_that_processors_slow_down():
    dt, projections = torch.ones(1, CHUNK, 1, 1), torch.ones(1, CHUNK, 1, 2)
    chunk = Chunk.cut(torch.ones(1, CHUNK, 1, 1, 3), dt, -1.7 * dt, projections, projections)
    for decays in (chunk._decays(), chunk._from_start(), chunk._to_end()):
        assert decays.max() <= 1
        assert decays[decays > 0].min() > 1e-27
        assert (decays == 0).any()


@pytest.mark.parametrize("seq_len", [CHUNK, 3 * CHUNK, CHUNK + 7])
def test_the_flop_formula_counts_the_products_of_the_chunked_form(seq_len):
    given = arguments(seq_len=seq_len, n_heads=4, head_dim=32, groups=2, d_state=48)
    values = (*given.values(), None, None, False, None, None, None)
    with FlopCounterMode(display=False) as products:
        y, _ = chunked(*values)
    with FlopCounterMode(display=False) as gradients:
        chunked_backward(y, None, *values)
    shapes = [getattr(value, "shape", value) for value in values]
    for found, formula in ((products, contract.flops), (gradients, contract.backward_flops)):
        assert found.get_total_flops() <= formula(*shapes) <= 1.2 * found.get_total_flops()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": draw(2, 70, 12)}, r"x has shape \(2, 70, 12\), allowed is \(any, any, any, any\)"),
        ({"dt": draw(2, 70, 3)}, r"dt has shape \(2, 70, 3\), allowed is \(2, 70, 4\)"),
        ({"A": draw(4, 5)}, r"A has shape \(4, 5\), allowed is \(4\)"),
        ({"A": draw(2, 70, 3)}, r"A has shape \(2, 70, 3\), allowed is \(2, 70, 4\)"),
        ({"B": draw(2, 70, 3, 5), "C": draw(2, 70, 3, 5)}, "3 groups, which do not divide the 4 heads"),
        ({"C": draw(2, 70, 2, 4)}, "C has shape"),
        ({"D": draw(4, 2)}, r"D has shape \(4, 2\), allowed is \(4, 3\)"),
        ({"D": draw(3)}, r"D has shape \(3,\), allowed is \(4\)"),
        ({"dt_bias": draw(3)}, "dt_bias has shape"),
        ({"dt_limit": (1.0, 0.5)}, r"dt_limit is \(1.0, 0.5\), allowed is"),
        ({"initial_state": draw(2, 4, 5, 3)}, r"allowed is \(2, 4, 3, 5\)"),
        ({"cu_seqlens": torch.tensor([0, 70])}, "the batch size is 2"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        ssd_scan(**{**arguments(), **change})
