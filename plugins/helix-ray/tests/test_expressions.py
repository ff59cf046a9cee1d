"""Search expressions: what is read, what is refused and in which words, and what is drawn."""

from __future__ import annotations

import random
import tomllib

import pytest

from helix_kernel.errors import InputError
from helix_ray.expressions import FORMS, assignment, parse_search, parse_searches


@pytest.mark.parametrize(
    ("text", "key", "kind", "arguments"),
    [
        ("optimizer.lr=loguniform(1e-4,1e-2)", "optimizer.lr", "loguniform", (1e-4, 1e-2)),
        (" a.b = uniform( -1 , 2 ) ", "a.b", "uniform", (-1, 2)),
        ("m.n=randint(1, 9)", "m.n", "randint", (1, 9)),
        ("m.n=choice(64,128)", "m.n", "choice", (64, 128)),
        ("o.use=choice(adamw, lion)", "o.use", "choice", ("adamw", "lion")),
        ('o.use=grid("a,b", "c")', "o.use", "grid", ("a,b", "c")),
        ("o.betas=choice([0.9, 0.95], [0.9, 0.999])", "o.betas", "choice", ([0.9, 0.95], [0.9, 0.999])),
        ("o.on=choice(true, no)", "o.on", "choice", (True, "no")),
    ],
)
def test_an_expression_is_read(text, key, kind, arguments):
    search = parse_search(text)
    assert (search.key, search.kind, search.arguments) == (key, kind, arguments)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optimizer.lr", "not of the form key=kind(…)"),
        ("optimizer.lr=0.1", "not of the form key=kind(…)"),
        ("=uniform(0,1)", "not of the form key=kind(…)"),
        ("lr=loguniforn(1,2)", "Did you mean 'loguniform'?"),
        ("lr=__import__(os)", "'__import__' is unknown"),
        ("lr=uniform(1)", "given 1 ends"),
        ("lr=uniform(2,1)", "the low end 2 is not below the high end 1"),
        ("lr=uniform(1,1)", "the low end 1 is not below the high end 1"),
        ("lr=uniform(0,inf)", "both finite"),
        ("lr=uniform(nan,1)", "both finite"),
        ("lr=uniform(0,a)", "it takes two numbers"),
        ("lr=uniform(false,true)", "it takes two numbers"),
        ("lr=loguniform(0,1)", "allowed is > 0 for a logarithm"),
        ("n=randint(1.5,3)", "it takes two whole numbers"),
        ("n=choice()", "there is no value to choose"),
        ("n=choice(a,,b)", "one is empty"),
        ("n=choice({use = 'x'})", "search the keys of a table one by one"),
    ],
)
def test_a_wrong_expression_is_named_with_what_is_allowed(text, told):
    with pytest.raises(InputError) as caught:
        parse_search(text)
    assert repr(text) in str(caught.value)
    assert told in str(caught.value)


def test_a_key_is_searched_once():
    with pytest.raises(InputError, match=r"a\.b is searched 2 times"):
        parse_searches(["a.b=uniform(0,1)", "c=uniform(0,1)", "a.b=choice(1,2)"])


@pytest.mark.parametrize("kind", ["uniform", "loguniform", "randint", "lograndint"])
def test_draws_reach_the_whole_range_and_do_not_leave_it(kind):
    search = parse_search(f"key={kind}(1, 5)")
    drawn = [search.draw(random.Random(seed)) for seed in range(400)]
    if "int" in kind:
        assert set(drawn) == {1, 2, 3, 4}
    else:
        assert 1 <= min(drawn) < 1.1
        assert 4.9 < max(drawn) <= 5


def test_a_logarithmic_draw_has_its_median_at_the_geometric_mean():
    search = parse_search("key=loguniform(1e-4, 1e-2)")
    below = sum(search.draw(random.Random(seed)) < 1e-3 for seed in range(1000))
    assert 430 < below < 570


def test_every_form_is_drawn_or_a_grid():
    for kind in set(FORMS) - {"grid"}:
        assert parse_search(f"key={kind}(1, 2)").draw(random.Random(0)) in (1, 2) or "uniform" in kind


@pytest.mark.parametrize("value", [1e-05, 3, True, 'a "b" ä', [0.9, 0.95]])
def test_an_assignment_gives_the_value_back(value):
    name, _, text = assignment("key", value).partition("=")
    assert name == "key"
    assert tomllib.loads(f"value = {text}")["value"] == value
