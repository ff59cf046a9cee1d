"""Numbers as people read them: few digits, a unit, a prefix where they are large."""

from __future__ import annotations

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")
_UNITS = ((86_400, "d", "h"), (3_600, "h", "min"), (60, "min", "s"))


def significant(value: float, digits: int = 4) -> str:
    """Return a number with so many significant digits at least: 1.884, 0.0003, 3e-6, 24,273."""
    if 1000 <= abs(value) < 1e7:
        return f"{value:,.0f}"
    mantissa, _, exponent = f"{value:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def amount(value: float, unit: str = "") -> str:
    """Return a number with a decimal prefix and a unit: 3.46 TFLOP, 983 k."""
    power = 0
    while abs(value) >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_PREFIXES[power]}{unit}".rstrip()


def short(value: float) -> str:
    """Return a number for an axis: 20k, 0.05, 1e-5."""
    if abs(value) >= 10_000:
        return amount(value).replace(" ", "")
    return significant(value, 3)


def percent(value: float) -> str:
    """Return a share of one in percent."""
    return f"{significant(100 * value, 3)} %"


def count(value: float) -> str:
    """Return a whole number, its thousands apart."""
    return f"{round(value):,}"


def duration(seconds: float) -> str:
    """Return a time by its two largest units: 2 h 03 min, 4 min 10 s, 12.3 s."""
    if seconds < 60:
        return f"{significant(seconds, 3)} s"
    whole = round(seconds)
    for size, unit, smaller in _UNITS:
        if whole >= size:
            part = {"h": 3_600, "min": 60, "s": 1}[smaller]
            return f"{whole // size} {unit} {whole % size // part:02d} {smaller}"
    return f"{whole} s"


def moment(text: str) -> str:
    """Return a point in time as it is written in files, for reading."""
    return text.replace("T", " ").replace("+00:00", " UTC")
