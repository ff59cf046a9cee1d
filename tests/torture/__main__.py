"""`python -m torture`, with tests/ on the path: every harness, as many rounds as asked for."""

import argparse
import logging
import time

from torture import bit_flips, ext4, faults, hostile, kills, power

FLIPS_A_ROUND = 10


def main():
    """Run what is asked for; a `LostError` ends it, and says the seed and the round."""
    arguments = _arguments()
    logging.disable(logging.WARNING)  # steps passed over, by the thousand
    for name in arguments.harness or [*HARNESSES]:
        begun = time.monotonic()
        outcome = HARNESSES[name](arguments.rounds, arguments.seed)
        print(f"{name}: {outcome} ({time.monotonic() - begun:.0f} s, seed {arguments.seed})", flush=True)


def _arguments():
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("harness", nargs="*", help=f"of {', '.join(HARNESSES)}; all if left out")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.harness) - HARNESSES.keys():
        parser.error(f"no harness {unknown}; there are {', '.join(HARNESSES)}")
    return arguments


def _kill_before_calls(rounds, seed):
    del rounds, seed  # each call of a save, once
    return f"killed before each of {[kills.run_calls(mode) for mode in kills.MODES]} calls of a save"


def _ext4(rounds, seed):
    reason = ext4.missing()
    return f"left out: {reason}" if reason else ext4.run_rounds(rounds, seed)


def _faults(rounds, seed):
    del rounds, seed  # each call of a save, once for each error
    calls = sum(
        faults.fail_each_call(mode, number, for_good=for_good)
        for mode in faults.MODES
        for number in faults.NUMBERS
        for for_good in (False, True)
    )
    return f"{calls} calls refused"


HARNESSES = {
    "calls": _kill_before_calls,
    "kills": kills.run_rounds,
    "power": power.run_rounds,
    "flips": lambda rounds, seed: bit_flips.run_rounds(FLIPS_A_ROUND * rounds, seed),
    "faults": _faults,
    "ext4": _ext4,
    "hostile": hostile.run_rounds,  # last, since it bounds the memory of this process
}

if __name__ == "__main__":
    main()
