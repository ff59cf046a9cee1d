"""Alignments against plain loops and SciPy, and each by its suite."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from helix_kernel.errors import ArgumentError
from helix_multimodal.alignment.ctc import CTC
from helix_multimodal.alignment.info_nce import InfoNCE
from helix_multimodal.alignment.pairs import Scale
from helix_multimodal.alignment.sinkhorn import Sinkhorn, _log_masses, _scaled_transport, transport
from helix_multimodal.alignment.soft_dtw import SoftDTW, soft_dtw
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.testing.alignments import AlignmentSuite


class TestInfoNCE(AlignmentSuite):
    def make_alignment(self):
        return InfoNCE(8)


class TestSoftDTW(AlignmentSuite):
    def make_alignment(self):
        return SoftDTW(8)


class TestSoftDTWWithoutDivergence(AlignmentSuite):
    def make_alignment(self):
        return SoftDTW(8, divergence=False, gamma=0.01)


class TestSinkhorn(AlignmentSuite):
    def make_alignment(self):
        return Sinkhorn(8)


class TestSinkhornInTheLogarithmicDomain(AlignmentSuite):
    def make_alignment(self):
        return Sinkhorn(8, epsilon=0.02)


class TestCTC(AlignmentSuite):
    def make_alignment(self):
        return CTC(8, upsample=2)

    @torch.no_grad()
    def test_compiles_to_one_graph(self):
        """It compiles to two: torch's ctc_loss stands between them."""
        alignment, (x, y) = self.seeded(torch.float32), self._sides(torch.float32)
        torch.compiler.reset()
        compiled = torch.compile(alignment, backend="eager")
        torch.testing.assert_close(compiled(x, y), alignment(x, y))


def plain_soft_dtw(cost, gamma):
    """Cuturi & Blondel 2017, algorithm 1, cell by cell."""
    n, m = cost.shape
    r = np.full((n + 1, m + 1), np.inf)
    r[0, 0] = 0
    for i, j in itertools.product(range(1, n + 1), range(1, m + 1)):
        ways = np.array([r[i - 1, j - 1], r[i - 1, j], r[i, j - 1]])
        least = ways.min()
        r[i, j] = cost[i - 1, j - 1] + least - gamma * np.log(np.exp(-(ways - least) / gamma).sum())
    return r[n, m]


@pytest.mark.parametrize("gamma", [1.0, 0.1, 1e-3])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (5, 7), (7, 3)])
def test_soft_dtw_is_that_of_the_plain_loop(size, gamma):
    draw = np.random.default_rng(0)
    costs = draw.random((3, *size))
    lengths = [(draw.integers(1, size[0] + 1), draw.integers(1, size[1] + 1)) for _ in range(3)]
    n, m = (torch.tensor([pair[axis] for pair in lengths]) for axis in (0, 1))
    found = soft_dtw(torch.from_numpy(costs), n, m, gamma=gamma)
    expected = [plain_soft_dtw(cost[:a, :b], gamma) for cost, (a, b) in zip(costs, lengths, strict=True)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "y", "gamma", "least", "most"),
    [
        ([1, 2, 2, 3], [1, 2, 3, 4], 1.0, -0.90, -0.89),
        # It is 0.09 - 1.4e-35, which rounding puts on either side of 0.09.
        ([1, 2, 3, 3], [1, 2, 2.1, 3.2], 0.01, 0.089, 0.090 + 1e-12),
    ],
)
def test_soft_dtw_is_what_tslearn_tells_of_its_own(x, y, gamma, least, most):
    """The examples of its documentation, to the digits printed there; costs are squared differences."""
    one, other = (torch.tensor(each, dtype=torch.float64) for each in (x, y))
    cost = (one[:, None] - other[None]).square()[None]
    found = soft_dtw(cost, torch.tensor([4]), torch.tensor([4]), gamma=gamma)
    assert least <= found.item() <= most


def test_the_divergence_of_a_sequence_from_itself_is_zero():
    torch.manual_seed(0)
    alignment = SoftDTW(4, gamma=1.0).double()
    alignment.directions.y_proj.load_state_dict(alignment.directions.x_proj.state_dict())
    x = Tokens(torch.randn(3, 5, 4, dtype=torch.float64), torch.arange(5) < torch.tensor([[5], [3], [1]]))
    scores = alignment(x, x)
    torch.testing.assert_close(scores.diagonal(), torch.zeros(3, dtype=torch.float64))
    assert (scores[~torch.eye(3, dtype=torch.bool)] < 0).all()


def hard_dtw(cost):
    """Sakoe & Chiba 1978, with steps of one each way: the least over all paths, each walked out."""
    n, m = cost.shape

    def least_from(i, j):
        further = [(i + a, j + b) for a, b in ((1, 1), (1, 0), (0, 1)) if i + a < n and j + b < m]
        return cost[i, j] + min((least_from(*place) for place in further), default=0)

    return least_from(0, 0)


def test_as_gamma_nears_0_it_is_dynamic_time_warping():
    costs = np.random.default_rng(2).random((4, 5, 4))
    lengths = torch.tensor([5] * 4), torch.tensor([4] * 4)
    found = soft_dtw(torch.from_numpy(costs), *lengths, gamma=1e-6)
    np.testing.assert_allclose(found.numpy(), [hard_dtw(cost) for cost in costs], atol=1e-5)


def test_gradients_of_gradients_are_refused():
    cost = torch.rand(1, 2, 2, requires_grad=True)
    found = soft_dtw(cost, torch.tensor([2]), torch.tensor([2]), gamma=1.0)
    (gradient,) = torch.autograd.grad(found.square().sum(), cost, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(gradient.sum())


@pytest.mark.parametrize("wanted", [20.0, 1000.0])
def test_a_scale_is_100_at_most_and_training_does_not_stick_there(wanted):
    """Adam finds the number that the loss asks for from 150, which is above the bound, or stays at 100."""
    scale = Scale(0.01)
    scale.log_scale.data.fill_(math.log(150))
    optimizer = torch.optim.Adam(scale.parameters(), lr=0.02)
    for _ in range(300):
        scaled = scale(torch.ones(()))
        assert scaled <= 100.001
        optimizer.zero_grad()
        torch.autograd.backward((scaled.log() - math.log(wanted)).square())
        optimizer.step()
    assert scaled.item() == pytest.approx(min(wanted, 100), rel=0.03)


@pytest.mark.parametrize("make", [InfoNCE, SoftDTW, Sinkhorn, CTC])
def test_autocast_to_float16_stays_finite(make):
    torch.manual_seed(0)
    alignment = make(8)
    x = Tokens(torch.randn(2, 6, 8), torch.ones(2, 6, dtype=torch.bool))
    y = Padded(torch.tensor([[97], [98]], dtype=torch.uint8), torch.tensor([[1], [1]])) if make is CTC else x
    with torch.autocast("cpu", torch.float16):
        scores = alignment(x, y)
    torch.testing.assert_close(scores.float(), alignment(x, y), atol=0.1, rtol=0.01)


def test_soft_dtw_counts_ways_to_warp():
    """Of costs 0 the soft minimum is minus the logarithm of the number of ways (Delannoy numbers)."""
    ways = soft_dtw(
        torch.zeros(1, 4, 4, dtype=torch.float64), torch.tensor([4]), torch.tensor([4]), gamma=1.0
    )
    assert round(math.exp(-float(ways))) == 63


def test_gradients_of_soft_dtw_are_right():
    cost = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([3, 2]), torch.tensor([4, 3])
    assert torch.autograd.gradcheck(lambda c: soft_dtw(c, *lengths, gamma=0.3), (cost,))


def test_transport_meets_its_margins_and_nears_the_cheapest_plan():
    draw = np.random.default_rng(0)
    cost, a, b = draw.random((4, 6)), draw.dirichlet(np.ones(4)), draw.dirichlet(np.ones(6))
    logs = torch.from_numpy(np.log(a)), torch.from_numpy(np.log(b))
    plan = transport(torch.from_numpy(cost), *logs, epsilon=2e-3, n_iterations=3000).numpy()
    np.testing.assert_allclose(plan.sum(0), b, rtol=1e-9)
    np.testing.assert_allclose(plan.sum(1), a, rtol=1e-3)
    margins = np.concatenate([np.kron(np.eye(4), np.ones(6)), np.kron(np.ones(4), np.eye(6))])
    best = linprog(cost.ravel(), A_eq=margins, b_eq=np.concatenate([a, b]))
    assert best.fun - 1e-9 <= (plan * cost).sum() <= best.fun * 1.02


def test_both_domains_find_one_plan():
    cost = 2 * torch.rand(3, 4, 5, dtype=torch.float64)
    shown = torch.tensor([[True, True, False, True]]), torch.ones(1, 5) > 0
    masses = [_log_masses(mask, torch.float64) for mask in shown]
    plans = [find(cost, *masses, epsilon=0.1, n_iterations=30) for find in (transport, _scaled_transport)]
    torch.testing.assert_close(*plans)


def test_transport_of_equal_masses_is_an_assignment():
    cost = np.random.default_rng(1).random((5, 5))
    masses = torch.full((5,), -math.log(5), dtype=torch.float64)
    plan = transport(torch.from_numpy(cost), masses, masses, epsilon=2e-3, n_iterations=2000)
    rows, columns = linear_sum_assignment(cost)
    assert plan.argmax(1).tolist() == columns[rows].tolist()


def test_ctc_sums_over_all_ways_to_write_a_text():
    torch.manual_seed(0)
    alignment = CTC(4).double()
    x = Tokens(torch.randn(1, 4, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool))
    likely = alignment._log_probabilities(x)[0].exp().tolist()
    text = b"ab"
    total = 0.0
    for path in itertools.product([97, 98, 256], repeat=4):
        said = bytes(symbol for symbol, _ in itertools.groupby(path) if symbol != 256)
        if said == text:
            total += math.prod(likely[place][symbol] for place, symbol in enumerate(path))
    y = Padded(torch.tensor([list(text)], dtype=torch.uint8), torch.tensor([[2]]))
    assert alignment(x, y).item() == pytest.approx(math.log(total) / 2)


def test_a_text_that_does_not_fit_scores_below_any_guess():
    torch.manual_seed(0)
    alignment = CTC(4).double()
    x = Tokens(torch.randn(1, 3, 4, dtype=torch.float64), torch.ones(1, 3, dtype=torch.bool))
    y = Padded(
        torch.tensor([list(b"abc"), list(b"aab"), list(b"aa\0")], dtype=torch.uint8),
        torch.tensor([[3], [3], [2]]),
    )
    scores = alignment(x, y)[0]
    assert scores[1] == -20  # a, blank, a, b are four places
    assert (scores[[0, 2]] > -20).all()


def test_the_order_of_tokens_matters_in_time_and_not_in_space():
    torch.manual_seed(0)
    x = Tokens(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool))
    y = Tokens(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool))
    turned = Tokens(y.values.flip(1), y.mask)
    space, time = Sinkhorn(8), SoftDTW(8)
    torch.testing.assert_close(space(x, y), space(x, turned))
    assert not torch.allclose(time(x, y), time(x, turned))


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: InfoNCE(8, temperature=0), "temperature is 0"),
        (lambda: SoftDTW(8, gamma=0), "gamma is 0"),
        (lambda: Sinkhorn(8, epsilon=-1), "epsilon is -1"),
        (lambda: CTC(8, upsample=0), "upsample is 0"),
    ],
)
def test_what_is_out_of_range_is_refused(make, match):
    with pytest.raises(ArgumentError, match=match):
        make()
