"""Loading manifests: each by itself, so that a broken one neither stops the rest nor is silent."""

from __future__ import annotations

import json

import pytest
from helix_toy.make import component, install, kernel_of, manifest, toy_manifest

import helix_kernel
from helix_kernel import Kernel, Kind
from helix_kernel.discovery import EntryPoint, entry_points
from helix_kernel.errors import UnknownNameError
from helix_kernel.plugins import load, select

HEALTHY = manifest("healthy", "healthy", layers=[component("fine")])


def raising(error):
    def hook():
        raise error

    return hook


class TestBrokenManifests:
    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("import no_such_module", "ModuleNotFoundError"),
            ("def", "SyntaxError"),
            ("raise SystemExit(3)", "SystemExit"),
            ("1 / 0", "ZeroDivisionError"),
            ("raise Exception", "Exception"),
        ],
    )
    def test_one_that_cannot_be_imported_is_kept_beside_the_rest(self, tmp_path, monkeypatch, source, error):
        install(tmp_path, "broken", "b = broken_manifest", version="0.3", broken_manifest=source)
        monkeypatch.syspath_prepend(str(tmp_path))
        kernel = Kernel(found=entry_points([str(tmp_path)]), manifests=[HEALTHY])
        (failure,) = kernel.failures
        assert [c.name for c in kernel.components()] == ["fine"]
        assert (failure.name, failure.provider, failure.version) == ("b", "broken", "0.3")
        assert type(failure.error).__name__ == error
        assert error in failure.traceback
        assert "broken_manifest" in str(failure)

    @pytest.mark.parametrize(
        ("hooks", "says"),
        [
            ({"layers": raising(RuntimeError("no luck"))}, "no luck"),
            ({"layers": raising(SystemExit("bye"))}, "bye"),
            ({"layers": None}, "helix_layers() gave None"),
            ({"layers": 3}, "helix_layers() gave 3"),
            ({"layers": ["mamba"]}, "'mamba'; allowed is a list of helix_kernel.Component"),
            ({"layers": [component("a"), component("a")]}, "the layer 'a' twice"),
            ({"layers": [component("a"), component("b", aliases=("a",))]}, "the layer 'a' twice"),
            ({"kinds": raising(RuntimeError("no luck"))}, "no luck"),
            ({"kinds": [component("a")]}, "allowed is a list of helix_kernel.Kind"),
            ({"kinds": [Kind(name="layer", plural="tiers")]}, "helix-kernel brings already"),
            ({"kinds": [Kind(name="tier", plural="layers")]}, "helix-kernel brings already"),
            ({"kinds": [Kind(name="tier", plural="tiers", section="model")]}, "helix-kernel brings already"),
            ({"kinds": [Kind(name="kind", plural="kinds")]}, "the kernel keeps"),
            ({"kinds": [Kind(name="tier", plural="tiers", section="kernel")]}, "the kernel keeps"),
            ({"kinds": [Kind(name="tier", plural="tiers"), Kind(name="tier", plural="more")]}, "already"),
        ],
    )
    def test_one_that_returns_rubbish_is_kept_beside_the_rest(self, hooks, says):
        kernel = kernel_of(manifest("broken", "broken", **hooks), HEALTHY)
        assert [c.name for c in kernel.components()] == ["fine"]
        (failure,) = kernel.failures
        assert says in str(failure)
        assert failure.traceback

    def test_a_hook_that_asks_for_arguments_is_refused(self):
        broken = manifest("broken", "broken")
        broken.module.helix_layers = helix_kernel.hookimpl(lambda registry: [])
        kernel = kernel_of(broken, HEALTHY)
        assert "registry" in str(kernel.failures[0].error)
        assert [c.name for c in kernel.components()] == ["fine"]

    def test_a_look_up_error_names_what_failed(self):
        kernel = kernel_of(manifest("broken", "broken", layers=raising(RuntimeError("no luck"))), HEALTHY)
        with pytest.raises(
            UnknownNameError, match=r"plugin 'broken' of broken 1\.2\.3 .* RuntimeError: no luck"
        ):
            kernel.find("layer", "lost")

    def test_an_entry_point_to_an_object_is_refused_with_what_is_allowed(self, tmp_path):
        install(tmp_path, "acme", "x = acme.manifest:plugin")
        _, (failure,) = load(entry_points([str(tmp_path)]))
        assert "'acme.manifest:plugin'; allowed is a module" in str(failure)

    def test_an_interrupt_is_not_swallowed(self):
        with pytest.raises(KeyboardInterrupt):
            kernel_of(manifest("broken", layers=raising(KeyboardInterrupt())))


class TestMajorVersions:
    def test_a_plugin_for_another_major_is_reported_and_not_imported(self, tmp_path, monkeypatch):
        source = "raise SystemExit('imported')"
        install(tmp_path, "future", "f = future_manifest", group="helix_kernel.v2", future_manifest=source)
        monkeypatch.syspath_prepend(str(tmp_path))
        plugins, (failure,) = load(entry_points([str(tmp_path)]))
        assert plugins == []
        assert "'helix_kernel.v2', this kernel serves 'helix_kernel.v1'" in str(failure.error)
        assert "imported" not in failure.traceback

    def test_of_a_plugin_for_both_majors_this_one_is_used(self):
        found = [
            EntryPoint("toy", "no_such_module", "helix_kernel.v2", "helix-toy", "1", ""),
            EntryPoint("toy", "helix_toy.plugin", "helix_kernel.v1", "helix-toy", "1", ""),
        ]
        plugins, failures = load(found)
        assert [plugin.module for plugin in plugins] == ["helix_toy.plugin"]
        assert failures == []


class TestSelection:
    FOUND = (
        EntryPoint("ssm", "a", "helix_kernel.v1", "helix-ssm", "1", ""),
        EntryPoint("train", "b", "helix_kernel.v1", "helix-train", "1", ""),
    )

    @pytest.mark.parametrize(
        ("allowed", "denied", "kept"),
        [
            (None, (), ["ssm", "train"]),
            (("ssm",), (), ["ssm"]),
            (("helix-ssm",), (), ["ssm"]),
            (("Helix_SSM",), (), ["ssm"]),
            ((), (), []),
            (None, ("train",), ["ssm"]),
            (None, ("helix_train",), ["ssm"]),
            (("ssm", "train"), ("ssm",), ["train"]),
            (("other",), (), []),
        ],
    )
    def test_lists_name_distributions_or_entry_points(self, allowed, denied, kept):
        assert [e.name for e in select(self.FOUND, allowed, denied)] == kept

    @pytest.mark.parametrize(
        ("environment", "arguments"),
        [
            ({"HELIX_PLUGINS": "toy"}, {}),
            ({"HELIX_PLUGINS": " helix-toy , other"}, {}),
            ({"HELIX_PLUGINS_DISABLED": "bomb"}, {}),
            ({}, {"plugins": ["toy"]}),
            ({}, {"disabled": ["bomb"]}),
            ({"HELIX_PLUGINS": "toy,bomb"}, {"disabled": ["bomb"]}),
            ({"HELIX_PLUGINS_DISABLED": "bomb"}, {"plugins": ["toy", "bomb"]}),
        ],
    )
    def test_what_is_left_out_is_never_imported(self, tmp_path, monkeypatch, environment, arguments):
        install(tmp_path, "bomb", "bomb = bomb_manifest", bomb_manifest="raise SystemExit('imported')")
        monkeypatch.syspath_prepend(str(tmp_path))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        toy = EntryPoint("toy", "helix_toy.plugin", "helix_kernel.v1", "helix-toy", "1", "")
        kernel = Kernel(found=[*entry_points([str(tmp_path)]), toy], **arguments)
        assert [plugin.name for plugin in kernel.plugins] == ["toy"]
        assert kernel.failures == ()

    def test_an_empty_variable_lets_nothing_through(self, monkeypatch):
        monkeypatch.setenv("HELIX_PLUGINS", "")
        assert Kernel(found=self.FOUND).plugins == ()


class TestKinds:
    OWNER = manifest("owner", "owner", kinds=[Kind(name="tool", plural="tools", section="tool")])
    USER = manifest("user", "user", tools=[component("hammer")], layers=[component("fine")])

    @pytest.mark.parametrize("order", [(OWNER, USER), (USER, OWNER)])
    def test_a_plugins_kind_is_open_to_every_plugin_whatever_the_order(self, order):
        kernel = kernel_of(*order)
        assert kernel.find("tool", "hammer").provider == "user"
        assert kernel.registry.kinds["tool"].provider == "owner"

    def test_its_hook_is_ignored_while_the_owner_is_absent(self):
        kernel = kernel_of(self.USER)
        assert [c.name for c in kernel.components()] == ["fine"]
        assert kernel.failures == ()
        assert kernel.plugins[0].unknown_hooks == ("helix_tools",)

    def test_its_hook_is_ignored_when_the_owner_fails(self):
        kinds = [Kind(name="tool", plural="tools")]
        owner = manifest("owner", "owner", kinds=kinds, layers=raising(RuntimeError("broken")))
        kernel = kernel_of(owner, self.USER)
        assert [c.name for c in kernel.components()] == ["fine"]
        assert [failure.provider for failure in kernel.failures] == ["owner"]

    def test_a_second_owner_fails_and_the_first_serves(self):
        second = manifest("second", "second", kinds=[Kind(name="tool", plural="tools")])
        kernel = kernel_of(self.OWNER, second)
        assert "has the name 'tool', which owner brings already" in str(kernel.failures[0])
        assert kernel.registry.kinds["tool"].provider == "owner"

    def test_plugins_of_one_name_from_two_distributions_keep_their_own_kinds(self):
        first = manifest("same", "first", kinds=[Kind(name="one", plural="ones")])
        second = manifest("same", "second", kinds=[Kind(name="two", plural="twos")])
        providers = {k.name: k.provider for plugin in kernel_of(first, second).plugins for k in plugin.kinds}
        assert providers == {"one": "first", "two": "second"}


def test_a_component_says_where_it_comes_from():
    (plugin,) = kernel_of(toy_manifest()).plugins
    assert {(c.provider, c.version) for c in plugin.components} == {("helix-toy", "1.2.3")}
    assert {c.kind for c in plugin.components} == {"layer", "gadget"}


def test_a_manifest_that_imports_torch_is_noted(tmp_path, python):
    # A stand-in shows what counts: the name, when the manifest brought it in.
    heavy = "import torch, numpy"
    install(tmp_path, "heavy", "h = heavy_manifest", heavy_manifest=heavy, torch="", numpy="")
    install(tmp_path, "light", "l = light_manifest", light_manifest="import json")
    code = (
        "import json; from helix_kernel import Kernel; from helix_kernel.discovery import entry_points\n"
        f"kernel = Kernel(found=entry_points([{str(tmp_path)!r}]))\n"
        "print(json.dumps({p.name: [p.heavy_imports, p.import_seconds > 0] for p in kernel.plugins}))"
    )
    assert json.loads(python(code, tmp_path)) == {"h": [["torch", "numpy"], True], "l": [[], True]}
