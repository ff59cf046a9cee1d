"""Profiles of hypothesis for all tests: ``helix`` draws the same examples each time, ``anew`` does not.

A tolerance that is a little too tight fails where it was written, not one day on somebody else's machine.
The root's pyproject.toml loads this before any conftest, so that settings made by a test inherit it.
"""

from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine's other work than about the code.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
# Where the environment says CI, what hypothesis inherits from is derandomised already.
settings.register_profile("anew", _patient, derandomize=False)
settings.register_profile("helix", _patient, derandomize=True, database=None)
settings.load_profile("helix")
