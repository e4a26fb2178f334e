"""How long the quick start takes alone and beside a busy process of its own kind.

Command: python -m testing.benchmarks.neighbours
Measured on 2 cores with torch 2.14, without other jobs; seconds of three runs that alternate, and their medians. The first run read the
files of torch from the disk.

                      before                         now
    alone             63.4, 26.3, 22.9 (26.3)        29.5, 24.9, 24.3 (24.9)
    beside another    160.3, 178.9, 154.7 (160.3)    63.5, 66.1, 62.4 (63.5)

So `now` takes 0.94 times as long as `before` alone, and 0.40 times beside another. Beside another it takes 2.56 times as long as alone;
before, 6.09 times. Other values of GOMP_SPINCOUNT, measured earlier:

    GOMP_SPINCOUNT    alone                     beside another
    default           22.2, 22.3, 25.0, 25.2    113.5, 97.6
    1000              26.1, 25.4, 29.4, 21.8    39.0, 43.6
    2000              25.8, 22.0                43.9
    4000              22.2, 22.2                56.1
    10,000            23.1, 22.3, 23.5, 23.0    84.7, 85.2

'before' is how OpenMP's threads wait by default, 'now' is what `EC.py` sets (`platforms/system/threads.py`). The other process runs the
same command over and over, in folders of its own, with the same setting. Runs of 'before' and 'now' alternate. Their networks must be the
same bits.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = ("EC.py", "extract", "--default_hparams=students_digits_lenet", "--global_seed=1", "--quiet")
SETTINGS = {"before": {"GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "200"}, "now": {}}  # 300,000 is the default of GNU's runtime
FOREVER = 'while true; do EC_ROOT=$(mktemp -d -p "$0") "$@"; done'


def environment(setting: str) -> dict[str, str]:
    """The environment of a process under a setting."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    return own | SETTINGS[setting]


def seconds_of_run(setting: str) -> tuple[float, bytes]:
    """Runs the command in a new folder; its seconds, and the weights of the network that it recovers."""
    with tempfile.TemporaryDirectory() as root:
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, *COMMAND], cwd=REPOSITORY, env=environment(setting) | {"EC_ROOT": root}, check=True, capture_output=True
        )
        seconds = time.perf_counter() - begun
        (last,) = [max(folder.glob("model_*.pth"), key=os.path.getmtime) for folder in Path(root).rglob("reconstructed_model")]
        return seconds, last.read_bytes()


@contextlib.contextmanager
def neighbour(setting: str) -> Iterator[None]:
    """Keeps a process busy that runs the command over and over."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as roots:
        forever = ("bash", "-c", FOREVER, roots, sys.executable, *COMMAND)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(forever, cwd=REPOSITORY, env=environment(setting), start_new_session=True, **quiet)
        time.sleep(15)  # until its first run computes
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> int:
    """Runs the benchmark; returns the exit status, 1 if the networks differ."""
    parser = argparse.ArgumentParser(description="Times the quick start alone and beside a process of its own kind.")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind (default: 3)")
    repeats, networks, medians = parser.parse_args().repeats, set(), {}
    for where in ("alone", "beside another"):
        times: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
        for _ in range(repeats):
            for setting in SETTINGS:
                with neighbour(setting) if where != "alone" else contextlib.nullcontext():
                    seconds, network = seconds_of_run(setting)
                times[setting].append(seconds)
                networks.add(network)
        for setting, values in times.items():
            medians[where, setting] = statistics.median(values)
            shown = ", ".join(f"{value:.1f}" for value in values)
            print(f"{where:14} {setting:6} {medians[where, setting]:6.1f} s ({shown})", flush=True)
    for where in ("alone", "beside another"):
        print(f"now / before, {where}: {medians[where, 'now'] / medians[where, 'before']:.2f}")
    for setting in SETTINGS:
        print(f"beside another / alone, {setting}: {medians['beside another', setting] / medians['alone', setting]:.2f}")
    print("the same bits" if len(networks) == 1 else f"{len(networks)} different networks")
    return int(len(networks) > 1)


if __name__ == "__main__":
    sys.exit(main())
