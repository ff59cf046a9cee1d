"""`make demo`: trains a small Mamba on the Python language reference, and shows what Helix is for.

It starts `helix train`, kills it in mid-run, resumes it from its checkpoint, measures the model
beside gzip and xz, and lets it write. The last line on standard output is one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HELIX = [sys.executable, "-m", "helix_kernel.cli"]
CONFIG = Path(__file__).parent / "ssm-byte-lm.toml"
KILL_AFTER = 0.5  # of the steps, and then at the next checkpoint


def main() -> None:
    """Run the demo."""
    out = Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    overrides = [f"trainer.out={out}", *sys.argv[1:]]
    say(f"helix train {os.path.relpath(CONFIG)} {' '.join(overrides)}")
    train_until_killed(out, overrides)
    run("train", str(CONFIG), *overrides, "trainer.resume=true")
    say("measuring it on the held-out last tenth, beside compressors primed with the rest")
    measured = json.loads(run("eval", str(out), "--baselines", "--json"))
    say("helix generate, prompted with 'The ':")
    print(run("generate", str(out), "--prompt", "The ", "--n-bytes", "300"))
    plot = out / "loss.png"
    say(f"the loss curve lies in {plot}; helix checkpoint inspect {out} shows the checkpoint")
    for name in ("bits_per_byte", "gzip", "xz"):
        print(f"{name.replace('_', ' '):<14} {measured[name]:.3f}")
    results = {name: measured[name] for name in ("bits_per_byte", "gzip", "xz", "checkpoint")}
    print(json.dumps({**results, "plot": str(plot) if plot.exists() else None}))


def train_until_killed(out: Path, overrides: list[str]) -> None:
    """Start training, and kill -9 it once the checkpoint past half of the steps is on disk."""
    steps = json.loads(run("config", "resolve", str(CONFIG), *overrides, "--json"))["trainer"]["steps"]
    process = subprocess.Popen([*HELIX, "train", str(CONFIG), *overrides], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        saved = [int(path.name.partition("-")[2]) for path in (out / "checkpoints").glob("step-*")]
        if any(KILL_AFTER * steps <= step < steps for step in saved):
            time.sleep(1)  # a little past the checkpoint, so that there is something to lose
            process.send_signal(signal.SIGKILL)
            process.wait()
            say(
                f"killed it after the checkpoint of step {max(saved)}; trainer.resume=true goes on from there"
            )
            return
        time.sleep(0.05)
    if process.returncode:
        sys.exit(process.returncode)
    say("it ended before it could be killed")


def run(*arguments: str) -> str:
    """Run a helix command; its progress goes to the terminal, what it prints is returned."""
    finished = subprocess.run([*HELIX, *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.returncode)
    return finished.stdout.strip()


def say(text: str) -> None:
    """Print a heading."""
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    main()
