"""What a sweep will run, all of it decided and checked before Ray is started."""

from __future__ import annotations

import sys

import pytest

from helix_kernel.cli import main
from helix_kernel.errors import ConfigError, HelixError, InputError
from helix_ray.expressions import parse_searches
from helix_ray.sweep import Trial, best_of, draw_trials, plan_sweep


@pytest.fixture
def plan(folder, monkeypatch, tmp_path):
    """Plan a sweep of the tiny config."""
    monkeypatch.chdir(folder)

    def make(*searches, overrides=(), **options):
        overrides = (f"trainer.out={tmp_path / 'sweep'}", *overrides)
        return plan_sweep("config.toml", overrides, searches, **{"trials": 2, **options})

    return make


def trial(number, metric, status="done", error=""):
    return Trial(number=number, values={}, status=status, metric=metric, step=1, out="", error=error)


def test_trials_depend_on_the_seed_alone():
    searches = parse_searches(["a=uniform(0,1)", "b=choice(1,2,3)"])
    assert draw_trials(searches, 5, seed=1) == draw_trials(searches, 5, seed=1)
    assert draw_trials(searches, 5, seed=1) != draw_trials(searches, 5, seed=2)


def test_more_trials_begin_with_the_same_ones():
    searches = parse_searches(["a=uniform(0,1)", "b=choice(1,2,3)"])
    assert draw_trials(searches, 9, seed=1)[:5] == draw_trials(searches, 5, seed=1)


def test_every_point_of_the_grids_is_taken_with_draws_of_the_rest():
    searches = parse_searches(["a=grid(1,2)", "x=uniform(0,1)", "b=grid(u,v)"])
    trials = draw_trials(searches, 3, seed=0)
    assert [(t["a"], t["b"]) for t in trials] == [(a, b) for a in (1, 2) for b in "uv" for _ in range(3)]
    assert len({t["x"] for t in trials}) == 12
    assert list(trials[0]) == ["a", "x", "b"]


def test_a_grid_alone_is_run_once():
    assert draw_trials(parse_searches(["a=grid(1,2)"]), 7, seed=0) == [{"a": 1}, {"a": 2}]


def test_each_trial_has_its_values_a_directory_and_the_logger(plan, tmp_path):
    made = plan("optimizer.lr=grid(0.5, 0.25)", overrides=['trainer.loggers=[{ use = "csv" }]'])
    assert [config["optimizer"]["lr"] for config in made.configs] == [0.5, 0.25]
    for number, config in enumerate(made.configs):
        assert config["trainer"]["out"] == str(tmp_path / "sweep" / f"trial-{number:04d}")
        assert [logger["use"] for logger in config["trainer"]["loggers"]] == [
            "helix-train:csv",
            "helix-ray:ray",
        ]
        assert config["trainer"]["loggers"][1]["metric"] == "validation_loss"


def test_a_reference_to_a_searched_key_follows_it(plan):
    made = plan("data.seq_len=grid(8, 12)", overrides=["trainer.steps=${data.seq_len}"])
    assert [config["trainer"]["steps"] for config in made.configs] == [8, 12]


def test_the_command_of_a_trial_is_what_trains_it(plan, tmp_path):
    made = plan('optimizer.use=grid("adamw")', "optimizer.lr=grid(1e-4)")
    assert made.command(0) == (
        f"helix train config.toml trainer.out={tmp_path / 'sweep'} 'optimizer.use=\"adamw\"' "
        "optimizer.lr=0.0001"
    )


@pytest.mark.parametrize(
    ("search", "told"),
    [
        ("optimizer.rl=uniform(0,1)", "optimizer.rl"),
        ("optimiser.lr=uniform(0,1)", "Did you mean 'optimizer'?"),
        ("optimizer.use=choice(adamv)", "Did you mean 'adam'?"),
        ("model.d_model=uniform(1,2)", "model.d_model"),
    ],
)
def test_a_key_or_value_that_the_config_does_not_take_is_found_before_anything_runs(plan, search, told):
    with pytest.raises(ConfigError) as caught:
        plan(search)
    assert told in str(caught.value)


def test_every_trial_is_checked_and_not_only_the_first(plan):
    with pytest.raises(ConfigError, match=r"optimizer\.lr"):
        plan("optimizer.lr=grid(0.1, 0.2, -1.0)")


def test_a_section_that_is_missing_is_found_before_anything_runs(plan, tmp_path):
    (tmp_path / "part.toml").write_text("[trainer]\nsteps = 1\n")
    with pytest.raises(ConfigError, match=r"data: missing"):
        plan_sweep(str(tmp_path / "part.toml"), (), ["trainer.steps=randint(1,9)"], trials=1)


def test_trials_of_an_earlier_sweep_are_not_mixed_with_new_ones(plan, tmp_path):
    (tmp_path / "sweep" / "trial-0000").mkdir(parents=True)
    with pytest.raises(InputError, match="holds trials already; choose another"):
        plan("optimizer.lr=uniform(0.1,1)")


def test_no_search_and_no_trials_are_refused(plan):
    with pytest.raises(InputError, match="nothing to search"):
        plan()
    with pytest.raises(InputError, match="--trials is 0, allowed is >= 1"):
        plan("optimizer.lr=uniform(0.1,1)", trials=0)


@pytest.mark.parametrize(("mode", "number"), [("min", 1), ("max", 2)])
def test_the_best_is_the_least_or_the_greatest_of_what_did_not_fail(plan, mode, number):
    made = plan("optimizer.lr=uniform(0.1,1)", mode=mode)
    trials = [trial(0, 0.2), trial(1, 0.1), trial(2, 0.3), trial(3, 0.0, "failed"), trial(4, 9.0, "failed")]
    assert best_of([*trials, trial(5, None)], made).number == number


def test_where_nothing_was_measured_the_errors_are_told(plan):
    with pytest.raises(
        HelixError, match="no trial came to a value of 'validation_loss'; errors: loss is nan"
    ):
        best_of([trial(0, None, "failed", "loss is nan")], plan("optimizer.lr=uniform(0.1,1)"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", "config.toml", "--workers", "0"], "--workers is 0, allowed is >= 1"),
        (["train", "config.toml", "--max-failures", "-2"], "--max-failures is -2, allowed is >= -1"),
        (["train", "config.toml", "--cpus-per-worker", "0"], "--cpus-per-worker is 0.0, allowed is > 0"),
        (["train", "config.toml", "optimizer.rl=1"], "optimizer.rl"),
        (["tune", "config.toml", "--search", "optimizer.lr=1"], "not of the form key=kind(…)"),
        (["tune", "config.toml", "--search", "optimizer.lr=uniform(0,1)", "--gpus-per-trial", "-1"], "gpus"),
    ],
)
def test_wrong_input_ends_with_2_before_ray_is_imported(folder, monkeypatch, capsys, arguments, told):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as ended:
        main(["ray", *arguments])
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_without_ray_the_command_says_how_to_install_it(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as ended:
        main(["ray", "train", "config.toml"])
    assert ended.value.code == 2
    assert "pip install 'ray[train,tune]>=2.60'" in capsys.readouterr().err
