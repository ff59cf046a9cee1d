"""Who serves each op here, and why the others do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.diagnosis.finding import Finding
from helix_kernel.diagnosis.mending import leave_out, upgrade

if TYPE_CHECKING:
    from helix_kernel.kernel import Kernel


@attrs.frozen
class Serving:
    """Who serves what, in plain tables.

    Args:
        backends: What each installed backend's probe found.
        ops: For each op on each type of device, who serves it and why the others do not.
        findings: What kept this from being found out.
    """

    backends: tuple[dict[str, Any], ...] = ()
    ops: tuple[dict[str, Any], ...] = ()
    findings: tuple[Finding, ...] = ()


def serving(kernel: Kernel) -> Serving:
    """Probe the backends, and tell what a selection of ``auto`` would be. Needs torch."""
    try:
        selection = kernel.backend_selector.select(["auto"])
    except Exception as error:  # noqa: BLE001 - a backend's probe may raise anything; it is reported
        return Serving(findings=(_failed(kernel, error),))
    services = selection.services([component.name for component in kernel.components("op")])
    return Serving(
        tuple(
            {"name": name, **attrs.asdict(offer.probe), "priority": offer.priority, "ops": sorted(offer.ops)}
            for name, offer in selection.offers.items()
        ),
        tuple(
            {
                "op": service.op,
                "device": service.device_type,
                "served_by": service.serving,
                "passed_over": dict(service.passed_over),
            }
            for service in services
        ),
    )


def _failed(kernel: Kernel, error: Exception) -> Finding:
    """Blame the backend that cannot be built or asked, where one by itself shows it."""
    blamed = ""
    for component in kernel.components("backend"):
        try:
            kernel.build("backend", component.qualified).probe()
        except Exception:  # noqa: BLE001 - as above
            blamed = component.provider
            break
    providers = [blamed] if blamed else sorted({c.provider for c in kernel.components("backend")})
    return Finding(
        check="backend",
        what=f"choosing backends failed{f' by {blamed}' if blamed else ''}: {type(error).__name__}: {error}",
        mend=upgrade(*providers),
        note=f"or leave it out: {leave_out(providers[0])}" if providers else "",
        provider=blamed,
    )
