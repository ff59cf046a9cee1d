"""The site's generated reference holds everything installed, and the site builds without a warning."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helix_kernel import Kernel
from helix_kernel.cli.direct import COMMANDS
from helix_kernel.config.schema import schema_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture(scope="module")
def generated_pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        import generated_pages

        yield generated_pages


@pytest.fixture(scope="module")
def pages(kernel, generated_pages) -> dict[str, str]:
    return generated_pages.pages(kernel)


def test_every_kind_and_component_and_option_is_described(kernel, pages):
    for component in kernel.components():
        if component.kind == "command":
            continue
        text = pages[f"{component.kind.replace('_', '-')}.md"]
        section = text.partition(f"\n## {component.name}\n")[2].partition("\n## ")[0]
        assert component.summary in section
        assert component.target in section
        if component.kind not in ("op", "backend"):
            for option in schema_of(component).options.values():
                assert f"| `{option.name}` |" in section, f"{component.qualified}.{option.name}"
                assert option.help.replace("|", "\\|") in section
    assert kernel.registry.kinds.keys() - {"command"} == {
        name for name in kernel.registry.kinds if f"[`{name}`]" in pages["kinds.md"]
    }


def test_every_command_is_described(kernel, pages):
    own = {" ".join(words) for words in COMMANDS}
    brought = {component.name for component in kernel.components("command")}
    headings = {line.lstrip("# ") for line in pages["commands.md"].splitlines() if line.startswith("##")}
    assert {f"helix {name}" for name in own} <= headings
    assert {f"helix {name}" for name in brought if "-" not in name} <= headings


def test_the_page_of_configs_has_every_section_and_setting(kernel, pages):
    assert all(f"`[{section}]`" in pages["config.md"] for section in kernel.registry.sections)
    assert "| `backends` |" in pages["config.md"]


def test_the_schema_is_the_one_that_the_command_prints(pages, helix):
    assert json.loads(helix("config", "schema")[1]) == json.loads(pages["helix.schema.json"])


def test_what_is_no_longer_made_is_removed_and_the_rest_is_left_alone(tmp_path, generated_pages):
    generated_pages.write(tmp_path, {"a.md": "a", "b.md": "b"})
    before = (tmp_path / "a.md").stat().st_mtime_ns
    generated_pages.write(tmp_path, {"a.md": "a", "c.md": "c"})
    assert {path.name for path in tmp_path.iterdir()} == {"a.md", "c.md"}
    assert (tmp_path / "a.md").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_site_builds_without_a_warning(tmp_path):
    source, site = tmp_path / "docs", tmp_path / "html"
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("_build", "generated"))
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, source, site], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    page = (site / "reference/generated/layer.html").read_text()
    assert 'id="layer-mamba"' in page
    assert not re.findall(
        r'(?:src|rel="stylesheet" href)="http[^"]*', page
    )  # a reader's browser fetches nothing
