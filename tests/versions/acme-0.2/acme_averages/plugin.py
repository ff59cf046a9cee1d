"""What acme-averages offers."""

from helix_kernel import Component, hookimpl


@hookimpl
def helix_layers():
    return [
        Component(
            name="ema",
            target="acme_averages.layers:EMA",
            config="acme_averages.config:EMAConfig",
            summary="An exponential moving average",
            deprecated={"smoother": "0.2"},
            reads=">=0.1",
            upgrades={"0.2": "acme_averages.upgrades:to_0_2"},
        )
    ]
