"""Backends are chosen for the process by priority or name, fall through, and can be taken back."""

from __future__ import annotations

import attrs
import pytest
import torch

from helix_kernel.backends import BackendSelector, Memory, Probe, current
from helix_kernel.errors import ArgumentError, UnknownNameError
from helix_kernel.ops import OpContract, define, defined


@attrs.define
class FakeBackend:
    """Serves the op `test_double` by a function of one's choice."""

    device_type: str = "cpu"
    priority: int = 0
    ops: dict = attrs.field(factory=dict)
    available: bool = True
    withheld: dict = attrs.field(factory=dict)

    def probe(self):
        return Probe(available=self.available, reason="it is there" if self.available else "no such chip")

    def memory(self, index=0):
        return Memory(total=2, available=1)


def returns(value):
    """An implementation of `test_double` that shows who was called."""
    return lambda x: torch.full_like(x, value)


@pytest.fixture(scope="module")
def op():
    return defined().get("test_double") or define(
        OpContract(
            name="test_double",
            schema="(Tensor x) -> (Tensor y)",
            reference=lambda x: 2 * x,
            fake=torch.empty_like,
            samples=list,
            flops=lambda x: x.numel(),
        )
    )


@pytest.fixture
def selector():
    return BackendSelector(
        {
            "slow": FakeBackend(device_type="any", priority=0, ops={"test_double": returns(10.0)}),
            "fast": FakeBackend(priority=5, ops={"test_double": returns(20.0)}),
            "absent": FakeBackend(priority=9, ops={"test_double": returns(30.0)}, available=False),
            "empty": FakeBackend(priority=7),
            "elsewhere": FakeBackend(device_type="cuda", priority=8, ops={"test_double": returns(40.0)}),
        }
    )


def run(op):
    return op(torch.ones(1)).item()


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (["auto"], 20.0),
        (["reference"], 2.0),
        (["slow"], 10.0),
        (["slow", "fast"], 10.0),
        (["slow", "auto"], 10.0),
        (["empty"], 2.0),
        (["elsewhere"], 2.0),
    ],
)
def test_the_most_wanted_backend_that_serves_the_device_is_called(op, selector, names, value):
    with selector.using(names):
        assert run(op) == value


def test_leaving_the_block_brings_the_choice_before_back(op, selector):
    assert current() is None
    with selector.using(["slow"]) as outer:
        with selector.using(["fast"]) as inner:
            assert run(op) == 20.0
            assert current() is inner
        assert run(op) == 10.0
        assert current() is outer
    assert run(op) == 2.0
    assert current() is None


def test_an_error_in_the_block_brings_it_back_too(op, selector):
    with pytest.raises(KeyError), selector.using(["slow"]):
        raise KeyError
    assert run(op) == 2.0


def test_use_lasts_until_the_next_use_of_any_selector(op, selector):
    with selector.using(["reference"]):
        selector.use(["slow"])
        assert run(op) == 10.0
        BackendSelector({}).use(["auto"])
        assert run(op) == 2.0


def test_a_backend_may_decline_and_the_next_is_asked(op):
    calls = []

    def decline(x):
        calls.append("first")
        return NotImplemented

    first = FakeBackend(priority=2, ops={"test_double": decline})
    selector = BackendSelector({"first": first, "second": FakeBackend(ops={"test_double": returns(7.0)})})
    with selector.using(["auto"]):
        assert run(op) == 7.0
    with selector.using(["first"]):
        assert run(op) == 2.0
    assert calls == ["first", "first"]


def test_without_a_gradient_of_its_own_a_backend_trains_by_the_references(op, selector):
    x = torch.ones(3, requires_grad=True)
    with selector.using(["fast"]):
        op(x).sum().backward()
    assert x.grad.tolist() == [2.0, 2.0, 2.0]


def test_a_choice_made_before_an_op_is_defined_holds_for_it():
    backend = FakeBackend(ops={"test_defined_late": returns(5.0)})
    with BackendSelector({"early": backend}).using(["early"]):
        op = define(
            OpContract(
                name="test_defined_late",
                schema="(Tensor x) -> (Tensor y)",
                reference=lambda x: 2 * x,
                fake=torch.empty_like,
                samples=list,
                flops=lambda x: x.numel(),
            )
        )
        assert run(op) == 5.0
    assert run(op) == 2.0


def test_a_service_says_who_serves_and_why_the_others_do_not(selector):
    service = selector.select(["auto"]).service("test_double", "cpu")
    assert service.serving == "fast"
    assert service.chain == ("fast", "slow", "reference")
    assert service.passed_over == {
        "slow": "asked where fast declines (priority 0)",
        "absent": "not available: no such chip",
        "empty": "does not implement it",
        "elsewhere": "serves cuda only",
    }
    service = selector.select(["fast"]).service("test_double", "cpu")
    assert service.passed_over["slow"] == "not among the backends asked for: ['fast']"


def test_a_backend_below_0_serves_only_where_it_is_named():
    interpreter = FakeBackend(priority=-1, ops={"test_double": returns(50.0)})
    selector = BackendSelector({"interpreter": interpreter})
    service = selector.select(["auto"]).service("test_double", "cpu")
    assert service.chain == ("reference",)
    assert service.passed_over == {"interpreter": "serves only where it is named (priority -1)"}
    assert selector.select(["interpreter", "auto"]).service("test_double", "cpu").serving == "interpreter"


def test_a_service_says_why_a_backend_withholds_an_op():
    backend = FakeBackend(withheld={"test_double": "it came to 5 instead of 4"})
    service = BackendSelector({"honest": backend}).select(["auto"]).service("test_double", "cpu")
    assert service.serving == "reference"
    assert service.passed_over == {"honest": "withheld: it came to 5 instead of 4"}


def test_services_cover_every_op_on_every_type_of_device_served(selector):
    services = selector.select(["auto"]).services(["a", "b"])
    assert [(s.op, s.device_type) for s in services] == [
        ("a", "cpu"), ("a", "cuda"), ("b", "cpu"), ("b", "cuda")
    ]  # fmt: skip


def test_the_record_is_plain(selector):
    assert selector.select(["slow", "empty"]).as_dict() == {
        "requested": ["slow", "empty"],
        "chosen": {"slow": ["test_double"], "empty": []},
    }


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["absent"], ArgumentError, "'absent' is not available: no such chip"),
        (["fats"], UnknownNameError, "Did you mean 'fast'"),
        ([], ArgumentError, r"allowed is \['auto'\]"),
        (["reference", "fast"], ArgumentError, r"allowed is \['auto'\]"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_and_changes_nothing(op, selector, names, error, message):
    with selector.using(["slow"]):
        with pytest.raises(error, match=message):
            selector.use(names)
        assert run(op) == 10.0
