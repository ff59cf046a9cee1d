"""Every link of a page leads somewhere: to a file, to a heading in it, or to a well-formed address."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from documents.blocks import without_blocks

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "docs/reference/generated"
_LINK = re.compile(r"\]\(\s*<?([^()\s>]+(?:\([^()]*\)[^()\s>]*)?)>?(?:\s+\"[^\"]*\")?\s*\)")
_CODE = re.compile(r"(`+).+?\1")


def pages() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]


def links(text: str) -> list[str]:
    return _LINK.findall(_CODE.sub("", without_blocks(text)))


def anchors(text: str) -> set[str]:
    """Return what ``#…`` may name: headings as GitHub and MyST spell them, and labels, (kind-layer)=."""
    body = without_blocks(text)
    headings = re.findall(r"^#{1,6} +(.+?)\s*$", body, flags=re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return {*slugs, *re.findall(r"^\(([\w-]+)\)=$", body, flags=re.MULTILINE)}


@cache
def generated() -> dict[str, str]:
    """Return the pages that the site's build makes, which need not lie on the disk."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from generated_pages import pages as make
    finally:
        sys.path.remove(str(ROOT / "docs"))
    from helix_kernel import Kernel

    return make(Kernel())


def fault(page: Path, link: str) -> str | None:
    """Return what is wrong with a page's link, or None."""
    parts = urlsplit(link)
    if parts.scheme:
        good = parts.scheme in ("http", "https") and re.fullmatch(r"[\w-]+(\.[\w-]+)+(:\d+)?", parts.netloc)
        return None if good else "is no address"
    target = (page.parent / parts.path).resolve() if parts.path else page
    if target.parent == GENERATED:
        if target.name not in generated():
            return "is a generated page that is not made"
        text = generated()[target.name]
    elif not target.exists():
        return "is not there"
    else:
        text = target.read_text(encoding="utf-8") if target.suffix == ".md" else ""
    return (
        f"has no heading #{parts.fragment}"
        if parts.fragment and parts.fragment not in anchors(text)
        else None
    )


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page):
    found = {link: fault(page, link) for link in links(page.read_text(encoding="utf-8"))}
    assert not {link: said for link, said in found.items() if said}


def test_there_are_links_of_every_sort():
    found = [link for page in pages() for link in links(page.read_text(encoding="utf-8"))]
    assert sum("://" in link for link in found) > 20
    assert sum("#" in link and "://" not in link for link in found) >= 2
    assert sum("generated" in link for link in found) >= 2


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("missing.md", "is not there"),
        ("page.md#none", "has no heading #none"),
        ("#none", "has no heading #none"),
        ("https://", "is no address"),
        ("htp://example.org", "is no address"),
        ("page.md#some-heading-two", None),
        ("#label", None),
        ("https://example.org/a_(b)", None),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, link, said):
    page = tmp_path / "page.md"
    code = "`[y](code)`\n```\n[z](code)\n```\n"
    page.write_text(f"# Some `heading`, two\n\n(label)=\n## B\n\n[x]({link}) and {code}")
    assert [fault(page, found) for found in links(page.read_text())] == [said]
