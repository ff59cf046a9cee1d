"""Finding plugins without importing them."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import time

import pytest
from helix_toy.make import LONG_AGO, install, settle

from helix_kernel import discovery
from helix_kernel.discovery import entry_points, shadowed


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    directory = tmp_path / "cache"
    monkeypatch.setenv("HELIX_CACHE_DIR", str(directory))
    return directory


@pytest.fixture
def site(tmp_path):
    root = tmp_path / "site"
    root.mkdir()
    return root


def names(found):
    return sorted((e.provider, e.version, e.name, e.module, e.group) for e in found)


def test_a_plugin_is_found_with_its_distribution(site):
    install(site, "acme-layers", "acme = acme.manifest", version="2.1")
    assert names(entry_points([str(site)])) == [
        ("acme-layers", "2.1", "acme", "acme.manifest", "helix_kernel.v1")
    ]


def test_one_distribution_may_hold_several_plugins_and_majors(site):
    install(site, "acme", "a = acme.one\nb = acme.two\n[helix_kernel.v2]\na = acme.new")
    assert [(e.name, e.group[-1]) for e in entry_points([str(site)])] == [("a", "1"), ("b", "1"), ("a", "2")]


@pytest.mark.parametrize(
    "text",
    [
        "[console_scripts]\nx = y:z",
        "[helix_kernel.vendor]\nx = y",
        "[helix_kernel.v]\nx = y",
        "[helix_kernel]\nx = y",
        "[other]\nhelix_kernel.v1 = y",
        "",
    ],
)
def test_groups_that_are_not_an_api_version_are_no_plugins(site, text):
    metadata = install(site, "acme", None)
    (metadata / "entry_points.txt").write_text(text)
    assert entry_points([str(site)]) == []


def test_comments_extras_and_spaces_are_read_as_importlib_reads_them(site):
    install(site, "acme", "# a comment\n  x=acme.manifest [fast]  \n\n[console_scripts]\nacme = acme:main")
    assert [(e.name, e.module) for e in entry_points([str(site)])] == [("x", "acme.manifest")]


@pytest.mark.parametrize(
    ("folder", "version"), [("acme_old-1.5-py3.11.egg-info", "1.5"), ("acme_old.egg-info", "3.2")]
)
def test_an_egg_info_counts_as_a_distribution(site, folder, version):
    (site / folder).mkdir()
    (site / folder / "PKG-INFO").write_text(f"Name: acme-old\nVersion: {version}\n")
    (site / folder / "entry_points.txt").write_text("[helix_kernel.v1]\nx = acme.manifest\n")
    assert names(entry_points([str(site)])) == [
        ("acme-old", version, "x", "acme.manifest", "helix_kernel.v1")
    ]


def test_the_same_is_found_as_by_importlib_in_a_varied_environment(tmp_path):
    roots = [tmp_path / name for name in ("first", "second", "gone")]
    for root in roots[:2]:
        root.mkdir()
    install(roots[0], "acme", "a = a.one")
    install(roots[0], "Mixed.Case", "m = m")
    install(roots[0], "bare", None)
    install(roots[1], "acme", "a = a.hidden\nb = b", version="2.0")
    install(roots[1], "bare", "c = hidden.by.one.without.plugins")
    install(roots[1], "other", "d = d", group="helix_kernel.v2")
    install(roots[1], "egg", "e = e", suffix="-py3.11.egg-info")
    search = [str(root) for root in roots]
    assert sorted((e.group, e.name, e.module) for e in entry_points(search)) == oracle(search)
    assert {e.provider for e in entry_points(search)} == {"acme", "mixed-case", "other", "egg"}


def test_the_same_is_found_as_by_importlib_in_this_environment():
    found = sorted((e.group, e.name, e.module) for e in entry_points(cached=False))
    assert found == oracle(sys.path)
    assert ("helix_kernel.v1", "ssm", "helix_ssm.plugin") in found


def oracle(search):
    seen = {}
    for distribution in importlib.metadata.distributions(path=search):
        seen.setdefault(distribution.metadata["Name"].lower().replace(".", "-"), distribution)
    return sorted((e.group, e.name, e.value) for d in seen.values() for e in d.entry_points if ours(e))


def ours(entry_point):
    return entry_point.group.startswith("helix_kernel.v")


def test_an_earlier_distribution_hides_a_later_one_which_is_reported(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    install(first, "acme", "x = new")
    hidden = install(second, "acme", "x = old", version="0.9")
    search = [str(first), str(second)]
    assert [e.module for e in entry_points(search)] == ["new"]
    assert [(e.module, e.location) for e in shadowed(search)] == [("old", str(hidden))]


def test_what_a_stopped_installer_renamed_is_no_distribution(site):
    install(site, "acme", "x = new")
    install(site, "acme", "x = old", version="0.9").rename(site / "~cme-0.9.dist-info")
    settle(site)
    assert [e.provider for e in entry_points([str(site)])] == ["acme"]


def test_a_directory_named_twice_shadows_nothing(site):
    install(site, "acme")
    assert shadowed([str(site), str(site)]) == []


def test_finding_imports_nothing(site, python):
    install(site, "acme", "x = acme_manifest", acme_manifest="raise SystemExit('imported')")
    code = (
        "import sys; before = set(sys.modules)\n"
        "from helix_kernel.discovery import entry_points\n"
        f"assert len(entry_points([{str(site)!r}])) == 1\n"
        "heavy = {'acme_manifest', 'torch', 'numpy', 'pluggy', 'attrs', 'typing', 'importlib.metadata'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    assert python(code) == "[]"


class TestCache:
    def test_a_second_listing_reads_no_distribution(self, site, monkeypatch):
        install(site, "acme")
        first = entry_points([str(site)])
        monkeypatch.setattr(discovery, "_scan", None)
        assert entry_points([str(site)]) == first

    def test_a_changed_directory_is_read_again(self, site):
        install(site, "acme")
        entry_points([str(site)])
        install(site, "more")
        settle(site, LONG_AGO + 1)
        assert [e.provider for e in entry_points([str(site)])] == ["acme", "more"]

    def test_a_directory_that_appears_is_read(self, site, tmp_path):
        later = tmp_path / "later"
        assert entry_points([str(site), str(later)]) == []
        install(later, "acme")
        assert len(entry_points([str(site), str(later)])) == 1

    def test_what_an_installer_may_still_be_writing_is_not_kept(self, site):
        metadata = install(site, "acme", None)
        settle(site, time.time_ns())
        assert entry_points([str(site)]) == []
        (metadata / "entry_points.txt").write_text("[helix_kernel.v1]\nx = y\n")
        assert len(entry_points([str(site)])) == 1

    def test_uncached_listings_neither_read_nor_write(self, site, cache):
        install(site, "acme")
        assert len(entry_points([str(site)], cached=False)) == 1
        assert not cache.exists()

    @pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"roots": []}', "\xff"])
    def test_a_damaged_cache_is_read_past(self, site, cache, content):
        install(site, "acme")
        expected = entry_points([str(site)])
        (file,) = cache.iterdir()
        file.write_bytes(content.encode("latin-1"))
        assert entry_points([str(site)]) == expected

    def test_a_cache_that_cannot_be_written_costs_only_speed(self, site, tmp_path, monkeypatch):
        blocked = tmp_path / "a-file"
        blocked.write_text("")
        monkeypatch.setenv("HELIX_CACHE_DIR", str(blocked / "below"))
        install(site, "acme")
        assert len(entry_points([str(site)])) == len(entry_points([str(site)])) == 1

    def test_nothing_but_the_listing_stays_in_the_cache(self, site, cache):
        entry_points([install(site, "acme").parent.as_posix()])
        assert [file.suffix for file in cache.iterdir()] == [".json"]

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [
            ({"HELIX_CACHE_DIR": "/a"}, "/a"),
            ({"HELIX_CACHE_DIR": "", "XDG_CACHE_HOME": "/b"}, "/b/helix"),
            ({"HELIX_CACHE_DIR": "", "XDG_CACHE_HOME": "", "HOME": "/c"}, "/c/.cache/helix"),
        ],
    )
    def test_its_place_follows_the_environment(self, monkeypatch, environment, expected):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert discovery.cache_directory() == expected


def test_a_file_stamp_changes_with_the_file(tmp_path):
    path = str(tmp_path / "file")
    absent = discovery.file_stamp(path)
    (tmp_path / "file").write_text("a")
    first = discovery.file_stamp(path)
    os.utime(path, ns=(1, 1))
    assert len({str(absent), str(first), str(discovery.file_stamp(path))}) == 3
