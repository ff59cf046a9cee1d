"""The report of a run: one safe file with everything in it, of any run, long or damaged ones too."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from types import SimpleNamespace

import pytest

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.errors import DataError, InputError
from helix_train.report import render, write_report
from helix_train.run_file import RunFile

HOSTILE = "<img src=x onerror=alert(1)>&amp;\"'</pre></script><script>alert(1)</script>\x00\x1b[31m\udcff"
CONFIG = {
    "model": {"use": "toy-lm:toy", "mixer": {"use": "toy-lm:mix"}},
    "trainer": {"use": "helix-train:trainer", "steps": 40},
}
TOML = '[model]\nuse = "toy-lm:toy"\n\n[model.mixer]\nuse = "toy-lm:mix"\n\n[trainer]\nsteps = 40\n'
PROVENANCE = {
    "config": CONFIG,
    "components": {"layer/toy-lm:toy": "1.0", "layer/toy-lm:mix": "1.0"},
    "ops": {"requested": ["auto"], "chosen": {"fast": ["scan", "scan_backward"], "slow": ["scan", "conv"]}},
    "data_fingerprint": "f00d",
    "environment": {"python": "3.11", "torch": "2.6", "device": "cpu"},
}


class Page(HTMLParser):
    """What a browser would make of a page: its tags with their attributes, and its texts."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self._open = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return "\n".join(self.texts)

    def named(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write_lines(path, records):
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def training(n_steps, *, first=1):
    return [
        {
            "step": step,
            "loss": 0.7 + 4 / step,
            "bits_per_byte": 1 + 6 / step,
            "grad_norm": 1 + 1 / step,
            "lr": 0.01,
        }
        for step in range(first, n_steps + 1)
    ]


def times(n_steps):
    return [
        {"step": step, "seconds": 0.5, "tokens_per_second": 800.0, "data_wait": 0.02, "mfu": 0.4}
        for step in range(1, n_steps + 1)
    ]


@pytest.fixture
def run(tmp_path):
    """A run of 40 steps that has ended, without its run file."""
    out = tmp_path / "nice-run"
    out.mkdir()
    (out / "config.toml").write_text(TOML)
    held_out = [{"step": step, "validation_loss": 1.0, "validation_bits_per_byte": 1.44} for step in (20, 40)]
    write_lines(out / "metrics.jsonl", sorted([*training(40), *held_out], key=lambda record: record["step"]))
    write_lines(out / "timing.jsonl", times(40))
    with CheckpointManager(out / "checkpoints") as manager:
        for step in (20, 40):
            attributes = {
                **PROVENANCE,
                "step": step,
                "metrics": {"loss": 40 / step},
                "wall_time": 31.0,
                "saved_at": "2026-01-02T03:04:05+00:00",
            }
            manager.save(step, {"step": step}, attributes=attributes)
    return out


def ended(out, *, status="done", step=40, loss=1.25, **more):
    file = RunFile.begin(
        out,
        step=0,
        steps=40,
        provenance=PROVENANCE,
        n_parameters=1_234_567,
        flops_per_step=2e12,
        tokens_per_step=400,
    )
    evaluation = SimpleNamespace(loss=loss, bits_per_byte=1.875, accuracy=None)
    file.end(status, step=step, evaluation=evaluation, **more)
    return file


class TestWhatItSays:
    def test_the_file_lies_in_the_runs_directory(self, run):
        assert write_report(run) == run / "report.html"
        assert (run / "report.html").read_text() == render(run)
        assert not list(run.glob("*.tmp"))

    def test_the_headline_has_the_numbers_of_the_run(self, run):
        ended(run)
        text = Page(render(run)).text
        tiles = dict(re.findall(r"<dt>([^<]+)</dt><dd>([^<]+)</dd>", render(run)))
        assert "nice-run" in text
        assert tiles["Bits per byte"] == "1.875"
        assert tiles["Loss"] == "1.25"
        assert tiles["Steps"] == "40"
        assert tiles["Tokens"] == "16 k"
        assert tiles["Speed"] == "800 tok/s"
        assert tiles["Parameters"] == "1.23 M"
        assert tiles["Work"] == "80 TFLOP"
        # 1 + 6 / step is within 0.1 of its end, 1.15, from step 24 on: 16 steps are left.
        assert tiles["Time of last 0.1 bits"] == "8 s"
        assert tiles["Work of last 0.1 bits"] == "32 TFLOP"

    def test_every_part_has_its_section(self, run):
        ended(run, samples=["Once upon a time"])
        page = Page(render(run))
        titles = [
            "curves",
            "cost-of-loss",
            "samples",
            "checkpoints",
            "components",
            "ops",
            "config",
            "environment",
        ]
        assert [section["id"] for section in page.named("section")] == titles
        assert {"Once upon a time", "step-00000020", "f00d", "[model.mixer]", "model.mixer"} <= set(
            page.texts
        )

    def test_there_is_a_curve_for_each_thing_measured(self, run):
        figures = [plot["aria-label"] for plot in Page(render(run)).named("svg") if plot["class"] == "plot"]
        assert [label.partition(" over steps")[0] for label in figures] == [
            "Loss (bits per byte)",
            "Learning rate",
            "Gradient norm (before clipping)",
            "Speed (tokens/s)",
            "Wait for data (of the time)",
            "FLOP/s used (of the peak)",
        ]
        assert "training goes from 7 at step 1 to 1.15 at step 40; held out goes from 1.44" in figures[0]

    def test_measurements_of_the_model_have_curves_of_their_own(self, run):
        records = [{**record, "model.codebook_use": 0.5} for record in training(5)]
        write_lines(run / "metrics.jsonl", records)
        assert "model.codebook_use" in Page(render(run)).texts

    def test_of_many_measurements_the_rest_are_named(self, run):
        more = {f"m{number:02d}": 1.0 for number in range(30)}
        write_lines(run / "metrics.jsonl", [{**record, **more} for record in training(3)])
        text = Page(render(run)).text
        assert "6 more measurements are not drawn: m24, m25, m26, m27, m28, m29" in text

    def test_an_op_is_served_by_backends_in_their_order(self, run):
        rows = re.findall(r"<th scope=\"row\">(\w+)</th><td>([^<]*)</td><td>([^<]*)</td></tr>", render(run))
        assert ("scan", "fast, then slow", "fast") in rows
        assert ("conv", "slow", "-") in rows
        assert "scan_backward" not in [row[0] for row in rows]

    def test_what_happened_is_told_by_step_and_marked(self, run):
        events = [{"step": 9, "event": "skip", "text": "a spike: the batch is skipped", "time": "t"}]
        write_lines(run / "events.jsonl", events)
        RunFile.begin(run, step=7, steps=40, provenance=PROVENANCE).end("done", step=40)
        html = render(run)
        assert html.index("step 7<") < html.index("step 9<")
        assert "<title>step 9: a spike: the batch is skipped</title>" in html
        assert "<title>step 7: went on</title>" in html

    def test_a_failure_is_said(self, run):
        ended(run, status="failed", error="loss is nan after 12 steps")
        assert "loss is nan after 12 steps" in Page(render(run)).texts

    def test_a_run_that_goes_on_can_be_looked_at(self, run):
        RunFile.begin(run, step=0, steps=40, provenance=PROVENANCE)
        assert "running" in Page(render(run)).texts


class TestRunsOfAllSorts:
    def test_one_without_a_run_file_is_told_from_its_other_files(self, run):
        text = Page(render(run)).text
        assert {"done", "31 s", "2.6", "f00d"} <= set(Page(render(run)).texts)
        assert "400 a step" in text
        assert "1.44" in text

    def test_one_of_which_only_the_config_is_left_says_what_it_can(self, tmp_path):
        (tmp_path / "config.toml").write_text(TOML)
        (tmp_path / "metrics.jsonl").write_text("")
        page = Page(render(tmp_path))
        assert "unknown" in page.texts
        assert page.named("figure") == []

    def test_one_of_a_single_step_has_a_dot(self, run):
        write_lines(run / "metrics.jsonl", training(1))
        assert any(circle["cx"] == "50.00%" for circle in Page(render(run)).named("circle"))

    def test_damage_in_the_metrics_is_a_note_beside_the_rest(self, run):
        (run / "metrics.jsonl").write_text("nonsense\n")
        text = Page(render(run)).text
        assert "metrics.jsonl, line 1: not a JSON object with a step" in text
        assert "Speed" in text

    def test_a_damaged_checkpoint_is_named(self, run):
        (run / "checkpoints/step-00000040" / MANIFEST).write_text("{")
        row = re.search(r"step-00000040</th><td>([^<]+)</td>", render(run))
        assert "step-00000040" in row[1]

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
    def test_what_cannot_be_drawn_is_counted(self, run, value):
        records = training(20)
        records[3]["bits_per_byte"] = value
        write_lines(run / "metrics.jsonl", records)
        page = Page(render(run))
        assert "1 values of bits_per_byte are not finite, and are not drawn" in page.text
        paths = " ".join(path["d"] for path in page.named("path"))
        assert "nan" not in paths
        assert "inf" not in paths

    def test_records_of_other_shapes_do_no_harm(self, run):
        odd = [{"step": 1, "loss": "low", "lr": None, "grad_norm": [1], "flag": True}, {"step": 2, "loss": 1}]
        write_lines(run / "metrics.jsonl", odd)
        assert Page(render(run)).named("figure")

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"has no config\.toml .+ name the directory of a run"):
            write_report(tmp_path)
        with pytest.raises(InputError, match="does not exist"):
            write_report(tmp_path / "nothing")

    def test_a_run_file_of_another_program_is_an_error(self, run):
        (run / "run.json").write_text("{}")
        with pytest.raises(DataError, match=r"run\.json does not describe a run"):
            write_report(run)


class TestSafety:
    @pytest.fixture
    def hostile(self, run):
        """A run that has hostile text wherever text can be."""
        (run / "config.toml").write_text(TOML + f"# {HOSTILE}\n", errors="replace")
        records = [{**record, HOSTILE: 1.0} for record in training(5)]
        write_lines(run / "metrics.jsonl", records)
        write_lines(run / "events.jsonl", [{"step": 2, "event": HOSTILE, "text": HOSTILE, "time": HOSTILE}])
        provenance = {
            "config": {HOSTILE: {"use": HOSTILE}},
            "components": {HOSTILE: HOSTILE},
            "ops": {"chosen": {HOSTILE: [HOSTILE]}},
            "data_fingerprint": HOSTILE,
            "environment": {HOSTILE: HOSTILE, "device": HOSTILE, "torch": HOSTILE},
        }
        file = RunFile.begin(run, step=0, steps=9, provenance=provenance)
        file.end("failed", samples=[HOSTILE], error=HOSTILE, checkpoint=HOSTILE)
        hostile = run.with_name("a<b>&'\"")
        return run.rename(hostile)

    def test_no_text_becomes_markup(self, hostile):
        page = Page(render(hostile))
        assert page.named("img") == []
        kinds = [attributes.get("type") for attributes in page.named("script")]
        assert kinds == ["application/json"] * (len(kinds) - 1) + [None]
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert "a<b>&'\"" in page.text

    def test_hostile_text_is_shown_as_it_is(self, hostile):
        shown = HOSTILE.translate({0: "\ufffd", 0x1B: "\ufffd", 0xDCFF: "\ufffd"})
        assert Page(render(hostile)).texts.count(shown) > 8

    def test_the_file_can_be_written(self, hostile):
        assert write_report(hostile).read_bytes().decode("utf-8")

    def test_nothing_is_fetched(self, run):
        ended(run)
        html = render(run)
        page = Page(html)
        assert not re.search(r"https?:|//|@import|url\(", re.sub(r"(?m)^ *// .*$", "", html))
        assert not {"link", "img", "iframe", "object", "base", "form"} & {tag for tag, _ in page.tags}
        assert not [1 for _, attributes in page.tags if {"src", "href", "style"} & attributes.keys()]

    def test_only_our_script_and_style_may_run(self, run):
        html = render(run)
        (policy,) = [meta["content"] for meta in Page(html).named("meta") if "http-equiv" in meta]
        style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
        script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
        digests = [
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in (style, script)
        ]
        expected = f"default-src 'none'; style-src {digests[0]}; script-src {digests[1]}"
        assert policy == expected


class TestAccess:
    def test_the_page_has_a_title_a_language_and_headings_in_order(self, run):
        ended(run)
        page = Page(render(run))
        assert page.named("html") == [{"lang": "en"}]
        assert "nice-run - Helix run" in page.texts
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))

    def test_every_plot_has_words_for_it_and_can_be_reached_by_keys(self, run):
        plots = [plot for plot in Page(render(run)).named("svg") if plot["class"] == "plot"]
        assert plots
        assert all(plot["role"] == "img" and plot["tabindex"] == "0" and plot["aria-label"] for plot in plots)

    def test_every_heading_of_a_table_says_what_it_heads(self, run):
        assert {attributes.get("scope") for attributes in Page(render(run)).named("th")} == {"col", "row"}


def test_a_long_run_makes_a_small_report_in_little_time(run):
    n_steps, spike = 100_000, 61_235
    losses = {step: 2 + math.sin(step * step) for step in range(1, n_steps + 1)} | {spike: 17.5}
    shape = '{"step": %d, "loss": %f, "bits_per_byte": %f, "grad_norm": 1.5, "lr": 0.01}\n'
    lines = [shape % (step, loss, loss) for step, loss in losses.items()]
    (run / "metrics.jsonl").write_text("".join(lines))
    shape = '{"step": %d, "seconds": 0.5, "tokens_per_second": 800.0, "data_wait": 0.02}\n'
    (run / "timing.jsonl").write_text("".join(shape % step for step in losses))
    ended(run)
    began = time.process_time()
    html = render(run)
    assert time.process_time() - began < 20  # even of a machine that is busy
    assert len(html) < 1_000_000
    assert f'[{spike},"17.5"]' in html  # a spike of one step is seen
