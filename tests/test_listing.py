"""What is installed, kept on disk so that listing it need not load it."""

from __future__ import annotations

import json
import os

import pytest
from helix_toy.make import LONG_AGO, install, manifest, toy_kernel

from helix_kernel import listing as listings
from helix_kernel.listing import describe, listing

MANIFEST = """
import helix_kernel
from helix_kernel import Component

@helix_kernel.hookimpl
def helix_layers():
    return [Component(name={name!r}, target="a:b", summary="a layer")]
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path with one plugin, and nothing else installed."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "site"
    install(root, "acme", "acme = acme_manifest", acme_manifest=MANIFEST.format(name="first"))
    return root


@pytest.fixture
def names(site, python):
    """List the components in a new process, as `helix components` does."""

    def run(**environment):
        code = (
            "import sys, json; from helix_kernel.listing import listing; found = listing()\n"
            "names = [c['name'] for c in found['components'] if c['provider'] == 'acme']\n"
            "print(json.dumps([names, 'helix_kernel.kernel' in sys.modules]))"
        )
        return tuple(json.loads(python(code, site, **environment)))

    return run


def test_a_second_listing_loads_no_plugin(names):
    assert names() == (["first"], True)
    assert names() == (["first"], False)


def test_a_manifest_that_changes_while_it_is_read_is_not_kept(site, monkeypatch):
    monkeypatch.syspath_prepend(str(site))
    described = listings.describe

    def changed_meanwhile(kernel):
        found = described(kernel)
        (site / "acme_manifest.py").write_text(MANIFEST.format(name="second"))
        return found

    monkeypatch.setattr(listings, "describe", changed_meanwhile)
    listing()
    assert not list((site.parent / "cache").glob("listing-*.json"))


def test_two_checkouts_with_the_same_entry_points_have_a_listing_each(names, site, tmp_path):
    names()
    kept = len(list((tmp_path / "cache").glob("listing-*.json")))
    names(PYTHONPATH="elsewhere")
    assert len(list((tmp_path / "cache").glob("listing-*.json"))) == kept + 1


def test_a_changed_manifest_is_noticed(names, site):
    names()
    path = site / "acme_manifest.py"
    path.write_text(MANIFEST.format(name="second"))
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    assert names() == (["second"], True)


def test_a_new_plugin_is_noticed(names, site):
    names()
    install(site, "more", "more = more_manifest", more_manifest=MANIFEST.format(name="more"))
    os.utime(site, ns=(LONG_AGO + 1, LONG_AGO + 1))
    assert names() == (["first"], True)


def test_nothing_is_kept_while_a_plugin_is_broken(names, site):
    install(site, "broken", "b = broken_manifest", broken_manifest="1 / 0")
    assert names() == names() == (["first"], True)
    (site / "broken_manifest.py").write_text(MANIFEST.format(name="mended"))
    assert names() == (["first"], True)
    assert names() == (["first"], False)


@pytest.mark.parametrize(
    ("variable", "value"), [("HELIX_PLUGINS", "ssm"), ("HELIX_PLUGINS_DISABLED", "acme")]
)
def test_a_selection_is_listed_afresh_and_leaves_the_kept_listing_alone(names, variable, value):
    names()
    assert names(**{variable: value}) == ([], True)
    assert names() == (["first"], False)


def test_a_damaged_cache_is_read_past(names, site):
    names()
    for file in (site.parent / "cache").glob("listing-*.json"):
        file.write_text('{"version": "0.1.0"')
    assert names() == (["first"], True)


def test_the_kept_listing_is_that_of_the_kernel(monkeypatch):
    loaded = listing()
    monkeypatch.setattr(listings, "read_cache", lambda name: None)
    fresh = json.loads(json.dumps(listing()))
    for one in (loaded, fresh):
        for plugin in one["plugins"]:
            plugin.pop("import_seconds")
    assert json.loads(json.dumps(loaded)) == fresh


def test_the_tables_describe_plugins_failures_kinds_and_components():
    def broken():
        raise RuntimeError("no luck")

    found = json.loads(json.dumps(describe(toy_kernel(manifest("bad", "bad", layers=broken)))))
    (plugin,) = found["plugins"]
    (failure,) = found["failures"]
    assert (plugin["provider"], plugin["kinds"]) == ("helix-toy", ["gadget"])
    assert plugin["components"] == len(found["components"])
    assert failure["error"] == "RuntimeError: no luck"
    assert "Traceback" in failure["traceback"]
    assert {"name": "gadget", "plural": "gadgets"}.items() <= found["kinds"][-1].items()
    assert {"name": "block", "kind": "layer", "version": "1.2.3"}.items() <= next(
        c for c in found["components"] if c["name"] == "block"
    ).items()
