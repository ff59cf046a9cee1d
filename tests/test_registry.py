"""Looking components up: names, collisions, and errors that say what to do."""

from __future__ import annotations

import warnings

import pytest
from helix_toy.make import component, kernel_of, manifest, toy_kernel

from helix_kernel.diagnosis.mending import install
from helix_kernel.discovery import EntryPoint
from helix_kernel.errors import AmbiguousNameError, UnknownNameError
from helix_kernel.kernel import Kernel


def offering(provider, *names, **fields):
    return manifest(provider, provider, layers=[component(name, **fields) for name in names])


@pytest.mark.parametrize("name", ["block", "brick", "helix-toy:block", "helix-toy:brick"])
def test_a_component_is_found_by_name_alias_and_provider(name):
    assert toy_kernel().find("layer", name).name == "block"


@pytest.mark.parametrize("name", ["blok", "helix-toy:blok"])
def test_an_old_name_works_and_warns_since_when(name):
    with pytest.warns(FutureWarning, match=r"'blok' is called 'block' since helix-toy 1\.1"):
        assert toy_kernel().find("layer", name).name == "block"


def test_a_current_name_does_not_warn():
    with warnings.catch_warnings(action="error"):
        toy_kernel().find("layer", "brick")


class TestCollisions:
    def test_two_providers_of_one_name_are_an_error_that_names_both(self):
        kernel = kernel_of(offering("acme", "conv"), offering("zeta", "conv"))
        with pytest.raises(AmbiguousNameError) as error:
            kernel.find("layer", "conv")
        for part in ("acme, zeta", "'acme:conv' or 'zeta:conv'", "kernel.prefer = ['acme']"):
            assert part in str(error.value)

    def test_an_alias_collides_as_a_name_does(self):
        kernel = kernel_of(offering("acme", "conv"), offering("zeta", "other", aliases=("conv",)))
        with pytest.raises(AmbiguousNameError, match="'acme:conv' or 'zeta:other'"):
            kernel.find("layer", "conv")

    def test_the_qualified_spelling_settles_it(self):
        kernel = kernel_of(offering("acme", "conv"), offering("zeta", "conv"))
        assert kernel.find("layer", "zeta:conv").provider == "zeta"

    @pytest.mark.parametrize(
        ("prefer", "provider"),
        [(["zeta"], "zeta"), (["nobody", "zeta", "acme"], "zeta"), (["acme", "zeta"], "acme")],
    )
    def test_the_first_preferred_provider_wins(self, prefer, provider):
        kernel = kernel_of(offering("acme", "conv"), offering("zeta", "conv"), prefer=prefer)
        assert kernel.find("layer", "conv").provider == provider

    def test_a_preference_for_another_settles_nothing(self):
        kernel = kernel_of(offering("acme", "conv"), offering("zeta", "conv"), prefer=["nobody"])
        with pytest.raises(AmbiguousNameError):
            kernel.find("layer", "conv")

    def test_one_name_in_two_kinds_is_no_collision(self):
        kernel = kernel_of(manifest(layers=[component("conv")], losses=[component("conv")]))
        assert kernel.find("layer", "conv").kind == "layer"


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            (
                "blocc",
                ["no layer is called 'blocc'.", "Did you mean 'block'?", "Installed: absent, anything"],
            ),
            ("STACK", ["Did you mean 'stack'?"]),
            ("helix-tou:block", ["Did you mean 'helix-toy:block'?", "No plugin of 'helix-tou' is installed"]),
            ("helix-toy:blocc", ["Did you mean 'helix-toy:block'?"]),
            ("mamba", [f"It comes with helix-ssm: {install('helix-ssm')}"]),
            ("helix-ssm:mamba", [f"It comes with helix-ssm: {install('helix-ssm')}"]),
            ("zzz", ["no layer is called 'zzz'. Installed:"]),
        ],
    )
    def test_the_error_says_what_is_near_what_is_known_and_what_to_install(self, name, says):
        with pytest.raises(UnknownNameError) as error:
            toy_kernel().find("layer", name)
        for part in says:
            assert part in str(error.value)

    def test_no_one_is_advised_to_install_a_misspelling(self):
        with pytest.raises(UnknownNameError) as error:
            toy_kernel().find("layer", "helix-smm:mamba")
        assert "pip install helix-smm" not in str(error.value)

    def test_what_is_installed_but_left_out_is_said_to_be(self):
        ssm = EntryPoint("ssm", "helix_ssm.plugin", "helix_kernel.v1", "helix-ssm", "1", "")
        for kernel in (k := Kernel(found=[ssm], disabled=["ssm"]), k.preferring(["x"])):
            with pytest.raises(UnknownNameError, match=r"installed here, but HELIX_PLUGINS.* leaves it out"):
                kernel.find("layer", "mamba")

    def test_an_installed_plugin_that_failed_is_blamed_rather_than_recommended(self):
        def broken():
            raise RuntimeError("no luck")

        kernel = kernel_of(manifest("ssm", "helix-ssm", layers=broken), manifest("b", "other", layers=broken))
        with pytest.raises(UnknownNameError) as error:
            kernel.find("layer", "mamba")
        assert "pip install" not in str(error.value)
        assert "plugin 'ssm' of helix-ssm" in str(error.value)
        assert "'other'" not in str(error.value)

    def test_where_nothing_of_the_kind_is_installed_it_says_so(self):
        with pytest.raises(UnknownNameError, match="No modality is installed"):
            toy_kernel().find("modality", "image")


class TestKinds:
    @pytest.mark.parametrize("name", ["memory_tier", "memory-tier", "memory_tiers", "memory-tiers"])
    def test_a_kind_is_found_by_every_spelling(self, name):
        assert toy_kernel().registry.kind(name).name == "memory_tier"

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("layr", "Did you mean 'layer'?"),
            ("dataset", f"It comes with helix-data: {install('helix-data')}"),
            ("zzz", "Known: backend, command, gadget"),
        ],
    )
    def test_an_unknown_kind_says_what_is_known(self, name, says):
        with pytest.raises(UnknownNameError) as error:
            toy_kernel().components(name)
        assert says in str(error.value)


def test_components_are_sorted_by_kind_name_and_provider():
    kernel = kernel_of(offering("zeta", "b", "a"), offering("acme", "b"), manifest(losses=[component("c")]))
    assert [c.qualified for c in kernel.components("layer")] == ["zeta:a", "acme:b", "zeta:b"]
    assert [c.kind for c in kernel.components()] == ["layer"] * 3 + ["loss"]
