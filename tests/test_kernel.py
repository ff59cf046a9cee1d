"""The kernel is an ordinary object: any number of them, none knowing of the others."""

from __future__ import annotations

import subprocess
import sys

import pytest
from helix_toy.make import component, kernel_of, manifest, toy_kernel

import helix_kernel
from helix_kernel import Kernel, default_kernel
from helix_kernel.errors import AmbiguousNameError, UnknownNameError


def test_kernels_do_not_share_what_they_know():
    one = kernel_of(manifest("one", "one", layers=[component("a")]))
    two = kernel_of(manifest("two", "two", layers=[component("b")]))
    assert [c.name for c in one.components()] == ["a"]
    assert [c.name for c in two.components()] == ["b"]
    with pytest.raises(UnknownNameError):
        two.find("layer", "a")


def test_a_kernel_of_nothing_works():
    kernel = Kernel(found=[])
    assert (kernel.plugins, kernel.failures, kernel.components()) == ((), (), [])


def test_preferring_makes_another_kernel_of_the_same_plugins():
    two = [manifest(p, p, layers=[component("conv")]) for p in ("acme", "zeta")]
    kernel = kernel_of(*two)
    assert kernel.preferring(["zeta"]).find("layer", "conv").provider == "zeta"
    assert kernel.preferring(["zeta"]).build("layer", "conv") == {}
    assert kernel.preferring(["zeta"]).plugins == kernel.plugins
    with pytest.raises(AmbiguousNameError):
        kernel.find("layer", "conv")


def test_the_default_kernel_is_made_once_of_what_is_installed(fresh_kernel):
    assert default_kernel() is default_kernel()
    assert default_kernel().find("layer", "mamba").provider == "helix-ssm"


def test_components_of_one_kind_or_all():
    kernel = toy_kernel()
    assert {c.kind for c in kernel.components()} == {"layer", "gadget"}
    assert [c.name for c in kernel.components("gadgets")] == ["range"]


def test_every_public_name_is_there_and_comes_from_its_module():
    for name in helix_kernel.__all__:
        assert getattr(helix_kernel, name) is not None
    assert dir(helix_kernel) == sorted(helix_kernel.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        helix_kernel.nonsense  # noqa: B018 - reading it is the test


@pytest.mark.parametrize(
    "program",
    [
        "import helix_kernel",
        "from helix_kernel import *",
        "from helix_kernel import Kernel; Kernel().components()",
        "import helix_kernel.errors, helix_kernel.options, helix_kernel.listing",
        "from helix_kernel import Kernel; Kernel().resolver.resolve('layer', 'mamba', supplied=('d_model',))",
    ],
)
def test_nothing_heavy_is_imported_before_something_is_built(program):
    code = (
        f"import sys; {program}; print([m for m in ('torch', 'numpy', 'zarr', 'triton') if m in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"
