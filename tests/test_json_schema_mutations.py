"""The JSON Schema and `helix config check` give one verdict on right configs, and on 200 wrong ones."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from config_mutations import mutations

from helix_kernel import Kernel
from helix_kernel.config import resolve_document
from helix_kernel.config.document import _apply
from helix_kernel.config.json_schema import json_schema
from helix_kernel.errors import ConfigError

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.toml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What only the check sees, by what it says then: why a JSON Schema cannot say it, and an example.
BEYOND_A_SCHEMA = {
    r"given -?[\d.e+]+ \(a number\), allowed is an integer": (
        "to JSON Schema, 2.0 is an integer",
        "model.n_layers=2.0",
    ),
    r"given nan, allowed is": (
        "JSON has no NaN, and the bounds of a schema let it through",
        "optimizer.lr=nan",
    ),
    r"int too large to convert to float": (
        "a schema's number has no size",
        f"optimizer.lr=1{'0' * 400}",
    ),
    r"refers to no value|refers to itself": (
        "what a reference means stands elsewhere in the config",
        "trainer.steps='${trainer.nothing}'",
    ),
    r"given 0\.00[14]|is called 'mamba'|given None": (
        "so does the value that it means",
        "loss='${model.mixer}'",
    ),
    r"given 'a \d+ b'": (
        "so does what stands within a text",
        "data.source='a ${trainer.steps} b'",
    ),
    r"neither source nor paths is given|one of mixer and pattern is needed|lacks '\w+'; it needs each of|"
    r"names '\w+', (allowed|which)|one \{name\}|is missing: ": (
        "options that depend on each other",
        "model={use = 'language-model', d_model = 8}",
    ),
}
# What only the schema refuses, by the mutation.
BEYOND_THE_CHECK = {"null": "TOML has no null, so that only a table made by a program holds one"}


@pytest.fixture(scope="module")
def installed():
    kernel = Kernel()
    return kernel, jsonschema.Draft202012Validator(json_schema(kernel))


def problem(kernel, table):
    """Return what the check says first, or nothing."""
    try:
        resolve_document(table, kernel=kernel)
    except ConfigError as error:
        return str(error.problems[0])
    return ""


def whole_configs():
    """Every config file of the docs, and every block of a page that is a whole config."""
    yield from (pytest.param(path.read_text(), id=path.name) for path in EXAMPLES)
    for page in PAGES:
        blocks = re.findall(
            r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        for index, text in enumerate(text for text in blocks if "[model]" in text and "[trainer]" in text):
            yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{index}")


@pytest.mark.parametrize("text", list(whole_configs()))
def test_a_config_that_is_shown_is_right_to_both(text, installed):
    kernel, validator = installed
    table = tomllib.loads(text)
    assert problem(kernel, table) == ""
    assert list(validator.iter_errors(table)) == []


def test_200_mutated_configs_get_one_verdict_but_for_what_a_schema_cannot_say(installed):
    kernel, validator = installed
    configs = {path.name: tomllib.loads(path.read_text()) for path in EXAMPLES}
    names = sorted({component.name for component in kernel.components()})
    reasons: Counter[str] = Counter()
    verdicts: Counter[bool] = Counter()
    unexplained = []
    for what, table in mutations(configs, names, 200):
        said = problem(kernel, table)
        verdicts[said == ""] += 1
        if validator.is_valid(table) is not (said == ""):
            reason = explanation(what, said)
            reasons[reason] += 1
            unexplained += [] if reason else [f"{what}: check says {said or 'ok'!r}"]
    assert unexplained == []
    assert verdicts[False] >= 120  # so that there is something to agree on
    assert verdicts[True] >= 20
    assert reasons.total() <= 40, reasons


def explanation(what, said):
    """Return why the two may differ here, or nothing."""
    if not said:
        return next((reason for kind, reason in BEYOND_THE_CHECK.items() if kind in what), "")
    return next((reason for pattern, (reason, _) in BEYOND_A_SCHEMA.items() if re.search(pattern, said)), "")


@pytest.mark.parametrize("pattern", BEYOND_A_SCHEMA, ids=[reason for reason, _ in BEYOND_A_SCHEMA.values()])
def test_what_a_schema_cannot_say_is_accepted_by_it_and_refused_by_the_check(pattern, example, installed):
    kernel, validator = installed
    table = tomllib.loads(example.read_text())
    _apply(table, BEYOND_A_SCHEMA[pattern][1])
    assert re.search(pattern, problem(kernel, table))
    assert validator.is_valid(table)


def test_null_is_refused_by_the_schema_alone(example, installed):
    kernel, validator = installed
    table = tomllib.loads(example.read_text())
    table["kernel"] = {"plugins": None}
    assert problem(kernel, table) == ""
    assert not validator.is_valid(table)
