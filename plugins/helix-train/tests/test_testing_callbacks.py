"""The suite of callbacks passes what is right, and catches each of these faults."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
import toy_patience

from helix_kernel import Kernel
from helix_kernel.plugins import Manifest
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.provider_cases import derive
from helix_train import plugin
from helix_train.callbacks.base import Callback, Verdict
from helix_train.callbacks.early_stopping import EarlyStopping
from helix_train.callbacks.ema import EMA
from helix_train.testing.callbacks import CallbackSuite
from helix_train.testing.rehearsal import STEPS, Fate, rehearse

OVER = "test_a_run_that_is_over_may_be_resumed"
RESUMED = "test_a_run_that_resumes_ends_as_one_that_never_stopped"
ROLLED_BACK = "test_a_run_that_rolled_back_resumes_as_one_that_never_stopped"
CHANGES = "test_one_that_asks_for_nothing_changes_nothing"


class Mean(Callback):
    """The mean loss, which each fault below breaks in one way."""

    name = "mean"

    def __init__(self):
        self.losses = []
        self.rollbacks = 0

    def judge(self, run, gradients):
        self.losses.append(gradients.loss)
        return Verdict.PROCEED

    def stepped(self, run):
        run.log({"mean": sum(self.losses) / len(self.losses), "rollbacks": self.rollbacks})

    def rolled_back(self, run):
        self.rollbacks += 1

    def state_dict(self):
        return {"losses": list(self.losses), "rollbacks": self.rollbacks}

    def load_state_dict(self, state):
        self.losses = list(state["losses"])
        self.rollbacks = max(self.rollbacks, state["rollbacks"])


class HasNoName(Mean):
    name = Callback.name


class IsNamedByItsNumber(Mean):
    made = 0

    def __init__(self):
        super().__init__()
        type(self).made += 1
        self.name = f"mean-{self.made}"


class WritesAtOnce(Mean):
    def __init__(self):
        super().__init__()
        Path("means.txt").touch()


class JudgesByNothing(Mean):
    def judge(self, run, gradients):
        super().judge(run, gradients)


class ExtendsNothing:
    name = "nothing"

    def begin(self, run):
        pass


class CannotGoBack(Mean):
    def rolled_back(self, run):
        raise RuntimeError("what was seen cannot be unseen")


class EndsWithItsLastStep(Mean):
    def begin(self, run):
        self.seen = []

    def stepped(self, run):
        self.seen.append(run.step)

    def end(self, run):
        self.last = self.seen[-1]


class CountsAValidationTwice(Mean):
    count = 0

    def validated(self, run, evaluation):
        self.count += 1

    def state_dict(self):
        return {**super().state_dict(), "count": self.count}

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.count = state["count"]


class ExpectsAState(Mean):
    def begin(self, run):
        if run.step:
            assert len(self.losses) == run.step, f"{len(self.losses)} losses of {run.step} steps"


class SharesItsLosses(Mean):
    shared: ClassVar = []

    def __init__(self):
        super().__init__()
        self.losses = self.shared


class RemembersTheLastLossOnly(Mean):
    def state_dict(self):
        return {**super().state_dict(), "losses": self.losses[-1:]}


class CountsStepsOfThisProcess(Mean):
    count = 0

    def stepped(self, run):
        self.count += 1

    def state_dict(self):
        return {**super().state_dict(), "count": self.count}


class ForgetsItsRollbacks(Mean):
    def state_dict(self):
        return {"losses": list(self.losses)}

    def load_state_dict(self, state):
        self.losses = list(state["losses"])


class KeepsASet(Mean):
    def state_dict(self):
        return {**super().state_dict(), "seen": {"kinds": {1, 2}}}


class AddsToWhatItHas(Mean):
    def load_state_dict(self, state):
        self.losses.extend(state["losses"])


class DrawsInSecret(Mean):
    def stepped(self, run):
        self.noise = torch.rand(3)


class PushesTheWeights(Mean):
    def stepped(self, run):
        with torch.no_grad():
            run.model.head.weight.mul_(0.99)


class LeavesGradients(Mean):
    def begin(self, run):
        run.try_loss()


class LeavesTheModelInEvaluation(Mean):
    def validated(self, run, evaluation):
        run.model.eval()


class AveragesUnderOtherNames(EMA):
    def averaged(self):
        return {f"model.{name}": weight for name, weight in super().averaged().items()}


class AveragesTheLastRow(EMA):
    def averaged(self):
        return {name: weight[-1:] for name, weight in super().averaged().items()}


class AveragesNothing(EMA):
    model = torch.nn.Module()

    def begin(self, run):
        self.model = run.model

    def stepped(self, run):
        pass

    def averaged(self):
        return self.model.state_dict()


class ForgetsHowLongItWaited(EarlyStopping):
    def __init__(self):
        super().__init__(min_delta=10.0)

    def state_dict(self):
        return {**super().state_dict(), "waited": 0}


FAULTS = [
    (HasNoName, "test_it_has_a_name_of_its_own", "name is 'callback', that of the base class"),
    (IsNamedByItsNumber, "test_it_has_a_name_of_its_own", "two of them have the names"),
    (WritesAtOnce, "test_nothing_is_written_before_the_run_begins", r"makes \['means.txt'\]"),
    (JudgesByNothing, "test_it_lives_through_a_run", r"judge\(\) after 0 steps gives None; allowed is a Ver"),
    (ExtendsNothing, "test_it_lives_through_a_run", r"ExtendsNothing has no \w+\(\); extend .*base.Callback"),
    (CannotGoBack, "test_it_lives_through_a_run", r"rolled_back\(\) after 4 steps: RuntimeError: what was"),
    (EndsWithItsLastStep, OVER, r"end\(\) after 7 steps: IndexError"),
    (CountsAValidationTwice, OVER, r"is over and resumed changes count \(7 and 8\) of state_dict"),
    (ExpectsAState, "test_it_may_join_a_run_that_has_begun", r"begin\(\) after 2 steps: .*0 losses of 2"),
    (SharesItsLosses, "test_a_new_one_knows_nothing_of_earlier_runs", "callbacks.mean.losses .*before it"),
    (RemembersTheLastLossOnly, RESUMED, "values in metrics.jsonl after being killed in step 4"),
    (CountsStepsOfThisProcess, RESUMED, r"another callbacks.mean.count \(7 and 5\) after being killed"),
    (ForgetsItsRollbacks, ROLLED_BACK, "where both rolled back in step 5"),
    (KeepsASet, "test_it_lives_through_a_run", r"\"state_dict\(\)\['seen'\]\['kinds'\]\": 'set'"),
    (AddsToWhatItHas, "test_its_state_is_put_back_whole", "leaves one that has it already with"),
    (DrawsInSecret, CHANGES, "another loss of step 2, .*, though it asked for nothing"),
    (PushesTheWeights, CHANGES, "another loss of step 2"),
    (LeavesGradients, CHANGES, "another loss of step 1"),
    (LeavesTheModelInEvaluation, CHANGES, "another loss of step 2"),
    (
        AveragesUnderOtherNames,
        "test_its_average_fits_the_model",
        r"averaged\(\) has 'model\.\w+.*', which is no weight",
    ),
    (
        AveragesTheLastRow,
        "test_its_average_fits_the_model",
        r"\['mean'\] has shape \(1,\), the weight \(4,\)",
    ),
    (
        AveragesNothing,
        "test_its_average_fits_the_model",
        r"averaged\(\)\['\w+[.\w]*'\] is the model's own mem",
    ),
    (ForgetsHowLongItWaited, RESUMED, "after being killed in step 4"),
]


@pytest.mark.parametrize(
    ("fault", "case", "says"), FAULTS, ids=[f"{row[0].__name__}-{row[1][5:]}" for row in FAULTS]
)
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    right = next((known for known in (EMA, EarlyStopping) if issubclass(fault, known)), Mean)
    caught_by(of(fault), case, says, right=of(right), tmp_path=tmp_path)


def test_an_option_that_a_file_cannot_hold_is_found(tmp_path):
    manifests = [
        Manifest(name="train", provider="helix-train", version="1.0", module=plugin),
        Manifest(name="toy", provider="toy", version="1.0", module=toy_patience),
    ]
    found = derive(Kernel(found=[], manifests=manifests), "toy")
    case, says = "test_a_frozen_config_has_the_same_options", r"{'patience': None} .* as {'patience': 3}"
    right, wrong = found["callback-patient.1"], found["callback-patient.2"]
    caught_by(wrong, case, says, right=right, tmp_path=tmp_path)


def of(callback):
    return type("Suite", (CallbackSuite,), {"make_callback": lambda self: callback()})


def test_a_run_of_the_suite_is_killed_where_its_fate_says_and_goes_on(tmp_path):
    broken = rehearse(tmp_path, Fate(kills_in=4))
    assert (broken.is_over, broken.step) == (False, 3)
    resumed = rehearse(tmp_path, Fate(), resume=True)
    assert (resumed.start.step, resumed.is_over, resumed.step) == (2, True, STEPS)
    assert list(resumed.losses()) == list(range(1, STEPS + 1))


def test_a_run_of_the_suite_goes_back_once(tmp_path):
    run = rehearse(tmp_path, Fate(rolls_back_in=5))
    events = (tmp_path / "events.jsonl").read_text().splitlines()
    assert (len(events), "rolled-back" in events[0], run.step) == (1, True, STEPS)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("ema.1", []),
        ("spike-guard.2", [(5, "Verdict.SKIP")]),
        ("early-stopping.2", [(4, "stop()")]),
        ("lr-finder.2", [(0, "set_base_rate()")]),
    ],
)
def test_in_the_runs_of_the_suite_ours_ask_for_what_they_are_there_for(tmp_path, name, asked):
    suite = derive(Kernel(plugins=["helix-train"]), "helix-train")[f"callback-{name}"]
    assert rehearse(tmp_path / "run", suite().make_callback()).asked == asked
