"""What every conformance suite is: a pytest class of cases for one kind of component."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from helix_kernel import default_kernel
from helix_kernel.config.schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_kernel.component import Component
    from helix_kernel.kernel import Kernel

_Case = TypeVar("_Case", bound="Callable[..., Any]")
_CONDITIONS = "helix_conditions"


class Suite:
    """Base of the conformance suites: the cases that any component of one kind must pass.

    Whoever brings a kind writes its suite so::

        class CodecSuite(Suite):
            def make_codec(self):
                return self.build()

            def test_a_round_trip_loses_nothing(self):
                codec = self.make_codec()
                found = codec.decode(codec.encode(b"abc"))
                see = self.see(f"codec = {self.how('make_codec()')}", "codec.decode(codec.encode(b'abc'))")
                assert found == b"abc", f"b'abc' comes back as {found!r}" + see

    and names it in its kind, ``Kind(name="codec", suite="my_package.testing:CodecSuite", …)``. From then on
    ``pytest --helix-provider NAME`` runs it on every codec that NAME declares: for each table in the
    component's `examples`, or once with its defaults, there is a subclass whose `component` and `example` are
    set, and from which `build` makes the codec. A person who tests one without declaring it overrides the one
    `make_…` method and nothing else::

        class TestMyCodec(CodecSuite):
            def make_codec(self):
                return MyCodec()

    No case is ever skipped. One that holds for some components only is marked by `applies_when`, and is left
    out when the tests are collected; so the `make_…` method must work before any fixture ran. One that a
    component is known to fail stands, with the reason, in the component's `expected_failures`, and must fail.

    Attributes:
        supplies: Arguments that the suite's `make_…` method gives `build`, and that are attributes of the
            suite; one that an example sets is set in the suite, too.
        component: What is tested, where ``--helix-provider`` derived the class.
        example: Options that it is built with.
        kernel: Builds it; the default kernel if None.
    """

    supplies: ClassVar[tuple[str, ...]] = ()
    component: Component | None = None
    example: Mapping[str, Any] = MappingProxyType({})
    kernel: Kernel | None = None

    def build(self, **arguments: Any) -> Any:
        """Build the derived component by its example, and by arguments that the example does not give.

        Raises:
            NotImplementedError: The class was not derived, so that its `make_…` method must be overridden.
            AssertionError: The component requires an option that nobody gives.
        """
        if self.component is None:
            raise NotImplementedError(f"{type(self).__name__} must override its make_… method")
        given = {name: value for name, value in arguments.items() if name not in self.example}
        required = [o.name for o in schema_of(self.component).options.values() if o.required]
        missing = [name for name in required if name not in given and name not in self.example]
        assert not missing, (
            f"{self.component.kind} {self.component.qualified} requires {', '.join(missing)}, which its "
            "suite cannot guess: declare examples in the manifest, as in "
            f"Component(name={self.component.name!r}, …, examples=[{{{missing[0]!r}: …}}])"
        )
        table = {"use": self.component.qualified, **self.example}
        return (self.kernel or default_kernel()).build(self.component.kind, table, **given)

    def how(self, make: str, **arguments: Any) -> str:
        """Return the Python expression that makes what is tested, for the messages of cases.

        Args:
            make: What to call on the suite where the class was not derived, such as ``"make_codec()"``.
            arguments: What the suite gives `build`.
        """
        if self.component is None:
            return f"{type(self).__name__}().{make}"
        table = {"use": self.component.qualified, **self.example}
        given = "".join(f", {key}={value!r}" for key, value in arguments.items() if key not in self.example)
        return f"helix_kernel.default_kernel().build({self.component.kind!r}, {table!r}{given})"

    @staticmethod
    def see(*lines: str) -> str:
        """Return the end of a message: a snippet by which a person sees the fault alone."""
        return "\nTo see it:\n" + "\n".join(f"    {line}" for line in lines)

    def left_out(self, case: str) -> str | None:
        """Return what a case is for where this component is something else, or None where it applies."""
        conditions = getattr(getattr(type(self), case), _CONDITIONS, ())
        return next((what for what, holds in conditions if not holds(self)), None)


def applies_when(what: str, holds: Callable[[Any], bool]) -> Callable[[_Case], _Case]:
    """Mark a case of a suite that holds only for some components.

    Args:
        what: What the case is for, as in ``"layers that keep a state"``.
        holds: Says of a suite, made without fixtures, whether its component is such.
    """

    def mark(case: _Case) -> _Case:
        setattr(case, _CONDITIONS, ((what, holds), *getattr(case, _CONDITIONS, ())))
        return case

    return mark
