"""Components whose declaration is wrong in one way."""

from __future__ import annotations

import attrs
from torch import nn

from helix_kernel import option
from planted.faults import Fault


@attrs.frozen(kw_only=True)
class DefaultIsNotAllowedConfig:
    d_model: int = option(help="Width", ge=1)
    depth: int = option(0, help="Depth", ge=1)


class DefaultIsNotAllowed(nn.Identity):
    def __init__(self, d_model: int, depth: int = 0) -> None:
        super().__init__()


class ConfigDisagrees(nn.Identity):
    def __init__(self, d_model: int, n_layers: int = 1) -> None:
        super().__init__()


class DefaultsDiffer(nn.Identity):
    def __init__(self, d_model: int, depth: int = 3) -> None:
        super().__init__()


class ConfigLacksARequiredOption(nn.Identity):
    def __init__(self, d_model: int, n_heads: int, depth: int = 0) -> None:
        super().__init__()


class ConfigClassIsMissing(nn.Identity):
    """Its component names a config class that is not there."""


class TargetIsMissing(nn.Identity):
    """Its component names another attribute."""


_CONFIG = {"config": f"{__name__}:DefaultIsNotAllowedConfig"}
FAULTS = (
    Fault(DefaultIsNotAllowed, "test_its_defaults_are_allowed", "depth: given 0, allowed is >= 1", _CONFIG),
    Fault(ConfigDisagrees, "test_its_config_class_agrees_with_its_target", "takes no .'depth'", _CONFIG),
    Fault(
        ConfigLacksARequiredOption,
        "test_its_config_class_agrees_with_its_target",
        r"requires \['n_heads'\], which planted.manifests:DefaultIsNotAllowedConfig lacks",
        _CONFIG,
    ),
    Fault(
        ConfigClassIsMissing,
        "test_its_config_class_agrees_with_its_target",
        "'planted.manifests:Gone' cannot be imported",
        {"config": f"{__name__}:Gone"},
    ),
    Fault(DefaultsDiffer, "test_its_defaults_are_the_targets", "depth is 0 by default .* but 3 in", _CONFIG),
    Fault(
        TargetIsMissing,
        "test_its_target_can_be_imported",
        "'planted.manifests:Gone' cannot be imported",
        {"target": "planted.manifests:Gone"},
    ),
)
