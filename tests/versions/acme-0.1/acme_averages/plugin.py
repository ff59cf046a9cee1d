"""What acme-averages offers."""

from helix_kernel import Component, hookimpl


@hookimpl
def helix_layers():
    return [
        Component(
            name="smoother",
            target="acme_averages.layers:Smoother",
            config="acme_averages.config:SmootherConfig",
            summary="A moving average",
        )
    ]
