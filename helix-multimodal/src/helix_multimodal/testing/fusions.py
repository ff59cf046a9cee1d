"""The conformance suite of fusions: what every fusion must do, whoever wrote it.

Subclass `FusionSuite`, give it a fusion, and pytest runs the rest::

    class TestSum(FusionSuite):
        def make_fusion(self, parts):
            return Sum(d_model=self.d_model, d_out=self.d_out, parts=parts)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.suite import Suite
from helix_multimodal.inputs import Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

_PARTS = ("picture", "sound", "text")
_LENGTHS = {"picture": 5, "sound": 8, "text": 3}


class FusionSuite(Suite):
    """Pytest class of the protocol of fusions (`helix_multimodal.protocols.Fusion`).

    A subclass overrides `make_fusion`.

    Attributes:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors.
        tolerance: Largest difference of two outputs in float64 that counts as none.
    """

    supplies = ("d_model", "d_out", "parts")
    d_model = 8
    d_out = 6
    tolerance = 1e-9
    parts: Sequence[str] = _PARTS

    def make_fusion(self, parts: Sequence[str]) -> nn.Module:
        """Return a new fusion of the parts named, its weights drawn from torch's global generator."""
        fusion: nn.Module = self.build(d_model=self.d_model, d_out=self.d_out, parts=tuple(parts))
        return fusion

    def test_vectors_are_as_declared(self) -> None:
        fused = self._fusion(torch.float32)(_parts(torch.float32))
        assert tuple(fused.shape) == (5, self.d_out), (
            f"the vectors have shape {tuple(fused.shape)}, expected (5, {self.d_out})" + self._see()
        )
        assert fused.dtype == torch.float32, f"a fusion in float32 gives {fused.dtype}" + self._see()
        assert fused.isfinite().all(), "the vectors are not finite" + self._see()

    def test_what_is_hidden_changes_nothing(self) -> None:
        """Nor may it be NaN: what lies under the mask is not read."""
        fusion, parts = self._fusion(), _parts()
        for filler in (1e6, float("nan")):
            other = {
                name: Tokens(t.values.masked_fill(~t.mask.unsqueeze(-1), filler), t.mask)
                for name, t in parts.items()
            }
            self._assert_close(fusion(parts), fusion(other), f"{filler} under the mask changes the vectors")

    def test_more_padding_changes_nothing(self) -> None:
        fusion, parts = self._fusion(), _parts()
        longer = {
            name: Tokens(
                torch.cat([t.values, torch.ones_like(t.values[:, :2])], 1),
                torch.cat([t.mask, torch.zeros_like(t.mask[:, :2])], 1),
            )
            for name, t in parts.items()
        }
        self._assert_close(fusion(parts), fusion(longer), "tokens that are not there change the vectors")

    def test_a_part_without_room_for_a_token_is_missing(self) -> None:
        fusion, parts = self._fusion(), _parts()
        sound = parts["sound"]
        hidden = {**parts, "sound": Tokens(sound.values, torch.zeros_like(sound.mask))}
        without = {**parts, "sound": Tokens(sound.values[:, :0], sound.mask[:, :0])}
        self._assert_close(fusion(hidden), fusion(without), "a part of no tokens is not as a hidden one")

    def test_half_precision_gives_nearly_the_same(self) -> None:
        expected = self._fusion(torch.float32)(_parts(torch.float32)).detach()
        for dtype, off in ((torch.float16, 0.02), (torch.bfloat16, 0.15)):
            fused = self._fusion(dtype)(_parts(dtype)).detach().float()
            difference = float((fused - expected).abs().max() / expected.abs().max())
            assert difference <= off, f"in {dtype} vectors are off by {difference:.1e} of the largest" + (
                self._see()
            )

    def test_a_row_that_lacks_all_is_zero(self) -> None:
        fusion, parts = self._fusion(), _parts()
        gone = {name: Tokens(t.values, t.mask & (torch.arange(5) != 2)[:, None]) for name, t in parts.items()}
        row = fusion(gone)[2]
        assert not row.any(), f"a row without any part has the vector {row.tolist()}, allowed are zeros" + (
            self._see()
        )

    def test_a_row_is_as_alone(self) -> None:
        fusion, parts = self._fusion(), _parts()
        whole = fusion(parts)
        for row in range(5):
            alone = {
                name: Tokens(t.values[row : row + 1], t.mask[row : row + 1]) for name, t in parts.items()
            }
            self._assert_close(whole[row : row + 1], fusion(alone), f"row {row} is another alone")

    def test_every_part_that_is_there_counts(self) -> None:
        fusion, parts = self._fusion(), _parts()
        for name in _PARTS:
            values = parts[name].values.clone().requires_grad_()
            fused = fusion({**parts, name: Tokens(values, parts[name].mask)})
            (gradient,) = torch.autograd.grad(fused.square().sum(), values)
            moved = gradient.abs().sum((1, 2)) > 0
            there = parts[name].present
            assert moved.equal(there), (
                f"rows whose {name} counts are {moved.tolist()}, those that have one {there.tolist()}"
                + self._see()
            )

    def test_the_order_of_the_mapping_does_not_matter(self) -> None:
        fusion, parts = self._fusion(), _parts()
        turned = dict(reversed(parts.items()))
        assert fusion(parts).equal(fusion(turned)), "another order of the mapping gives other vectors" + (
            self._see()
        )

    def test_one_part_is_enough(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            fusion = self.make_fusion(["text"]).double().eval()
        fused = fusion({"text": _parts()["text"]})
        assert tuple(fused.shape) == (5, self.d_out), f"of one part the shape is {tuple(fused.shape)}"

    def test_another_part_is_refused(self) -> None:
        fusion, parts = self._fusion(), _parts()
        without = {name: tokens for name, tokens in parts.items() if name != "sound"}
        for what, given in (("a missing", without), ("an unknown", {**parts, "sond": parts["sound"]})):
            said = _refusal(fusion, given)
            assert said is not None, f"{what} part is not refused; raise ArgumentError" + self._see()
            assert "sound" in said, f"the error about {what} part does not name 'sound': {said}"

    def test_gradients_reach_every_parameter(self) -> None:
        fusion = self._fusion(torch.float32)
        fusion(_parts(torch.float32)).square().sum().backward()
        for name, parameter in fusion.named_parameters():
            assert parameter.grad is not None, f"no gradient reaches {name}: is it used?" + self._see()
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite" + self._see()
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere" + self._see()

    def test_gradients_agree_with_finite_differences(self) -> None:
        fusion, parts = self._fusion(), _parts()
        name = "sound"

        def fused(values: Tensor) -> Tensor:
            y: Tensor = fusion({**parts, name: Tokens(values, parts[name].mask)})
            return y

        values = parts[name].values.clone().requires_grad_()
        assert torch.autograd.gradcheck(fused, (values,), fast_mode=True), "backward is wrong" + self._see()

    def test_evaluation_is_deterministic(self) -> None:
        fusion, parts = self._fusion(), _parts()
        assert fusion(parts).equal(fusion(parts)), "two calls in eval mode differ" + self._see()

    def test_state_dict_holds_all_that_vectors_depend_on(self) -> None:
        fusion, parts = self._fusion(), _parts()
        twin = self._fusion(seed=1)
        twin.load_state_dict(fusion.state_dict())
        self._assert_close(
            fusion(parts), twin(parts), "a twin that loaded the state_dict gives other vectors"
        )

    def test_compiles_to_one_graph(self) -> None:
        fusion, parts = self._fusion(torch.float32), _parts(torch.float32)
        torch.compiler.reset()
        compiled: Any = torch.compile(fusion, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(parts), fusion(parts))

    def _fusion(self, dtype: torch.dtype = torch.float64, *, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_fusion(_PARTS).to(dtype).eval()

    def _assert_close(self, expected: Tensor, found: Tensor, what: str) -> None:
        difference = float((expected - found).detach().abs().max())
        # A comparison with NaN is false, so a NaN fails too.
        assert difference <= self.tolerance, f"{what}: by {difference:.1e}" + self._see()

    def _see(self) -> str:
        how = self.how("make_fusion(parts)", d_model=self.d_model, d_out=self.d_out, parts=_PARTS)
        return self.see(
            "import helix_kernel",
            "from helix_multimodal.testing.fusions import _parts",
            f"fusion = {how}.double().eval()",
            "fusion(_parts())",
        )


def _refusal(fusion: nn.Module, given: dict[str, Tokens]) -> str | None:
    try:
        fusion(given)
    except ArgumentError as error:
        return str(error)
    return None


def _parts(dtype: torch.dtype = torch.float64) -> dict[str, Tokens]:
    """Return tokens of five rows, of which some lack a part, and none all."""
    generator = torch.Generator().manual_seed(0)
    found = {}
    for number, (name, length) in enumerate(_LENGTHS.items()):
        values = torch.randn(5, length, 8, generator=generator, dtype=torch.float64).to(dtype)
        lengths = torch.randint(1, length + 1, (5,), generator=generator)
        lengths[number] = 0
        found[name] = Tokens(values, torch.arange(length) < lengths[:, None])
    return found
