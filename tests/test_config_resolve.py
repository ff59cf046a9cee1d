"""A config becomes resolved components: defaults filled in, every mistake reported, frozen and reloaded."""

from __future__ import annotations

import sys
import tomllib

import attrs
import pytest
import tomli_w
from helix_toy.config import Window
from helix_toy.make import component, manifest, toy_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.config import Config, KernelSettings, load_config, read_settings, resolve_document
from helix_kernel.config.resolve import Resolved
from helix_kernel.errors import ConfigError, InputError

KERNEL = toy_kernel()


def resolve(table, **options):
    return KERNEL.resolver.resolve("layer", table, **options)


def problems(call, *arguments, **options):
    with pytest.raises(ConfigError) as error:
        call(*arguments, **options)
    return {problem.path: problem.message for problem in error.value.problems}


class TestDefaults:
    def test_every_option_is_filled_in(self):
        block = resolve({"use": "block", "d_model": 4})
        assert block.arguments["d_state"] == 16
        assert block.arguments["window"] == Window()
        assert set(block.arguments) == set(attrs.fields_dict(type_of("BlockConfig")))

    def test_a_name_alone_is_a_table_of_defaults(self):
        assert resolve("stack") == resolve({"use": "stack"}) == resolve("helix-toy:stack")

    def test_a_nested_default_is_resolved_as_if_it_were_written(self):
        assert resolve("stack").arguments["block"].arguments["d_state"] == 4
        written = {"use": "stack", "block": {"use": "block", "d_state": 4}}
        assert resolve("stack") == resolve(written)

    def test_a_nested_table_without_use_changes_the_default(self):
        block = resolve({"use": "stack", "block": {"rate": 0.5}}).arguments["block"]
        assert (block.component.name, block.arguments["d_state"], block.arguments["rate"]) == (
            "block",
            4,
            0.5,
        )

    def test_a_nested_table_without_use_where_there_is_no_default_is_a_mistake(self):
        assert "missing" in problems(resolve, {"use": "stack", "head": {"rate": 0.5}})["head.use"]

    def test_defaults_are_nobodys_to_change(self):
        resolve({"use": "block", "d_model": 1}).arguments["sizes"].append(99)
        assert resolve({"use": "block", "d_model": 1}).arguments["sizes"] == [1, 2]
        resolve("loose").arguments["table"]["inner"].append(99)
        assert resolve("loose").arguments["table"] == {"inner": []}

    def test_what_a_parent_supplies_is_left_out(self):
        block = resolve("stack").arguments["block"]
        assert "d_model" not in block.arguments
        assert block.supplied == ("d_model",)

    def test_what_is_resolved_already_is_taken_as_it_is(self):
        block = resolve({"use": "block", "d_model": 4})
        assert resolve(block) is block


class TestProblems:
    @pytest.mark.parametrize(
        ("table", "path", "says"),
        [
            ({"use": "block"}, "d_model", "missing; helix-toy:block requires an integer: width"),
            ({"use": "block", "d_model": 0}, "d_model", "given 0, allowed is >= 1"),
            ({"use": "block", "d_model": 1, "rate": 1}, "rate", "given 1.0, allowed is > 0 and < 1"),
            ({"use": "block", "d_model": 1, "rate": float("nan")}, "rate", "given nan, allowed is"),
            ({"use": "block", "d_model": 1, "sizes": [1, 0]}, "sizes", "given [1, 0], allowed is >= 1"),
            ({"use": "block", "d_model": 1, "maximum": 0}, "maximum", "given 0, allowed is >= 1"),
            (
                {"use": "block", "d_model": 1, "d_sate": 2},
                "d_sate",
                "unknown option. Did you mean 'd_state'?",
            ),
            ({"use": "block", "d_model": 1, "window": {"size": 0}}, "window", "size is 0, allowed is >= 1"),
            ({"use": "stack", "block": {"use": "blocc"}}, "block.use", "Did you mean 'block'?"),
            ({"use": "stack", "head": {}}, "head.use", "missing; it names the layer. Installed: absent"),
            ({"use": "stack", "block": {"use": 3}}, "block.use", "given 3 (an integer)"),
            ({"use": "stack", "block": 3}, "block", "allowed is a table with a layer in `use`"),
            ({"use": "stack", "block": "range"}, "block.use", "no layer is called 'range'"),
            ({"use": "stack", "block": {"use": "block", "d_model": 8}}, "block.d_model", "leave it out"),
            ({"use": "stack", "block": "scale"}, "block.factor", "missing"),
            ({"use": "stack", "head": "block"}, "head.d_model", "missing"),
            ({"use": "stack", "extras": ["block", "blocc"]}, "extras[1].use", "Did you mean 'block'?"),
            ({"use": "absent"}, "use", "'no_such_package.module:Thing' cannot be imported"),
            ({"use": "scale", "factor": "a"}, "factor", "given 'a' (text), allowed is a number"),
            ({"use": "scale", "factor": 1, "tags": [1]}, "tags[0]", "given 1 (an integer), allowed is text"),
            ({}, "use", "missing; it names the layer"),
        ],
    )
    def test_each_has_its_path_and_says_what_is_allowed(self, table, path, says):
        found = problems(resolve, table, path="model")
        assert says in found[f"model.{path}"]

    def test_a_component_that_does_not_take_what_it_would_be_given_cannot_stand_there(self):
        found = problems(resolve, {"use": "stack", "block": {"use": "scale", "factor": 1.0}})
        assert found == {
            "block.use": "helix-toy:scale cannot stand here: it is given d_model, "
            "but takes factor, offset, tags"
        }

    def test_options_that_must_agree_are_checked_together(self):
        found = problems(KERNEL.resolver.resolve, "gadget", {"use": "range", "low": 5}, path="gadget")
        assert found == {"gadget": "low=5 is above high=1"}

    def test_an_open_signature_takes_anything(self):
        assert resolve({"use": "anything", "x": 1, "y": {"z": 2}}).arguments == {"x": 1, "y": {"z": 2}}


class TestSignatures:
    def test_options_are_read_from_a_function(self):
        scale = resolve({"use": "scale", "factor": 2})
        assert scale.arguments == {"factor": 2.0, "offset": 0, "tags": None}

    def test_options_are_read_from_a_class_of_torch(self):
        kernel = toy_kernel(manifest("t", "t", optimizers=[component("adam", "torch.optim:Adam")]))
        table = {"use": "adam", "lr": 0.1, "betas": [0.8, 0.9]}
        adam = kernel.resolver.resolve("optimizer", table, supplied=("params",))
        assert adam.arguments["lr"] == 0.1
        assert adam.arguments["betas"] == (0.8, 0.9)
        assert adam.arguments["weight_decay"] == 0
        wrong = {"use": "adam", "lr": "fast", "amsgrad": 1, "beta": 1}
        found = problems(kernel.resolver.resolve, "optimizer", wrong, supplied=("params",))
        assert set(found) == {"lr", "amsgrad", "beta"}
        assert "Did you mean 'betas'?" in found["beta"]


FIVE = """
[gadget]
use = "rnge"
[model]
use = "block"
d_model = "8"
d_sate = 4
rate = 2.0
label = "${gadget.lw}"
mode = "fats"
[modle]
use = "block"
[kernel]
plugin = []
"""


class TestFiles:
    def load(self, path, *overrides, kernel=KERNEL):
        return load_config(path, overrides, kernel=kernel)

    def test_everything_wrong_is_reported_at_once_with_paths(self, write):
        path = write(FIVE)
        found = problems(self.load, path)
        assert found.keys() == {
            "gadget.use",
            "model.d_model",
            "model.d_sate",
            "model.rate",
            "model.label",
            "model.mode",
            "modle",
            "kernel.plugin",
        }
        assert "Did you mean 'model'?" in found["modle"]
        assert "Did you mean 'plugins'?" in found["kernel.plugin"]

    def test_the_report_names_the_file(self, write):
        with pytest.raises(ConfigError, match=r"config\.toml: 8 problems"):
            self.load(write(FIVE))

    def test_a_wrong_reference_is_not_reported_again_as_a_wrong_value(self, write):
        found = problems(self.load, write('[model]\nuse = "block"\nd_model = "${nothing.here}"'))
        assert list(found) == ["model.d_model"]
        assert "refers to no value" in found["model.d_model"]

    def test_a_reference_may_name_a_default_also_of_a_default(self, write):
        path = write(
            '[model]\nuse = "stack"\nn_layers = "${model.block.d_state}"\nd_model = "${gadget.high}"'
        )
        config = self.load(path)
        assert (config["model"].arguments["n_layers"], config["model"].arguments["d_model"]) == (4, 1)

    def test_a_section_with_a_default_needs_no_use(self, write):
        assert self.load(write("[gadget]\nlow = -1"))["gadget"].component.name == "range"

    def test_an_override_reaches_nested_components(self, write):
        path = write('[model]\nuse = "stack"\nblock = {use = "block"}')
        config = self.load(path, "model.block.d_state=9")
        assert config["model"].arguments["block"].arguments["d_state"] == 9

    def test_a_section_that_nobody_brings_names_who_would(self, write):
        found = problems(self.load, write('[trainer]\nsteps = 1\n[dta]\nuse = "x"'))
        assert "pip install helix-train" in found["trainer"]
        assert "unknown section" in found["dta"]

    def test_a_stray_value_is_an_unknown_option(self, write):
        assert "unknown option" in problems(self.load, write("steps = 5"))["steps"]

    def test_the_kernel_table_settles_collisions(self, write):
        two = [manifest(p, p, layers=[component("conv")]) for p in ("acme", "zeta")]
        text = '[kernel]\nprefer = ["zeta"]\n[model]\nuse = "conv"'
        assert self.load(write(text), kernel=toy_kernel(*two))["model"].component.provider == "zeta"

    def test_the_kernel_table_is_checked(self, write):
        assert "allowed is a table" in problems(self.load, write("kernel = 3"))["kernel"]
        found = problems(self.load, write("[kernel]\ndisabled = [1]\nbackends = 'auto'"))
        assert found.keys() == {"kernel.disabled[0]", "kernel.backends"}

    def test_settings_can_be_read_alone(self, write):
        path = write('[kernel]\nplugins = ["ssm"]\n[nonsense]\nuse = "zzz"')
        assert read_settings(path) == KernelSettings(plugins=("ssm",))
        with pytest.raises(ConfigError, match=r"kernel\.disabled: given 1"):
            read_settings(write("[kernel]\ndisabled = 1"))

    def test_a_missing_file_is_an_input_error(self, tmp_path):
        with pytest.raises(InputError, match="No such file"):
            self.load(tmp_path / "none.toml")

    def test_a_missing_section_is_named_with_what_it_holds(self, write):
        with pytest.raises(ConfigError, match=r"\[model\] is missing; it holds the layer to use"):
            self.load(write("[gadget]"))["model"]

    def test_without_a_kernel_given_the_settings_choose_the_plugins(self, write):
        text = '[kernel]\nplugins = ["helix-data"]\n[data]\nuse = "text-bytes"\nsource = "python-docs"'
        config = load_config(write(text))
        assert [plugin.provider for plugin in config.kernel.plugins] == ["helix-data"]


finite = st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]).filter(lambda c: c not in "${}"))
tables = st.fixed_dictionaries(
    {"d_model": st.integers(1, 2**40)},
    optional={
        "rate": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "mode": st.sampled_from(["fast", "slow", 3]),
        "label": text,
        "active": st.booleans(),
        "sizes": st.lists(st.integers(1, 9)),
        "pair": st.tuples(st.integers(-9, 9), finite).map(list),
        "limits": st.dictionaries(text, finite),
        "window": st.fixed_dictionaries({}, optional={"size": st.integers(1, 9)}),
        "maximum": st.integers(1, 9),
        "either": st.integers(-9, 9) | text,
        "where": text,
    },
)


def without_width(table):
    return {"use": "block", **{key: value for key, value in table.items() if key != "d_model"}}


class TestFreezing:
    @settings(max_examples=50)
    @given(tables)
    def test_a_frozen_config_loads_as_the_same_object(self, table):
        config = resolve_document({"model": {"use": "block", **table}}, kernel=KERNEL)
        frozen = config.to_toml()
        again = resolve_document(tomllib.loads(frozen), kernel=KERNEL)
        assert again == config
        assert again.to_toml() == frozen

    @settings(max_examples=20)
    @given(st.lists(tables.map(without_width), max_size=2))
    def test_so_do_nested_components(self, extras):
        table = {"model": {"use": "stack", "extras": extras}, "gadget": {"low": -3}}
        config = resolve_document(table, kernel=KERNEL)
        assert resolve_document(config.to_dict(), kernel=KERNEL) == config

    def test_every_component_is_qualified_and_its_version_recorded(self, write):
        config = load_config(write('[model]\nuse = "stack"\n[gadget]'), kernel=KERNEL)
        frozen = config.to_dict()
        assert frozen["model"]["block"]["use"] == "helix-toy:block"
        assert frozen["kernel"]["components"] == {
            "gadget/helix-toy:range": "1.2.3",
            "layer/helix-toy:block": "1.2.3",
            "layer/helix-toy:stack": "1.2.3",
        }

    def test_references_and_old_names_are_frozen_away(self, write):
        path = write('[model]\nuse = "blok"\nd_model = "${model.d_state}"')
        with pytest.warns(FutureWarning):
            frozen = load_config(path, kernel=KERNEL).to_dict()
        assert (frozen["model"]["use"], frozen["model"]["d_model"]) == ("helix-toy:block", 16)

    def test_the_file_may_be_written_by_any_toml_writer(self, write):
        config = load_config(write('[model]\nuse = "stack"'), kernel=KERNEL)
        assert load_config(write(tomli_w.dumps(config.to_dict()), "again.toml"), kernel=KERNEL) == config

    def test_a_default_that_no_file_can_hold_is_left_to_the_signature(self, write):
        config = load_config(write('[model]\nuse = "loose"'), kernel=KERNEL)
        assert config["model"].arguments["make"] is list
        assert load_config(write(config.to_toml(), "again.toml"), kernel=KERNEL) == config

    def test_another_value_is_another_config(self):
        one, two = (resolve_document({"gadget": {"low": low}}, kernel=KERNEL) for low in (-1, -2))
        assert one != two
        assert isinstance(one, Config)


def test_the_quick_starts_config_survives_freezing(example, write):
    config = load_config(example)
    assert load_config(write(config.to_toml())) == config


def test_checking_a_config_imports_no_torch(python, example):
    code = (
        "import sys; from helix_kernel import load_config\n"
        f"load_config({str(example)!r}).to_toml()\n"
        "print([m for m in ('torch', 'numpy', 'zarr') if m in sys.modules])"
    )
    assert python(code) == "[]"


def type_of(name):
    return getattr(sys.modules["helix_toy.config"], name)


def test_a_resolved_component_is_a_record():
    assert attrs.has(Resolved)
