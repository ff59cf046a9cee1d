"""patch_transformers binds our functions in modeling files, early or late, and leaves nothing behind."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import helix_cpu
from helix_cpu import library, patch_transformers
from helix_cpu.transformers import patch as module
from helix_cpu.transformers import startup
from helix_cpu.transformers.dispatch import dispatch
from helix_kernel.errors import ArgumentError, DependencyError

transformers = pytest.importorskip("transformers")
MAMBA = "transformers.models.mamba.modeling_mamba"
SOURCES = Path(helix_cpu.__file__).parents[1]


@pytest.fixture
def mamba():
    return importlib.import_module(MAMBA)


def bound(modeling):
    return {name: modeling.__dict__[name] for name in module._FUNCTIONS if name in modeling.__dict__}


class TestBinding:
    def test_a_block_binds_and_gives_back(self, mamba):
        before = bound(mamba)
        with patch_transformers():
            assert all(
                inspect.unwrap(ours) is inspect.unwrap(before[name]) for name, ours in bound(mamba).items()
            )
            assert not any(ours is before[name] for name, ours in bound(mamba).items())
        assert bound(mamba) == before

    def test_undoing_twice_undoes_once(self, mamba):
        before = bound(mamba)
        outer, inner = patch_transformers(), patch_transformers()
        inner.undo()
        inner.undo()
        assert bound(mamba) != before
        outer.undo()
        assert bound(mamba) == before

    def test_patches_may_end_in_any_order(self, mamba):
        before = bound(mamba)
        first, second = patch_transformers(), patch_transformers()
        first.undo()
        assert bound(mamba) != before
        second.undo()
        assert bound(mamba) == before

    def test_a_block_that_fails_is_undone(self, mamba):
        before = bound(mamba)
        with pytest.raises(KeyError), patch_transformers():
            raise KeyError
        assert bound(mamba) == before

    def test_patching_within_a_patch_wraps_nothing_twice(self, mamba):
        with patch_transformers():
            ours = bound(mamba)
            with patch_transformers():
                assert bound(mamba) == ours

    def test_what_somebody_else_bound_meanwhile_stays(self, mamba, monkeypatch):
        monkeypatch.setattr(mamba, "mamba_inner_fn", mamba.mamba_inner_fn)
        with patch_transformers():
            mamba.mamba_inner_fn = theirs = lambda: None
        assert mamba.mamba_inner_fn is theirs

    def test_a_modeling_file_imported_later_is_bound_too(self, mamba, monkeypatch):
        monkeypatch.delitem(sys.modules, MAMBA)
        with patch_transformers():
            late = importlib.import_module(MAMBA)
            assert late is not mamba
            assert all(hasattr(ours, "__wrapped__") for ours in bound(late).values())
            ours = late.causal_conv1d_fn
        assert late.causal_conv1d_fn is ours.__wrapped__
        assert type(late.__loader__) is type(late.__spec__.loader) is SourceFileLoader

    def test_a_finder_stands_only_while_a_patch_does(self):
        before = list(sys.meta_path)
        with patch_transformers():
            assert len(sys.meta_path) == len(before) + 1
        assert sys.meta_path == before

    def test_a_function_that_outlives_the_patch_goes_back_to_what_was(self, mamba):
        with patch_transformers() as patch:
            kept = mamba.causal_conv1d_fn
        calls = Counter(patch.calls)
        kept(torch.ones(1, 2, 5), torch.ones(2, 3))
        assert Counter(patch.calls) == calls

    def test_a_name_bound_to_a_module_is_served(self, mamba, monkeypatch):
        """The package kernels turns functions into modules, whose forward it exchanges later."""

        class Layer(torch.nn.Module):
            def forward(self, *args, **kwargs):
                return "theirs"

        monkeypatch.setattr(mamba, "causal_conv1d_fn", Layer())
        x, weight = torch.ones(1, 2, 5), torch.ones(2, 3)
        with patch_transformers():
            assert mamba.causal_conv1d_fn(x, weight).shape == x.shape
            assert mamba.causal_conv1d_fn(x.double(), weight.double()) == "theirs"

    def test_every_function_that_transformers_binds_is_known(self):
        decorated = re.compile(r"@use_kernel_func_from_hub_with_fallback\([^)]*\)\s*def (\w+)")
        sources = Path(transformers.__file__).parent.glob("models/*/modeling_*.py")
        found = {name for source in sources for name in decorated.findall(source.read_text(encoding="utf-8"))}
        assert found
        assert found == set(module._FUNCTIONS)


class TestErrors:
    def test_no_library(self, mamba, tmp_path, monkeypatch):
        before, finders = bound(mamba), list(sys.meta_path)
        monkeypatch.setenv(library.FOLDER_VARIABLE, str(tmp_path))
        used = library.restore(None)
        try:
            with pytest.raises(library.LibraryError, match="no kernels in"):
                patch_transformers()
        finally:
            library.restore(used)
        assert bound(mamba) == before
        assert sys.meta_path == finders

    def test_no_transformers(self, monkeypatch):
        def version(name):
            raise importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(importlib.metadata, "version", version)
        with pytest.raises(DependencyError, match="transformers, which is not installed: pip install"):
            patch_transformers()

    def test_a_transformers_that_is_too_old(self, monkeypatch):
        monkeypatch.setattr(importlib.metadata, "version", lambda _: "5.14.1")
        with pytest.raises(DependencyError, match=r"serves transformers 5\.15 and newer, but 5\.14\.1 is"):
            patch_transformers()

    def test_a_binding_that_fails_leaves_nothing(self, mamba, monkeypatch):
        before, finders = bound(mamba), list(sys.meta_path)
        monkeypatch.setitem(sys.modules, "helix_cpu.transformers.dispatch", None)
        with pytest.raises(ImportError):
            patch_transformers()
        assert bound(mamba) == before
        assert sys.meta_path == finders


class InForce:
    def __init__(self):
        self.calls = Counter()
        self.active = True


def ours(x, flag=None, seq_idx=None):
    return NotImplemented if flag else "ours"


def theirs(x, flag=None, seq_idx=None, **kwargs):
    return x


class TestDispatch:
    def call(self, *args, packs=True, **kwargs):
        in_force = InForce()
        result = dispatch("f", theirs, ours, in_force, packs=packs)(*args, **kwargs)
        assert in_force.calls == ({"f": 1} if result == "ours" else {})
        return result

    def test_plain_tensors_and_parameters_on_the_cpu_are_ours(self):
        assert self.call(torch.ones(1)) == "ours"
        assert self.call(torch.nn.Parameter(torch.ones(1))) == "ours"

    def test_what_ours_declines_is_theirs(self):
        assert torch.is_tensor(self.call(torch.ones(1), flag=True))

    def test_keywords_that_ours_does_not_know_are_left_out(self):
        assert self.call(torch.ones(1), position_ids=None, flag=False) == "ours"

    def test_another_device_is_theirs(self):
        assert torch.is_tensor(self.call(torch.ones(1, device="meta")))
        assert torch.is_tensor(self.call(torch.ones(1), flag=torch.ones(1, device="meta")))

    def test_a_subclass_is_theirs(self):
        assert torch.is_tensor(self.call(torch.ones(1).as_subclass(type("Sub", (torch.Tensor,), {}))))

    def test_no_tensor_is_theirs(self):
        assert self.call("proxy") == "proxy"

    def test_packed_sequences_are_theirs_where_the_model_does_not_bound_its_scan(self):
        assert self.call(torch.ones(1), seq_idx=torch.ones(1)) == "ours"
        assert torch.is_tensor(self.call(torch.ones(1), seq_idx=torch.ones(1), packs=False))
        assert self.call(torch.ones(1), seq_idx=None, packs=False) == "ours"

    def test_after_the_patch_all_is_theirs(self):
        in_force = InForce()
        in_force.active = False
        assert torch.is_tensor(dispatch("f", theirs, ours, in_force, packs=True)(torch.ones(1)))

    def test_a_fake_tensor_is_theirs(self):
        with FakeTensorMode():
            assert torch.is_tensor(self.call(torch.ones(1)))

    def test_what_a_mode_watches_is_theirs(self):
        with FlopCounterMode(display=False):
            assert torch.is_tensor(self.call(torch.ones(1)))

    def test_function_transforms_are_theirs(self):
        assert torch.equal(torch.vmap(self.call)(torch.ones(2)), torch.ones(2))
        assert torch.equal(torch.func.grad(self.call)(torch.ones(())), torch.ones(()))

    @pytest.mark.filterwarnings(
        "ignore:.torch.jit.script. is deprecated:DeprecationWarning"
    )  # PyTorch's own call
    def test_forward_mode_is_theirs(self):
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(torch.ones(1), torch.full((1,), 2.0))
            assert forward_ad.unpack_dual(self.call(dual)).tangent is not None

    def test_a_trace_is_theirs(self):
        call = dispatch("f", lambda x: x + 1, lambda x: x - 1, InForce(), packs=True)
        with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
            traced = torch.jit.trace(call, torch.ones(1), check_trace=False)
        assert traced(torch.ones(1)) == 2

    def test_a_compiled_model_is_theirs(self):
        call = dispatch("f", lambda x: x + 1, lambda x: x - 1, InForce(), packs=True)
        assert torch.compile(call, backend="eager", fullgraph=True)(torch.ones(1)) == 2
        assert call(torch.ones(1)) == 0


class TestStartUp:
    @pytest.mark.parametrize("value", ["", "0"])
    def test_off(self, value, monkeypatch):
        monkeypatch.setenv(startup.VARIABLE, value)
        finders = list(sys.meta_path)
        startup.start()
        assert sys.meta_path == finders

    def test_another_value(self, monkeypatch):
        monkeypatch.setenv(startup.VARIABLE, "yes")
        with pytest.raises(ArgumentError, match="HELIX_CPU_PATCH_TRANSFORMERS is 'yes', allowed is 0 or 1"):
            startup.start()

    def test_an_unmodified_program_is_patched(self):
        """As Python does at its start, a folder is read for .pth files; no large package may come of that."""
        program = f"""
import site, sys
site.addsitedir({str(SOURCES)!r})
assert not {{"torch", "transformers", "helix_cpu.library"}} & set(sys.modules), "imported at start"
import {MAMBA} as mamba
import torch
mamba.causal_conv1d_fn(torch.ones(1, 2, 5), torch.ones(2, 3))
from helix_cpu.transformers.patch import _PROCESS
print(dict(_PROCESS.calls))
"""
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, startup.VARIABLE: "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.stdout == "{'causal_conv1d_fn': 1}\n", result.stderr

    def test_without_the_variable_nothing_of_ours_is_imported(self):
        program = f"import site, sys; site.addsitedir({str(SOURCES)!r}); print('helix_cpu' in sys.modules)"
        environment = {name: value for name, value in os.environ.items() if name != startup.VARIABLE}
        command = [sys.executable, "-S", "-c", program]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert result.stdout == "False\n"
