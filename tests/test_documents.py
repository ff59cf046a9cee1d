"""Every code block and command of README and the docs does what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from cyclopts import CycloptsError
from documents.blocks import blocks
from documents.walk import Walk

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("helix-*/README.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(
        path
        for path in (ROOT / "docs").rglob("*.md")
        if not {"_build", "generated", "examples"} & set(path.relative_to(ROOT).parts)
    ),
]
# Walks of more than ten seconds: they compile, or run the suites of many components.
SLOW = (
    {"README.md"}  # what matters most in it is in test_readme.py, too
    | {
        f"docs/how-to/write-{what}.md"
        for what in (
            "a-backend",
            "a-layer",
            "a-loss",
            "a-modality",
            "a-memory-tier",
            "an-optimizer",
            "a-scheduling-policy",
        )
    }
    | {
        "docs/tutorials/first-run.md",
        "docs/how-to/own-kind.md",
        "docs/how-to/test-a-plugin.md",
        "docs/how-to/ship-a-plugin.md",
    }
)
# Blocks that no test runs, by page; each has its reason beside it in the page.
NOT_RUN = {
    "docs/benchmarks/cuda.md": 1,
    "docs/how-to/ship-a-plugin.md": 1,
    "helix-cpu/README.md": 1,
    "helix-cuda/README.md": 3,
}


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def pages_with_blocks() -> list[object]:
    return [
        pytest.param(page, id=name(page), marks=[pytest.mark.slow] if name(page) in SLOW else [])
        for page in PAGES
        if blocks(page)
    ]


@pytest.mark.parametrize("page", pages_with_blocks())
def test_a_page_does_what_it_says(page, tmp_path, fresh_kernel):
    walk = Walk(tmp_path)
    for block in blocks(page):
        walk.run(block)


def test_blocks_that_are_not_run_are_these():
    counts = {name(page): sum(block.marker == "not run" for block in blocks(page)) for page in PAGES}
    assert {page: count for page, count in counts.items() if count} == NOT_RUN


def test_a_page_that_shows_another_output_is_found(tmp_path, fresh_kernel):
    with pytest.raises(AssertionError, match="where the page says"):
        walk(tmp_path, "```console\n$ helix --version\nhelix zero\n```\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\nhelix trian config.toml\n```", "no command is called 'trian'"),
        ("```sh\nhelix train config.toml --dry-rum\n```", "--dry-rum"),
        ("<!-- parsed: slow -->\n```sh\nhelix train config.toml --dry-rum\n```", "--dry-rum"),
        ("<!-- parsed: slow -->\n```sh\nhelix train config.toml optimizer.l=1\n```", "optimizer.l: unknown"),
        ("```toml\n[optimizer]\nuse = 'adamw'\nl = 1\n```", "optimizer.l: unknown"),
        ("```python\nimport helix_kernel.nothing\n```", "helix_kernel.nothing"),
        ("```sh\npip install helix-nothing\n```", "no such distribution"),
        ("```sh\nmake nothing\n```", "make nothing"),
        ("```sh\nfrobnicate\n```", "mark the block, with a reason"),
        ("```\nhelix\n```", "nobody knows how to run a block of ''"),
    ],
)
def test_a_page_that_is_wrong_is_found(tmp_path, fresh_kernel, text, message):
    with pytest.raises((AssertionError, ImportError, CycloptsError), match=message):
        walk(tmp_path, text)


def test_a_mark_without_a_reason_is_none(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: -->\n```sh\nls\n```\n<!-- not run: ls is not ours -->\n```sh\nls\n```\n")
    assert [(block.line, block.marker) for block in blocks(page)] == [(2, ""), (6, "not run")]


def walk(folder: Path, text: str) -> None:
    page = folder / "page.md"
    page.write_text(text)
    (folder / "walk").mkdir()
    walk = Walk(folder / "walk")
    for block in blocks(page):
        walk.run(block)
