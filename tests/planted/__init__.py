"""Planted faults: small wrong components, and the machinery that shows that the suites catch each one."""
