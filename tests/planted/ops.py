"""Contracts of ops that are wrong in one way each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from helix_kernel.ops import OpContract, Sample, define
from planted.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable


def echo(x, weight, initial_state):
    """y_t = x_t + weight x_{t-1}, where x before the first is the initial state; returns y and the last x."""
    first = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state
    before = torch.cat([first[:, None], x[:, :-1]], dim=1)
    return x + weight * before, x[:, -1].clone(memory_format=torch.contiguous_format)


def shapes(x, weight, initial_state):
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(x.shape[0], x.shape[2])


def samples():
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    yield Sample("plain", (drawn(2, 4, 3), drawn(3), None))
    yield Sample("odd", (drawn(2, 5, 3), drawn(3), None))
    yield Sample("continued", (drawn(2, 4, 3), drawn(3), drawn(2, 3)))


def slopes(grad_y, grad_state, x, weight, initial_state):
    grad_y = torch.zeros_like(x) if grad_y is None else grad_y
    first = torch.zeros_like(x[:, 0]) if initial_state is None else initial_state
    before = torch.cat([first[:, None], x[:, :-1]], dim=1)
    grad_x = grad_y.clone(memory_format=torch.contiguous_format)
    grad_x[:, :-1] += weight * grad_y[:, 1:]
    if grad_state is not None:
        grad_x[:, -1] += grad_state
    grad_first = x.new_empty(0) if initial_state is None else (weight * grad_y[:, 0]).contiguous()
    return grad_x, (grad_y * before).sum((0, 1)), grad_first


SOUND = OpContract(
    name="planted_echo",
    schema="(Tensor x, Tensor weight, Tensor? initial_state) -> (Tensor y, Tensor final_state)",
    reference=echo,
    fake=shapes,
    samples=samples,
    flops=lambda x, weight, initial_state: 2 * x[0] * x[1] * x[2],
    backward=slopes,
)


def fake_of_another_shape(x, weight, initial_state):
    return x.new_empty(x.shape[1], x.shape[0], x.shape[2]), x.new_empty(x.shape[0], x.shape[2])


def fake_of_another_dtype(x, weight, initial_state):
    return torch.empty_like(x, dtype=torch.float64), x.new_empty(x.shape[0], x.shape[2])


def wrong_gradient_of_the_weight(*args):
    grad_x, grad_weight, grad_first = slopes(*args)
    return grad_x, 1.01 * grad_weight, grad_first


def gradient_wrong_at_odd_lengths(grad_y, grad_state, x, weight, initial_state):
    grad_x, *others = slopes(grad_y, grad_state, x, weight, initial_state)
    return grad_x * (1.01 if x.shape[1] % 2 else 1), *others


def leaves_an_element_unwritten(x, weight, initial_state):
    y, state = echo(x, weight, initial_state)
    out = torch.empty_like(y)
    out[:, 1:] = y[:, 1:]
    return out, state


def ignores_the_initial_state(x, weight, initial_state):
    return echo(x, weight, None)


def ignores_strides(x, weight, initial_state):
    dense = torch.as_strided(x, x.shape, (x.shape[1] * x.shape[2], x.shape[2], 1))
    return echo(dense, weight, initial_state)


def refuses_strides(x, weight, initial_state):
    return echo(x.view(-1).view(x.shape), weight, initial_state)


def changes_its_input(x, weight, initial_state):
    results = echo(x, weight, initial_state)
    x.detach().mul_(2)
    return results


def depends_on_threads(x, weight, initial_state):
    y, state = echo(x, weight, initial_state)
    return y * (1 + 1e-3 * (torch.get_num_threads() > 1)), state


def flops_crash(x, weight, initial_state):
    return 2 * x[0] * initial_state[0]


def flops_are_none(x, weight, initial_state):
    return 0


def samples_share_a_name():
    return [*samples(), next(samples())]


def no_samples():
    return []


def no_sample_continues():
    return [sample for sample in samples() if sample.name != "continued"]


def _fault(wrong: Callable[..., Any], part: str, case: str, message: str) -> Fault:
    """Define an op whose contract has one part that is wrong."""
    differentiated = {"backward": None} if part == "reference" else {}
    contract = attrs.evolve(SOUND, name=f"planted_{wrong.__name__}", **{part: wrong, **differentiated})
    define(contract)
    wrong.contract = contract
    return Fault(wrong, case, message, {"target": f"{__name__}:{wrong.__name__}.contract"})


define(SOUND)
FAULTS = (
    _fault(
        fake_of_another_shape,
        "fake",
        "test_results_have_the_shapes_that_the_fake_kernel_gives",
        "sample 'plain': PyTorch's own check fails",
    ),
    _fault(
        fake_of_another_dtype,
        "fake",
        "test_results_have_the_shapes_that_the_fake_kernel_gives",
        "sample 'plain': PyTorch's own check fails",
    ),
    _fault(
        wrong_gradient_of_the_weight,
        "backward",
        "test_gradients_agree_with_finite_differences",
        "backward is not the derivative, sample 'plain'",
    ),
    _fault(
        gradient_wrong_at_odd_lengths,
        "backward",
        "test_a_given_formula_of_the_gradient_is_that_of_the_reference",
        "differentiated reference, sample 'odd': tensor 0 differs by",
    ),
    _fault(
        leaves_an_element_unwritten,
        "reference",
        "test_memory_that_nobody_wrote_is_not_read",
        r"sample 'plain': .* \{0: '6 of 24 elements'.* hold memory never written",
    ),
    _fault(
        ignores_the_initial_state,
        "reference",
        "test_every_tensor_matters",
        "the gradient of initial_state is 0 in each of 3 samples",
    ),
    _fault(
        refuses_strides,
        "reference",
        "test_arguments_need_not_be_contiguous",
        "arguments that are not contiguous are refused",
    ),
    _fault(
        ignores_strides,
        "reference",
        "test_arguments_need_not_be_contiguous",
        "results of arguments that are not contiguous, sample 'plain': tensor 0 differs by",
    ),
    _fault(
        changes_its_input,
        "reference",
        "test_arguments_are_left_as_they_were",
        r"sample 'plain': arguments \[0\] were changed",
    ),
    _fault(
        depends_on_threads,
        "reference",
        "test_the_number_of_threads_does_not_matter",
        "by 4 threads against 1, sample 'plain': tensor 0 differs by",
    ),
    _fault(flops_crash, "flops", "test_flops_are_counted", "the contract's flops raises for arguments of"),
    _fault(
        flops_are_none, "flops", "test_flops_are_counted", "the contract's flops gives 0 for arguments of"
    ),
    _fault(
        samples_share_a_name,
        "samples",
        "test_samples_have_names_of_their_own",
        r"share a name, \['plain'\] of",
    ),
    _fault(no_samples, "samples", "test_samples_have_names_of_their_own", "no_samples has no sample"),
    _fault(no_sample_continues, "samples", "test_every_tensor_matters", "no sample gives initial_state"),
)
