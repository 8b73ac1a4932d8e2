"""Time how long `pixelwise --help` and `import pixelwise` take beyond the interpreter's own start.

Command, from the repository root (under a minute):

    .venv/bin/python benchmarks/startup.py [--rounds 15]

Each line is the median over the rounds of a whole process, less the median of `python -c pass`; the commands
take turns, so that a busy machine slows all of them alike. Targets: below 0.3 s for help, 0.25 s for the import.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMAND = str(Path(sys.executable).with_name("pixelwise"))
NOTHING = "python -c pass"
PROCESSES = {
    NOTHING: [sys.executable, "-c", "pass"],
    "import pixelwise": [sys.executable, "-c", "import pixelwise"],
    "pixelwise --help": [COMMAND, "--help"],
    "pixelwise train --help": [COMMAND, "train", "--help"],
}
TARGETS = {"import pixelwise": 0.25, "pixelwise --help": 0.3, "pixelwise train --help": 0.3}


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {name: [] for name in PROCESSES}
    for number in range(rounds + 1):
        for name, command in PROCESSES.items():
            taken = seconds(command)
            if number:  # the first round fills the file cache
                times[name].append(taken)
    base = statistics.median(times[NOTHING])
    print(f"{NOTHING:24}{base:.3f} s (median of {rounds}, fastest {min(times[NOTHING]):.3f} s)")
    for name, target in TARGETS.items():
        beyond = statistics.median(times[name]) - base
        mark = "met" if beyond < target else "MISSED"
        print(f"{name:24}{beyond:.3f} s beyond that; target {target} s: {mark}")


if __name__ == "__main__":
    main()
