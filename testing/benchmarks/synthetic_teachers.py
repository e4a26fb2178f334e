"""Identification of 150 small synthetic teachers with the same hyperparameters.

Command:  python -m testing.benchmarks.synthetic_teachers [--inputs 2,4,8,16,32] [--widths 2,4,8] [--seeds 0-9] [--jobs 2]
Hardware: two CPU cores.
Result:   150 of 150 identified, the largest weight error 6e-14, in 41 minutes on a busy machine (n=1).
Prints:   a line for each finished teacher, and a table of the number of identified teachers by size; all figures go to a CSV file.
          The exit status is 0 if nine in ten were identified, else 1. `--inputs 2 --widths 8 --seeds 3` runs one teacher alone.

The teachers follow those of Martinelli et al. (2024): one hidden layer of g(x) = sigmoid(4x) + softplus(x), one output, input vectors of
unit norm that are spread apart, biases within the data, output weights bounded away from zero. There are many students, 1.5 times as wide.
Adam takes them near the solution, and Levenberg-Marquardt to it, until two students are exact. More students work better here than wider
ones, and queries that reach beyond the kinks work better than queries among the kinks.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from unittest import mock

import torch

from extraction import report
from extraction.desc import ExtractionDesc
from extraction.runner import ExtractionRunner, check
from foundations import ranges, tables
from foundations.errors import ConfigError
from foundations.seeds import derive
from foundations.training_hparams import TrainingHparams
from models.mlp import FullyConnected
from testing import toy_teacher
from training.job import JobArgs

STUDENTS, EXPANSION = 100, 1.5
QUERIES = "wide:5000"
TRAINING = TrainingHparams("adam", 0.02, "2000it", lr_decay="cosine", polish_optimizer="levenberg_marquardt", polish_steps="300it")
REPULSION_STEPS, REPULSION_RATE = 2000, 0.01
COLUMNS = ["inputs", "width", "seed", "identified", "recovered_width", "max_relative_error", "accepted", "seconds", "remark"]


def synthetic_teacher(inputs: int, width: int, seed: int) -> str:
    """Writes the run of a teacher under the platform's root, and returns its hash."""
    generator = torch.Generator().manual_seed(derive(seed, "synthetic teacher", inputs, width))

    def change(model: FullyConnected) -> None:
        hidden = model.fc_layers[0]
        hidden.weight.data = spread_apart(torch.randn(width, inputs, generator=generator))
        hidden.bias.data = 2 * torch.rand(width, generator=generator) - 1
        signs = torch.randint(2, (1, width), generator=generator) * 2 - 1
        model.fc.weight.data = signs * (0.5 + torch.rand(1, width, generator=generator))

    name, _ = toy_teacher.make(f"mlp_{inputs}_{width}_1", "g", seed, change)
    return name


def spread_apart(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors `[K, D]` after they repelled each other like charges on a sphere."""
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    for _ in range(REPULSION_STEPS):
        apart = vectors[:, None] - vectors
        force = (apart / apart.norm(dim=2, keepdim=True).clamp_min(1e-3) ** 4).sum(1)
        step = REPULSION_RATE * force / force.norm(dim=1, keepdim=True).clamp_min(1)
        vectors = torch.nn.functional.normalize(vectors + step, dim=1)
    return vectors


def identify(size: tuple[int, int, int]) -> dict[str, object]:
    """Makes the teacher of these inputs, width and seed in a folder of its own, and recovers it; returns its row."""
    inputs, width, seed = size
    row = {"inputs": inputs, "width": width, "seed": seed, "identified": False, "accepted": False}
    with tempfile.TemporaryDirectory() as root, mock.patch.dict(os.environ, EC_ROOT=root, EC_DATASET_ROOT=root):
        name = synthetic_teacher(inputs, width, seed)
        desc = ExtractionDesc.default_for(f"students_mlp({STUDENTS})_{inputs}_{math.ceil(EXPANSION * width)}_1")
        desc.model_hparams.act_fun = "g"
        desc.training_hparams = TRAINING
        desc.dataset_hparams.teacher_name, desc.dataset_hparams.teacher_seed = name, seed
        desc.dataset_hparams.datagen = QUERIES
        job = JobArgs(global_seed=seed, quiet=True, evaluate_only_at_end=True)
        started = time.monotonic()
        try:
            desc, teacher, prepare = check(desc, job)
            runner = ExtractionRunner(desc, job, teacher, prepare)
            runner.run()
            found = report.read(runner.output_location)
        except ConfigError as error:
            return row | {"seconds": round(time.monotonic() - started, 1), "remark": str(error).split(";")[0]}
        return row | {
            "identified": found.identified,
            "recovered_width": found.layers[0].recovered_width,
            "max_relative_error": found.max_relative_error,
            "accepted": found.certificate.accepted,
            "seconds": round(time.monotonic() - started, 1),
            "remark": f"best students {' '.join(f'{loss:.0e}' for loss in sorted(found.students.losses)[:2])}",
        }


def numbers(text: str) -> list[int]:
    """`2,4,8` or `0-9` or both as a list."""
    return ranges.parse_list(text, lambda part, _: ValueError(part))


def table(rows: Sequence[dict[str, object]]) -> str:
    """How many were identified, by inputs and width."""
    widths = sorted({row["width"] for row in rows})
    lines = [["inputs \\ width", *map(str, widths)]]
    for inputs in sorted({row["inputs"] for row in rows}):
        cells = []
        for width in widths:
            cell = [row["identified"] for row in rows if (row["inputs"], row["width"]) == (inputs, width)]
            cells.append(f"{sum(cell)} of {len(cell)}")
        lines.append([str(inputs), *cells])
    return "\n".join(tables.aligned(lines, ">", (14, 8)))


def main() -> int:
    """Runs the suite; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--inputs", type=numbers, default=[2, 4, 8, 16, 32])
    parser.add_argument("--widths", type=numbers, default=[2, 4, 8])
    parser.add_argument("--seeds", type=numbers, default=list(range(10)))
    parser.add_argument("--jobs", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--csv", default="data/synthetic_teachers.csv", help="file that the figures are written to")
    args = parser.parse_args()
    os.makedirs(os.path.dirname(os.path.abspath(args.csv)), exist_ok=True)
    started, rows = time.monotonic(), []
    sizes = list(itertools.product(args.inputs, args.widths, args.seeds))
    with open(args.csv, "w", newline="") as file, multiprocessing.get_context("spawn").Pool(args.jobs, torch.set_num_threads, (1,)) as pool:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in pool.imap(identify, sizes):
            rows.append(row)
            writer.writerow(row)
            file.flush()
            print("  ".join(f"{name} {row[name]}" for name in COLUMNS if name in row), flush=True)
    identified = sum(row["identified"] for row in rows)
    print(table(rows))
    print(f"{identified} of {len(rows)} identified in {(time.monotonic() - started) / 60:.1f} min; {os.path.abspath(args.csv)}")
    return 0 if identified >= 0.9 * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
