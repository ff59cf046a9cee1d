"""The conformance suite of alignments: what every alignment must do, whoever wrote it.

Subclass `AlignmentSuite`, give it an alignment, and pytest runs the rest::

    class TestProduct(AlignmentSuite):
        def make_alignment(self):
            return Product(d_model=self.d_model)
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.testing.suite import Suite, applies_when
from helix_multimodal.inputs import Padded, Tokens

if TYPE_CHECKING:
    from torch import Tensor

_reads_tokens = applies_when(
    "alignments of tokens with tokens", lambda suite: suite.seeded().reads in ("tokens", "vectors")
)


class AlignmentSuite(Suite):
    """Pytest class of the protocol of alignments (`helix_multimodal.protocols.Alignment`).

    A subclass overrides `make_alignment`.

    Attributes:
        d_model: Width of the tokens.
        tolerance: Largest difference of two scores in float64 that counts as none.
    """

    supplies = ("d_model",)
    d_model = 8
    tolerance = 1e-8

    def make_alignment(self) -> Any:
        """Return a new alignment, its weights drawn from torch's global generator."""
        return self.build(d_model=self.d_model)

    def test_says_what_it_reads(self) -> None:
        reads = self.seeded().reads
        assert reads in ("vectors", "tokens", "bytes"), (
            f"reads is {reads!r}, allowed is vectors, tokens or bytes" + self._see()
        )

    def test_scores_are_as_declared(self) -> None:
        alignment, (x, y) = self.seeded(torch.float32), self._sides(torch.float32)
        scores = alignment(x, y)
        assert tuple(scores.shape) == (4, 5), f"scores have shape {tuple(scores.shape)}, expected (4, 5)" + (
            self._see()
        )
        assert scores.dtype == torch.float32, f"an alignment in float32 gives {scores.dtype}" + self._see()
        assert scores.isfinite().all(), "scores are not finite" + self._see()

    def test_what_is_missing_has_the_score_0(self) -> None:
        x, y = self._sides()
        scores = self.seeded()(x, y)
        there = x.present[:, None] & y.present[None]
        assert not scores[~there].any(), "what is missing has scores other than 0" + self._see()
        assert scores[there].all(), "what is there has the score 0" + self._see()

    def test_a_score_depends_on_its_pair_alone(self) -> None:
        alignment, (x, y) = self.seeded(), self._sides()
        whole = alignment(x, y)
        for row in range(4):
            for column in range(5):
                alone = alignment(_row(x, row), _row(y, column))
                self._assert_close(
                    whole[row : row + 1, column : column + 1], alone, f"pair {row}, {column} is another alone"
                )

    def test_what_is_hidden_changes_nothing(self) -> None:
        alignment, (x, y) = self.seeded(), self._sides()
        scores = alignment(x, y)
        for filler in (1e6, float("nan")):
            hidden = x.values.masked_fill(~x.mask.unsqueeze(-1), filler)
            other = alignment(Tokens(hidden, x.mask), _filled(y, filler))
            self._assert_close(scores, other, f"{filler} under the mask changes the scores")

    def test_a_side_without_any_token_is_missing(self) -> None:
        alignment, (x, y) = self.seeded(), self._sides()
        for sides in ((_none(x), y), (x, _none(y))):
            scores = alignment(*sides)
            assert tuple(scores.shape) == (4, 5), f"scores have shape {tuple(scores.shape)}" + self._see()
            assert not scores.any(), "without any token there are scores other than 0" + self._see()

    def test_half_precision_gives_nearly_the_same(self) -> None:
        x, y = self._sides(torch.float32)
        expected = self.seeded(torch.float32)(x, y).detach()
        for dtype, off in ((torch.float16, 0.02), (torch.bfloat16, 0.2)):
            halves = (_to(side, dtype) for side in (x, y))
            scores = self.seeded(dtype)(*halves).detach().float()
            difference = float((scores - expected).abs().max() / expected.abs().max())
            assert difference <= off, f"in {dtype} scores are off by {difference:.1e} of the largest" + (
                self._see()
            )

    @_reads_tokens
    def test_what_is_the_same_scores_highest(self) -> None:
        """Where both sides are projected alike, nothing is more like a thing than itself."""
        alignment = self.seeded()
        for name, parameter in alignment.named_parameters():
            if name.endswith(("x_proj.weight", "y_proj.weight")):
                parameter.data = torch.eye(self.d_model, dtype=torch.float64)
            elif name.endswith(("x_proj.bias", "y_proj.bias")):
                parameter.data.zero_()
        x, _ = self._sides()
        shown = Tokens(x.values, x.mask)
        scores = alignment(shown, shown)[x.present][:, x.present]
        best = scores.argmax(1).tolist()
        assert best == list(range(len(best))), (
            f"of things compared with themselves the best partners are {best}" + self._see()
        )

    def test_gradients_reach_every_parameter_and_both_sides(self) -> None:
        alignment, (x, y) = self.seeded(torch.float32), self._sides(torch.float32)
        values = x.values.clone().requires_grad_()
        scores = alignment(Tokens(values, x.mask), y)
        torch.autograd.backward(torch.nn.functional.cross_entropy(scores, torch.arange(4)))
        for name, parameter in [("x", values), *alignment.named_parameters()]:
            assert parameter.grad is not None, f"no gradient reaches {name}: is it used?" + self._see()
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite" + self._see()
            # A bias that all tokens share may cancel; what matters is that weights do not.
            assert parameter.grad.any() or name.endswith("bias"), (
                f"the gradient of {name} is zero everywhere" + self._see()
            )

    def test_gradients_agree_with_finite_differences(self) -> None:
        alignment, (x, y) = self.seeded(), self._sides()

        def scores(values: Tensor) -> Tensor:
            found: Tensor = alignment(Tokens(values, x.mask), y)
            return found

        values = x.values.clone().requires_grad_()
        assert torch.autograd.gradcheck(scores, (values,), fast_mode=True), "backward is wrong" + self._see()

    def test_state_dict_holds_all_that_scores_depend_on(self) -> None:
        alignment, (x, y) = self.seeded(), self._sides()
        twin = self.seeded(seed=1)
        twin.load_state_dict(alignment.state_dict())
        self._assert_close(
            alignment(x, y), twin(x, y), "a twin that loaded the state_dict gives other scores"
        )

    def test_compiles_to_one_graph(self) -> None:
        alignment, (x, y) = self.seeded(torch.float32), self._sides(torch.float32)
        torch.compiler.reset()
        compiled: Any = torch.compile(alignment, fullgraph=True, backend="eager")
        with warnings.catch_warnings():
            # As it traces a torch.autograd.Function, the compiler warns of what it does itself.
            warnings.filterwarnings("ignore", ".*should not be instantiated", DeprecationWarning)
            scores = compiled(x, y)
        torch.testing.assert_close(scores, alignment(x, y))

    def seeded(self, dtype: torch.dtype = torch.float64, *, seed: int = 0) -> Any:
        """Return the alignment under test, the same in every run."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_alignment().to(dtype).eval()

    def _sides(self, dtype: torch.dtype = torch.float64) -> tuple[Tokens, Any]:
        reads = self.seeded().reads
        x = _tokens(4, 1 if reads == "vectors" else 9, dtype, seed=0)
        if reads == "bytes":
            generator = torch.Generator().manual_seed(1)
            text = torch.randint(97, 100, (5, 4), generator=generator, dtype=torch.uint8)
            return x, Padded(text, torch.tensor([[2], [1], [0], [3], [4]]))
        return x, _tokens(5, 1 if reads == "vectors" else 6, dtype, seed=1)

    def _assert_close(self, expected: Tensor, found: Tensor, what: str) -> None:
        difference = float((expected - found).detach().abs().max())
        # A comparison with NaN is false, so a NaN fails too.
        assert difference <= self.tolerance, f"{what}: by {difference:.1e}" + self._see()

    def _see(self) -> str:
        how = self.how("make_alignment()", d_model=self.d_model)
        return self.see(
            "import helix_kernel, torch",
            "from helix_multimodal.testing.alignments import _tokens",
            f"alignment = {how}.double().eval()",
            "alignment(_tokens(4, 9, torch.float64, seed=0), _tokens(5, 6, torch.float64, seed=1))",
        )


def _tokens(rows: int, length: int, dtype: torch.dtype, *, seed: int) -> Tokens:
    """Return tokens of which the third row is missing, and others have holes."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, length, 8, generator=generator, dtype=torch.float64).to(dtype)
    mask = torch.rand(rows, length, generator=generator) < 0.8
    mask[:, 0] = True
    mask[2] = False
    return Tokens(values, mask)


def _row(side: Any, row: int) -> Any:
    return type(side)(*(tensor[row : row + 1] for tensor in side))


def _none(side: Any) -> Any:
    """Return a side whose every row has no token, nor room for one."""
    if isinstance(side, Tokens):
        return Tokens(side.values[:, :0], side.mask[:, :0])
    return Padded(side.values[:, :0], torch.zeros_like(side.sizes))


def _to(side: Any, dtype: torch.dtype) -> Any:
    return Tokens(side.values.to(dtype), side.mask) if isinstance(side, Tokens) else side


def _filled(side: Any, filler: float) -> Any:
    if isinstance(side, Tokens):
        return Tokens(side.values.masked_fill(~side.mask.unsqueeze(-1), filler), side.mask)
    return Padded(side.values.masked_fill(~side.within(0), 255), side.sizes)
