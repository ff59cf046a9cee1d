"""The cases of layers that take neither vectors nor ids, and so make up inputs of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.testing._layer_basis import DTYPES, LayerBasis, if_it_makes_inputs, weighed
from helix_kernel.testing.pytree import leaves, map_leaves

if TYPE_CHECKING:
    from torch import Tensor


class ExampleCases(LayerBasis):
    """What a model does with what its `example_inputs` returns; see `LayerSuite`."""

    @if_it_makes_inputs
    def test_of_examples_depend_on_the_seed_alone(self, layer: Any) -> None:
        first, again, other = (layer.example_inputs(3, seed=seed) for seed in (0, 0, 1))
        assert _same(first, again), "example_inputs(3, seed=0) gives two things" + self._see_examples()
        assert not _same(first, other), "example_inputs(3, seed=…) gives the same for seeds 0 and 1" + (
            self._see_examples()
        )

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("batch_size", [2, 5])
    @if_it_makes_inputs
    def test_of_examples_give_finite_outputs(self, layer: Any, batch_size: int, dtype: str) -> None:
        import torch

        layer = layer.to(getattr(torch, dtype)).eval()
        y = layer(_cast(layer.example_inputs(batch_size, seed=0), dtype))
        see = self._see_examples("layer(x)", dtype=dtype)
        assert str(y.dtype) == f"torch.{dtype}", f"a {dtype} layer gives outputs of {y.dtype}{see}"
        n_bad = int((~y.isfinite()).sum())
        assert not n_bad, f"{n_bad} of {y.numel()} outputs are not finite{see}"

    @if_it_makes_inputs
    def test_of_examples_are_not_changed(self, layer: Any) -> None:
        x = layer.eval().example_inputs(3, seed=0)
        before = map_leaves(lambda tensor: tensor.clone(), x)
        layer(x)
        assert _same(before, x), "forward changes its inputs in place, which others may still need" + (
            self._see_examples("layer(x)")
        )

    @if_it_makes_inputs
    def test_of_examples_evaluation_is_deterministic(self, layer: Any) -> None:
        x = layer.eval().example_inputs(3, seed=0)
        assert layer(x).equal(layer(x)), "two calls in eval mode on the same inputs differ" + (
            self._see_examples("layer(x) - layer(x)")
        )

    @if_it_makes_inputs
    def test_of_examples_state_dict_holds_all_that_outputs_depend_on(self, layer: Any) -> None:
        twin: Any = self._seeded_layer(1).eval()
        twin.load_state_dict(layer.state_dict())
        x = layer.eval().example_inputs(3, seed=0)
        assert twin(x).equal(layer(x)), (
            "another instance that loaded the state_dict gives other outputs: something that they depend on "
            "is not in the state_dict (use nn.Parameter or register_buffer)"
            + self._see_examples("layer.state_dict().keys()")
        )

    @if_it_makes_inputs
    def test_of_examples_gradients_reach_every_parameter(self, layer: Any) -> None:
        import torch

        torch.autograd.backward(weighed(layer(layer.eval().example_inputs(5, seed=0))))
        for name, parameter in layer.named_parameters():
            see = self._see_examples(
                "layer(x).square().sum().backward()", f"layer.get_parameter({name!r}).grad"
            )
            assert parameter.grad is not None, f"no gradient reaches {name}: is it used?{see}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite{see}"
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere: is it used?{see}"

    @if_it_makes_inputs
    def test_of_examples_gradients_agree_with_finite_differences(self, layer: Any) -> None:
        """A random direction of each parameter is enough: a wrong gradient shows along it."""
        import torch

        layer = layer.double().eval()
        x = _cast(layer.example_inputs(2, seed=0), "float64")
        places = {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}

        def scalar(**moved: Tensor) -> Tensor:
            return weighed(torch.func.functional_call(layer, places | moved, (x,)))

        here, generator = scalar(), torch.Generator().manual_seed(3)
        gradients = torch.autograd.grad(here, [*places.values()], allow_unused=True, materialize_grads=True)
        for (name, value), gradient in zip(places.items(), gradients, strict=True):
            move = 1e-6 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            with torch.no_grad():
                change = (scalar(**{name: value + move}) - scalar(**{name: value - move})).item() / 2
            told = (gradient * move).sum().item()
            allowed = 1e-5 * (gradient.norm() * 1e-6).item() + 1e-13 * max(1.0, abs(here.item()))
            assert abs(change - told) <= allowed, (
                f"backward is not the derivative of forward: moving {name} by 1e-6 in a random direction "
                f"changes a weighted sum of outputs by {change:.6e}, where its gradient says {told:.6e}"
                + self._see_examples("layer(x).square().sum().backward()", dtype="float64")
            )

    def _see_examples(self, *lines: str, dtype: str = "float32") -> str:
        cast = ".double()" if dtype == "float64" else ""
        return self.see(
            f"layer = {self.how('make_layer()', d_model=self.d_model)}{cast}.eval()",
            "x = layer.example_inputs(3, seed=0)",
            *lines,
        )


def _same(first: Any, second: Any) -> bool:
    pairs = zip(leaves(first), leaves(second), strict=True)
    return all(one.equal(other) for one, other in pairs)


def _cast(tree: Any, dtype: str) -> Any:
    """Return the tree with its floating tensors in a dtype."""
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    return map_leaves(lambda tensor: tensor.to(kind) if tensor.is_floating_point() else tensor, tree)
