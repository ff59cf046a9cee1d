"""The `helix` command: the same answers on both paths, one style of error, honest exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib

import pytest
from helix_toy.make import install

import helix_kernel
from helix_kernel import load_config
from helix_kernel.cli import app, direct, main
from helix_kernel.diagnosis import mending

LAYER = """
import helix_kernel
from helix_kernel import Component

@helix_kernel.hookimpl
def helix_layers():
    return [Component(name="shared", target="helix_toy.parts:scale", summary="a convolution")]
"""
COMMAND = """
import helix_kernel
from helix_kernel import Component

@helix_kernel.hookimpl
def helix_commands():
    return [Component(name={name!r}, target="hello_commands:hello", summary="Greet", aliases=("hi",))]
"""
HELLO = '''
def hello(who: str, *, json: bool = False) -> int:
    """Greet someone.

    Args:
        who: The name.
        json: Print JSON.
    """
    print(f"hello {who}")
    return 3
'''


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the path, whose modules are forgotten afterwards."""
    root = tmp_path / "site"
    root.mkdir()
    monkeypatch.syspath_prepend(str(root))
    before = set(sys.modules)
    yield root
    for name in set(sys.modules) - before:
        if str(root) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def two_providers(site):
    for name in ("acme", "zeta"):
        install(site, name, f"{name} = {name}_manifest", **{f"{name}_manifest": LAYER})


FIVE_MISTAKES = """
[model]
use = "langauge-model"
[data]
use = "text-bytes"
source = "python-docs"
seq_length = 256
batch_size = "16"
[optimizer]
use = "adamw"
lr = -1.0
[schedul]
use = "cosine"
"""


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["show", "layer", "mamab"], "no layer is called 'mamab'. Did you mean 'mamba'?"),
            (["show", "layr", "mamba"], "no kind is called 'layr'. Did you mean 'layer'?"),
            (["components", "layr"], "no kind is called 'layr'. Did you mean 'layer'?"),
            (["config", "check", "gone.toml"], "config file 'gone.toml': No such file or directory"),
            (["config", "resolve", "gone.toml"], "config file 'gone.toml': No such file or directory"),
            (["config", "schema", "gone.toml"], "config file 'gone.toml': No such file or directory"),
            (["trian"], "no command is called 'trian'. Did you mean 'train'?"),
            (["componets"], "Did you mean 'components'?"),
            (["config", "chek", "x"], "Did you mean"),
            (["show", "layer"], "requires an argument"),
            (["show", "layer", "mamba", "again"], "again"),
            (["components", "--jsn"], "Unknown option"),
        ],
    )
    def test_wrong_input_ends_with_2_and_one_error_on_stderr(self, helix, arguments, says):
        code, out, err = helix(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert says in err
        assert "Traceback" not in err

    def test_a_component_that_is_not_installed_names_what_to_install(self, helix, example, monkeypatch):
        monkeypatch.setenv("HELIX_PLUGINS", "train,data")
        code, _, err = helix("config", "check", example)
        assert code == 2
        assert "model.use: no layer is called 'language-model'" in err
        assert f"It comes with helix-ssm: {mending.install('helix-ssm')}" in err

    def test_so_does_a_command_that_is_not_installed(self, helix, example, monkeypatch):
        monkeypatch.setenv("HELIX_PLUGINS_DISABLED", "helix-train")
        code, _, err = helix("train", example)
        assert code == 2
        assert f"It comes with helix-train: {mending.install('helix-train')}" in err

    def test_two_providers_of_one_name_are_both_named(self, helix, two_providers):
        code, _, err = helix("show", "layer", "shared")
        assert code == 2
        assert "Write 'acme:shared' or 'zeta:shared', or set kernel.prefer = ['acme']" in err

    def test_a_config_settles_two_providers(self, helix, two_providers, write):
        text = '[kernel]\nprefer = ["zeta"]\n[model]\nuse = "shared"\nfactor = 1.0'
        assert helix("config", "check", write(text))[:2] == (0, f"{write(text)}: ok (model = zeta:shared)\n")

    def test_a_component_of_a_broken_plugin_is_explained_by_the_plugin(self, helix, site):
        install(site, "acme", "acme = acme_broken", acme_broken="import no_such_module")
        code, _, err = helix("show", "layer", "acme:shared")
        assert code == 2
        assert "plugin 'acme' of acme 1.0 (acme_broken) failed: ModuleNotFoundError" in err

    def test_helix_plugins_shows_what_is_broken_and_serves_the_rest(self, helix, site):
        install(site, "acme", "acme = acme_broken", acme_broken="import no_such_module")
        code, out, err = helix("plugins")
        assert code == 0
        assert "helix-ssm" in out
        assert "failed: 'acme' of acme 1.0 (acme_broken): ModuleNotFoundError" in err
        assert "Traceback" in json.loads(helix("plugins", "--json")[1])["failures"][0]["traceback"]

    def test_five_mistakes_are_five_lines_with_paths_and_suggestions(self, helix, write):
        code, _, err = helix("config", "check", write(FIVE_MISTAKES))
        assert code == 2
        head, *lines = err.strip().splitlines()
        assert head.endswith("config.toml: 5 problems")
        assert [line.split(":")[0].strip() for line in sorted(lines)] == [
            "data.batch_size",
            "data.seq_length",
            "model.use",
            "optimizer.lr",
            "schedul",
        ]
        for hint in ("'language-model'", "'seq_len'", "allowed is an integer", "'schedule'"):
            assert hint in err

    def test_the_same_as_json(self, helix, write):
        code, out, _ = helix("config", "check", write(FIVE_MISTAKES), "--json")
        report = json.loads(out)
        assert (code, report["ok"], len(report["problems"])) == (2, False, 5)
        assert all(problem["path"] and problem["message"] for problem in report["problems"])

    def test_reporting_them_imports_no_torch(self, write):
        code = (
            "import sys; from helix_kernel.cli import main\n"
            f"try: main(['config', 'check', {str(write(FIVE_MISTAKES))!r}])\n"
            "except SystemExit as end: print(end.code)\n"
            "print([m for m in ('torch', 'numpy', 'zarr', 'cyclopts', 'rich') if m in sys.modules])"
        )
        finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert finished.stdout.split() == ["2", "[]"]

    def test_a_failure_of_the_work_ends_with_1(self, helix, monkeypatch):
        monkeypatch.setattr(direct, "_call", fail)
        assert helix("plugins") == (1, "", "error: RuntimeError: a bug\n  (--debug shows the traceback)\n")

    def test_debug_shows_the_traceback(self, monkeypatch):
        monkeypatch.setattr(direct, "_call", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            main(["plugins", "--debug"])

    @pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 0)])
    def test_the_user_may_leave(self, helix, monkeypatch, error, code):
        monkeypatch.setattr(direct, "_call", lambda *_: (_ for _ in ()).throw(error))
        monkeypatch.setattr(sys.stderr, "close", lambda: None)
        assert helix("plugins")[0] == code

    def test_notes_of_an_error_are_shown(self, helix, monkeypatch):
        def noted(*_):
            error = helix_kernel.errors.ArgumentError("wrong")
            error.add_note("while building layer x")
            raise error

        monkeypatch.setattr(direct, "_call", noted)
        assert helix("plugins") == (2, "", "error: wrong\n  while building layer x\n")


def fail(*_):
    raise RuntimeError("a bug")


class TestAnswers:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["plugins"],
            ["components"],
            ["components", "layer"],
            ["components", "memory-tiers"],
            ["show", "layer", "mamba"],
            ["show", "loss", "helix-train:cross-entropy"],
            ["show", "command", "train"],
            ["config", "check", "EXAMPLE"],
            ["config", "resolve", "EXAMPLE", "model.d_model=8"],
            ["config", "schema"],
            ["config", "schema", "EXAMPLE"],
        ],
    )
    def test_both_paths_give_the_same_and_json_can_be_read(self, helix, capsys, example, arguments):
        words = [str(example) if word == "EXAMPLE" else word for word in arguments]
        for options in ([], ["--json"]):
            assert direct.run([*words, *options]) == 0
            short = capsys.readouterr()
            assert app.run([*words, *options]) == 0
            assert capsys.readouterr() == short
            assert helix(*words, *options)[:2] == (0, short.out)
        assert isinstance(json.loads(short.out), dict)

    def test_components_lists_what_is_installed(self, helix):
        _, out, _ = helix("components", "layer", "--json")
        found = {c["name"]: c["provider"] for c in json.loads(out)["components"]}
        assert found["mamba"] == found["hyena"] == "helix-ssm"
        _, out, _ = helix("components", "layer")
        assert "mamba" in out
        assert "cross-entropy" not in out

    def test_show_tells_options_ranges_defaults_and_help(self, helix):
        _, out, _ = helix("show", "layer", "mamba", "--json")
        options = {option["option"]: option for option in json.loads(out)["options"]}
        assert options["d_state"]["allowed"] == "an integer >= 1"
        assert options["d_state"]["default"] == "16"
        assert options["d_model"]["default"] == "required"
        _, out, _ = helix("show", "layer", "mamba")
        assert "States for each inner channel" in out

    def test_resolve_prints_what_loads_as_the_same_config(self, helix, example, write):
        _, out, _ = helix("config", "resolve", example, "model.d_model=8")
        assert load_config(write(out)) == load_config(example, ["model.d_model=8"])
        _, as_json, _ = helix("config", "resolve", example, "model.d_model=8", "--json")
        assert json.loads(as_json) == tomllib.loads(out)

    def test_with_nothing_installed_it_says_where_to_begin(self, helix, monkeypatch):
        monkeypatch.setenv("HELIX_PLUGINS", "")
        assert "pip install helix-ssm" in helix("plugins")[1]
        assert helix("components")[1] == "No component is installed.\n"
        assert helix("components", "layer")[1] == "No layer is installed.\n"


class TestHelp:
    @pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
    def test_help_lists_the_kernels_commands_and_those_of_plugins(self, helix, arguments):
        code, out, _ = helix(*arguments)
        assert code == 0
        for name in (*{words[0] for words in direct.COMMANDS}, "train", "eval", "generate"):
            assert f"\n  {name} " in out

    def test_version(self, helix):
        assert helix("--version")[:2] == (0, f"helix {helix_kernel.__version__}\n")

    @pytest.mark.parametrize("words", [*direct.COMMANDS, ("config",), ("train",)])
    def test_every_command_has_help(self, helix, words):
        code, out, _ = helix(*words, "--help")
        assert code == 0
        assert f"helix {' '.join(words)}" in out

    def test_help_imports_no_plugin_and_no_library(self):
        code = (
            "import sys; from helix_kernel.cli import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = ('torch', 'numpy', 'attrs', 'pluggy', 'cyclopts', 'rich', 'typing', 'helix_ssm')\n"
            "print([m for m in heavy if m in sys.modules])"
        )
        run = [sys.executable, "-c", code]
        subprocess.run(run, capture_output=True, check=True)
        finished = subprocess.run(run, capture_output=True, text=True, check=True)
        assert finished.stdout.splitlines()[-1] == "[]"

    def test_it_can_be_run_as_a_module(self):
        run = [sys.executable, "-m", "helix_kernel.cli", "--version"]
        finished = subprocess.run(run, capture_output=True, text=True, check=True)
        assert finished.stdout == f"helix {helix_kernel.__version__}\n"


class TestCommandsOfPlugins:
    def offer(self, site, *providers, name="hello"):
        for provider in providers:
            source = COMMAND.format(name=name)
            install(site, provider, f"{provider} = {provider}_hello", **{f"{provider}_hello": source})
        (site / "hello_commands.py").write_text(HELLO)

    @pytest.mark.parametrize("name", ["hello", "hi", "acme:hello"])
    def test_one_is_called_by_name_alias_and_provider(self, helix, site, name):
        self.offer(site, "acme")
        assert helix(name, "world") == (3, "hello world\n", "")

    def test_it_is_imported_only_when_it_is_called(self, helix, site):
        self.offer(site, "acme")
        assert "hello" in helix("--help")[1]
        assert "hello_commands" not in sys.modules

    def test_two_of_one_name_are_never_settled_silently(self, helix, site):
        self.offer(site, "acme", "zeta")
        code, _, err = helix("hello", "world")
        assert code == 2
        assert "several plugins bring the command 'hello': call acme:hello or zeta:hello" in err
        assert helix("zeta:hello", "world")[0] == 3

    def test_the_kernels_own_commands_cannot_be_taken(self, helix, site):
        self.offer(site, "acme", name="show")
        assert helix("show", "layer", "mamba")[0] == 0
        assert helix("acme:show", "world")[0] == 3


@pytest.mark.parametrize(
    ("function", "count", "takes"),
    [
        (lambda: None, 0, True),
        (lambda: None, 1, False),
        (lambda a: None, 0, False),
        (lambda a: None, 1, True),
        (lambda a=1, *, json=False: None, 0, True),
        (lambda a=1, *, json=False: None, 2, False),
        (lambda a, *b: None, 0, False),
        (lambda a, *b: None, 5, True),
    ],
)
def test_the_short_path_takes_only_calls_that_fit(function, count, takes):
    assert direct._takes(function, count) is takes


def test_a_terminal_gets_a_table_drawn_by_rich(monkeypatch, capsys):
    from helix_kernel.cli.output import print_table

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_table(("name", "summary"), [("[bold]", "kept as it is")], title="things")
    out = capsys.readouterr().out
    assert "─" in out
    assert "[bold]" in out
