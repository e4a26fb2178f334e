"""What a GPU does with this program, in one command and under 8 minutes.

Command: python -m testing.benchmarks.gpu --output gpu.json
Measured on an H100 80GB HBM3 with 16 CPU cores, alone, on 2026-11-27 (torch 2.11, CUDA 13.0, cuDNN 9.19, in float32 unless a format is
named). Sections were run in three commands, 4, 1 and 1 minutes long.

    card             peak float32 52.0, tf32 391, bf16 783 TFLOP/s (limits 67, 495, 989); copy 3.01 TB/s
    quick start      22.0 s in all: teacher 8.9, students 1.9, reconstruction 1.1, certificate 0.4, pictures 3.0 s
                     IDENTIFIED. 16 of 16 neurons; every weight within 3.4e-16 of the teacher's
    convolutions     examples/s                  float32         tf32           bf16
                     as trained                   23,356       38,655         51,168   (8.5%, 1.9%, 1.3% of the limit)
                     not captured                 13,021       17,153         12,619
                     the other layout             24,788       26,556         26,557
    students         us an update               plain  captured  update  products  difference
                     10 students float32         1361       196     159        79  0
                     10 students tf32            1313       156     120        40  0
                     50 students float32         1617       416     374       259  0
                     50 students tf32            1588       273     227       103  0
    clustering       product 0.015, distances 1.77, linkage (scipy, CPU) 23.4 s
    tests            34: 32 pass, 1 is skipped (it counts waits of the pretended device), and that of two relu layers passed by hand only

An update of `cifar_resnet_20` in bf16 takes 2.5 ms, of which the GPU computes for 2.3 ms in hundreds of small kernels (a third in
batch normalisation), so that the small network and not the loop is the limit. An update of students computes for 90% of its time.

Needs what `requirements.txt` lists but torchvision, and downloads nothing. Each section is a process of its own with a share of the time
that is left; one that fails or takes too long has its error in the table, and the others go on. The JSON file is written anew after each
figure.
`--device cpu --quick` tries the command itself, in a few minutes, on a machine without a GPU; there is no tf32 there.

- card: what is here; TFLOP/s of a large matrix product in each format ('peak' below), and TB/s of a copy, read and written bytes together.
- quick start: seconds of the README's first extraction, in all and by phase, and its verdict.
- convolutions: an epoch of `cifar_resnet_20` on 50,000 random images of CIFAR's shape with crops and mirror images, batches of 128, as
  examples/s; the share of the vendor's limit for the format ('of the limit') and of the measured peak ('of the peak'). 'as trained' is what
  `train` does by itself: captured updates, and channels last in tf32 and bf16. The other rows change one of the two.
- students: an epoch of 10 and 50 students 784-80-10 with Adam, 60,000 queries in batches of 512. 'plain' launches every kernel from
  Python, and 'captured' replays a CUDA graph. 'update' is a captured update without the loop around it, and 'products' the matrix products
  of an update alone, in a graph: captured minus update is the loop, update minus products all other arithmetic. 'difference' is the largest
  difference of the weights between a graph and the same computation without one after three epochs: 0 means the same bits.
- clustering: 20,000 vectors of 785 numbers: distances of all pairs (on the device but for rounding, then copied), the product that they
  need alone, and scipy's linkage on the CPU.
- tests: those that run the workflows on a device, and those of captured updates. JSON has their whole output.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import glob
import importlib.metadata
import json
import math
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from foundations import json_text

if TYPE_CHECKING:
    import torch

    from datasets.base import DataLoader
    from foundations.step import Step
    from foundations.training_hparams import TrainingHparams
    from models.base import Model
    from training.captured import Capture

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = "ROW "  # what lines of a section begin with that are rows of the table
LIMITS = {  # TFLOP/s of dense matrix products, by the vendor's data sheets
    "H100 PCIe": {"float32": 51, "tf32": 378, "bf16": 756},
    "H100": {"float32": 67, "tf32": 495, "bf16": 989},
    "H200": {"float32": 67, "tf32": 495, "bf16": 989},
    "A100": {"float32": 19.5, "tf32": 156, "bf16": 312},
}
FORMATS = ("float32", "tf32", "bf16")
TESTS = ("testing.test.test_devices", "training.test.test_captured")
LOG = 20_000  # characters that are kept of what a failure has printed
GRACE = 3.0  # seconds that the end of the whole command may take


@dataclasses.dataclass(frozen=True)
class Options:
    """Where a section runs, and how much it does."""

    device: str
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """One of two sizes."""
        return quick if self.quick else full


def row(what: str, value: object, unit: str = "", remark: str = "") -> None:
    """Reports a row of the section that runs in this process; one with the same name replaces the one before."""
    print(MARK + json_text.dumps({"what": what, "value": value, "unit": unit, "remark": remark}), flush=True)


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    """Makes a row of an error, so that the rest of the section goes on."""
    try:
        yield
    except Exception as error:
        import traceback

        row(what, "ERROR", remark=f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        print(traceback.format_exc(), file=sys.stderr, flush=True)


# What is timed


def synchronised() -> float:
    """The time in seconds, once the device has done what it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(work: Callable[[], object], repeats: int) -> float:
    """The seconds that some work takes, the mean of repeats after a first one that is not timed."""
    work()
    start = synchronised()
    for _ in range(repeats):
        work()
    return (synchronised() - start) / repeats


def replayed(work: Callable[[], object]) -> Callable[[], object]:
    """Work as a CUDA graph where there is a GPU, which takes no launches; elsewhere the work itself."""
    import torch

    from training import captured

    if not torch.cuda.is_available():
        return work
    with captured.side_stream(torch.device("cuda")):
        work()
        return captured.cuda_graph(work)


@functools.cache
def peak(precision: str, size: int) -> float:
    """TFLOP/s of a matrix product."""
    import torch

    from platforms.platform import get_platform
    from training import arithmetic

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=get_platform().torch_device).to(dtype) for _ in range(2))
    with arithmetic.tf32(precision == "tf32"):
        return 2 * size**3 / seconds_of(lambda: left @ right, 20) / 1e12


def limit_of(precision: str) -> float | None:
    """TFLOP/s that the vendor gives for the card; None where it is not known."""
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((limits[precision] for part, limits in LIMITS.items() if all(word in name for word in part.split())), None)


def epoch_seconds(training_hparams: TrainingHparams, model: Model, loader: DataLoader) -> float:
    """Trains a model for three epochs; the seconds of the second, during which no checkpoint is written."""
    from training.plan import Plan
    from training.train import train

    starts = []

    def note(output_location: str, step: Step, *_: object) -> None:
        if step.it == 0:
            starts.append(synchronised())

    with tempfile.TemporaryDirectory() as folder, mock.patch("training.train.CHECKPOINT_SECONDS", math.inf):
        train(training_hparams, model, loader, folder, Plan(callbacks=[note]))
    return starts[2] - starts[1]


@contextlib.contextmanager
def not_captured() -> Iterator[None]:
    """Has updates computed kernel by kernel."""
    with mock.patch("training.captured.capture_on", lambda device: None):
        yield


# The sections


def card(options: Options) -> None:
    """Section: what is here, and how fast it multiplies and copies."""
    import torch

    from platforms.platform import get_platform

    gpu = torch.cuda.is_available()
    row("device", torch.cuda.get_device_name() if gpu else "CPU", remark=f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads")
    for package in ("torch", "numpy", "scipy", "scikit-learn", "matplotlib", "tqdm"):
        with reported(package):
            row(package, importlib.metadata.version(package))
    if gpu:
        row("CUDA", torch.version.cuda, remark=f"cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_properties(0)}")
    size = options.size(8192, 512)
    for precision in FORMATS:
        with reported(f"peak {precision}"):
            row(f"peak {precision}", round(peak(precision, size), 2), "TFLOP/s", f"limit {limit_of(precision) or 'unknown'}")
    with reported("copy"):
        values = torch.empty(options.size(2**30, 2**22), device=get_platform().torch_device)
        target = torch.empty_like(values)
        row("copy", round(2 * values.numel() * 4 / seconds_of(lambda: target.copy_(values), 10) / 1e12, 3), "TB/s")


def quick_start(options: Options) -> None:
    """Section: the README's first extraction."""
    with tempfile.TemporaryDirectory() as root:
        command = [sys.executable, "EC.py", "extract", "--default_hparams=students_digits_lenet", "--global_seed", "1"]
        environment = os.environ | {"EC_ROOT": root, "EC_DATASET_ROOT": os.path.join(root, "datasets")}
        start = time.perf_counter()
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
        row("in all", round(time.perf_counter() - start, 2), "s")
        verdict = [line for line in done.stdout.splitlines() if line.startswith("Verdict")]
        row("verdict", verdict[-1].removeprefix("Verdict: ") if verdict else "none")
        if done.returncode or done.stderr.strip():
            row("stderr", "ERROR" if done.returncode else "see the log", remark=(done.stderr.strip().splitlines() or [""])[-1])
            row("log", done.stdout[-LOG // 2 :] + done.stderr[-LOG // 2 :])
        for path in glob.glob(os.path.join(root, "**", "report.json"), recursive=True):
            with reported("phases"):
                for phase, seconds in json.loads(Path(path).read_text())["seconds"].items():
                    row(phase, seconds, "s")


def images(count: int, batch_size: int) -> DataLoader:
    """A loader of random images of CIFAR's shape, with crops and mirror images."""
    import torch

    from datasets import base, cifar10
    from foundations.dataset_hparams import DatasetHparams

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    dataset = type("Random", (cifar10.Dataset,), {"read": staticmethod(lambda train: (pixels, labels))})
    return base.DataLoader(dataset.create(DatasetHparams("cifar10", batch_size), True, 0), batch_size)


def operations(name: str) -> float:
    """Floating-point operations of an update of a convolutional network, an example."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from foundations.model_hparams import ModelHparams
    from models import registry

    model = registry.get(ModelHparams(name, "kaiming_normal", "uniform"), 10)
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(2, 3, 32, 32)).sum().backward()
    return counter.get_total_flops() / 2


def convolutions(options: Options) -> None:
    """Section: an epoch of a residual network."""
    from foundations.model_hparams import ModelHparams
    from foundations.training_hparams import TrainingHparams
    from models import registry
    from training import arithmetic

    name, count = ("cifar_resnet_8_4", 64) if options.quick else ("cifar_resnet_20", 50_000)
    loader, work = images(count, options.size(128, 16)), operations(name) / 1e12
    changes = {
        "as trained": contextlib.nullcontext,
        "not captured": not_captured,
        "the other layout": lambda: mock.patch.object(arithmetic, "TENSOR_CORES", tuple({*FORMATS} - {*arithmetic.TENSOR_CORES})),
    }
    for change, context in changes.items():
        for precision in FORMATS:
            what = f"{name} {precision}, {change}"
            with reported(what), context():
                model = registry.get(ModelHparams(name, "kaiming_normal", "uniform"), 10, 0)
                seconds = epoch_seconds(TrainingHparams("sgd", 0.1, "3ep", momentum=0.9, precision=precision), model, loader)
                speed, limit = work * count / seconds, limit_of(precision)
                shares = [f"{speed / limit:.2%} of the limit"] if limit else []
                shares.append(f"{speed / peak(precision, options.size(8192, 512)):.2%} of the peak")
                row(what, round(count / seconds), "examples/s", f"{seconds:.3f} s an epoch, {', '.join(shares)}")


def answers(count: int, batch_size: int) -> DataLoader:
    """A loader of random queries of 784 values with 10 answers."""
    import torch

    from datasets import base, teacher_dataset

    values = torch.randn(count, 794, generator=torch.Generator().manual_seed(0))
    return base.DataLoader(teacher_dataset.Dataset(values[:, :784].contiguous(), values[:, 784:].contiguous()), batch_size)


def stack(networks: int) -> Model:
    """Students 784-80-10."""
    from foundations.model_hparams import ModelHparams
    from models import registry

    return registry.get(ModelHparams(f"students_mlp({networks})_784_80_10", "kaiming_normal", "uniform"), seed=0)


def products_seconds(networks: int, batch_size: int, repeats: int) -> float:
    """The seconds of the matrix products of an update of students 784-80-10, without anything else."""
    import torch

    from platforms.platform import get_platform

    def values(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=get_platform().torch_device)

    inputs, weights, following = values(batch_size, 784).expand(networks, -1, -1), values(networks, 784, 80), values(networks, 80, 10)
    hidden, slopes, errors = values(networks, batch_size, 80), values(networks, batch_size, 80), values(networks, batch_size, 10)

    def products() -> tuple:
        forward = torch.bmm(inputs, weights), torch.bmm(hidden, following)
        through_the_output_layer = torch.bmm(hidden.mT, errors), torch.bmm(errors, following.mT)
        return forward, through_the_output_layer, torch.bmm(inputs.mT, slopes)

    replay = replayed(lambda: [products() for _ in range(10)][-1])
    return seconds_of(replay, repeats) / 10


def update_seconds(training_hparams: TrainingHparams, networks: int, loader: DataLoader, repeats: int) -> float:
    """The seconds of a captured update of students, without the loop around it."""
    from platforms.platform import get_platform
    from training import arithmetic, captured
    from training.optimizers import get_optimizer
    from training.train import Objective

    model = stack(networks).to(get_platform().torch_device)
    optimizer, computed = get_optimizer(training_hparams, model), arithmetic.Arithmetic(training_hparams, model)

    def plain(examples: torch.Tensor, labels: torch.Tensor, share: float) -> torch.Tensor:
        return computed.update(optimizer, Objective(model, examples, labels, computed, share))

    examples, labels = next(loader.epoch(0))
    with arithmetic.tf32(training_hparams.precision == "tf32"), captured.updates(plain, optimizer, loader, computed) as update:
        for _ in range(captured.WARM_UP + 1):
            update(examples, labels, 1.0)
        return seconds_of(lambda: update(examples, labels, 1.0), repeats)


def difference(training_hparams: TrainingHparams, networks: int, loader: DataLoader) -> float:
    """The largest difference of the weights between captured updates and the same ones without a graph."""
    import torch

    def without_graph(device: torch.device) -> Capture:
        return lambda computation: computation

    weights = []
    for context in (contextlib.nullcontext(), mock.patch("training.captured.capture_on", without_graph)):
        model = stack(networks)
        with context:
            epoch_seconds(training_hparams, model, loader)
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach().cpu())
    return float((weights[0] - weights[1]).abs().max())


def students(options: Options) -> None:
    """Section: stacks of students, captured and not."""
    from foundations.training_hparams import TrainingHparams

    batch_size, repeats = options.size(512, 32), options.size(200, 2)
    loader = answers(options.size(60_000, 150), batch_size)
    for networks in (10, 50):
        for precision in ("float32", "tf32"):
            what, h = f"{networks} students {precision}", TrainingHparams("adam", 1e-3, "3ep", precision=precision)
            for name, context in (("plain", not_captured), ("captured", contextlib.nullcontext)):
                with reported(f"{what}, {name}"), context():
                    seconds = epoch_seconds(h, stack(networks), loader)
                    row(f"{what}, {name}", round(seconds, 4), "s an epoch", f"{1e6 * seconds / len(loader):.1f} us an update")
            with reported(f"{what}, update"):
                row(f"{what}, update", round(1e6 * update_seconds(h, networks, loader, repeats), 1), "us")
            with reported(f"{what}, products"):
                from training import arithmetic

                with arithmetic.tf32(precision == "tf32"):
                    seconds = products_seconds(networks, batch_size, options.size(30, 1))
                speed = networks * batch_size * (4 * 784 * 80 + 6 * 80 * 10) / seconds / 1e12
                row(f"{what}, products", round(1e6 * seconds, 1), "us", f"{speed:.1f} TFLOP/s")
            with reported(f"{what}, difference"):
                row(f"{what}, difference", difference(h, networks, loader))


def clustering(options: Options) -> None:
    """Section: distances and linkage of the neurons of many students."""
    from scipy.cluster import hierarchy

    from extraction.clustering import condensed_distances
    from platforms.platform import get_platform
    from testing.benchmarks.clustering import WIDTH, planted

    vectors = planted(options.size(20_000, 800) // WIDTH)[0].to(get_platform().torch_device)
    with reported("product"):
        row("product", round(seconds_of(lambda: vectors @ vectors.T, 3), 4), "s", "float64, all at once")
    condensed = None
    with reported("distances"):
        start = synchronised()
        condensed = condensed_distances(vectors, False)
        row("distances", round(synchronised() - start, 3), "s", f"{len(vectors)} vectors")
    with reported("linkage"):
        start = time.perf_counter()
        hierarchy.linkage(condensed, "average")
        row("linkage", round(time.perf_counter() - start, 3), "s", "scipy, on the CPU")


def tests(options: Options) -> None:
    """Section: the tests that need a GPU to say the most."""
    command = [sys.executable, "-m", "unittest", "-v", *(TESTS[1:] if options.quick else TESTS)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    counts, lines = {"passed": 0, "failed": 0, "errors": 0, "skipped": 0}, []
    ends = {"ok": "passed", "FAIL": "failed", "ERROR": "errors", "skipped": "skipped"}
    for line in process.stderr or ():
        lines.append(line)
        ended = re.search(r"\.\.\. (ok|FAIL|ERROR|skipped)\b", line) or re.match(r"(ok|FAIL|ERROR|skipped)\b(?!:)", line)
        if ended:
            counts[ends[ended[1]]] += 1
            for name, count in counts.items():
                row(name, count, "tests")
        if re.match(r"(FAIL|ERROR): ", line):
            row(line.strip(), "see the log of the JSON file")
    row("unittest", lines[-1].strip() if lines else "nothing", remark=f"exit status {process.wait()}")
    row("log", "".join(lines)[-LOG:])


SECTIONS = {"card": card, "quick start": quick_start, "convolutions": convolutions, "students": students, "clustering": clustering}
SECTIONS["tests"] = tests  # last, for the time that the others leave
WEIGHTS = {"card": 1, "quick start": 2, "convolutions": 3, "students": 3, "clustering": 2, "tests": 4}


# The command


class Report:
    """The table so far, which is kept in a file."""

    def __init__(self, path: str | None, options: Options):
        self.path, self.started = path, time.time()
        self.content = {"options": dataclasses.asdict(options), "started": time.strftime("%Y-%m-%d %H:%M:%S"), "rows": [], "logs": {}}

    def add(self, section: str, entry: dict[str, object]) -> None:
        """Adds a row, or replaces the one with its name, and writes the file."""
        if entry["what"] == "log":
            self.content["logs"][section] = entry["value"]
        else:
            entry, rows = {"section": section, **entry}, self.content["rows"]
            same = [place for place, known in enumerate(rows) if (known["section"], known["what"]) == (section, entry["what"])]
            if same:
                rows[same[0]] = entry
            else:
                rows.append(entry)
        self.content["seconds"] = round(time.time() - self.started, 1)
        if self.path:
            aside = f"{self.path}.new"
            Path(aside).write_text(json_text.dumps(self.content, indent=1) + "\n")
            os.replace(aside, self.path)

    def table(self, section: str) -> str:
        """The rows of a section, aligned."""
        rows = [entry for entry in self.content["rows"] if entry["section"] == section]
        width = max((len(entry["what"]) for entry in rows), default=0)
        lines = [f"    {entry['what']:<{width}}  {entry['value']} {entry['unit']}  {entry['remark']}".rstrip() for entry in rows]
        return "\n".join([section, *lines])


def run_section(name: str, options: Options, seconds: float, report: Report) -> None:
    """Runs a section as a process of its own, and stops it after some seconds; what it has reported by then stays."""
    command = [sys.executable, "-m", "testing.benchmarks.gpu", "--section", name, "--device", options.device]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {})
    with tempfile.TemporaryFile("w+") as errors:
        command += ["--quick"] if options.quick else []
        pipes = {"stdout": subprocess.PIPE, "stderr": errors, "text": True, "start_new_session": True}
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes)
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=lambda: [*map(lines.put, process.stdout or ()), lines.put(None)], daemon=True)
        reader.start()
        end = time.monotonic() + seconds
        try:
            while (line := lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
                if line.startswith(MARK):
                    report.add(name, json.loads(line.removeprefix(MARK)))
            status = process.wait(timeout=max(1.0, end - time.monotonic()))
            if status:
                report.add(name, {"what": "ended", "value": "ERROR", "unit": "", "remark": f"exit status {status}"})
        except (queue.Empty, subprocess.TimeoutExpired):
            report.add(name, {"what": "ended", "value": "STOPPED", "unit": "", "remark": f"after its {seconds:.0f} s"})
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(GRACE)
        if process.stdout and not reader.is_alive():
            process.stdout.close()
        errors.seek(0)
        printed = errors.read()[-LOG:]
        if printed.strip() and name not in report.content["logs"]:
            report.add(name, {"what": "log", "value": printed})


def main() -> int:
    """Runs the benchmark, or one section of it; returns the exit status, 1 where a section has an error."""
    parser = argparse.ArgumentParser(description="Measures what a GPU does with this program.")
    parser.add_argument("--output", help="the JSON file that is written")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where to run (default: cuda)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the command itself")
    parser.add_argument("--seconds", type=float, default=470.0, help="how long all of it may take (default: 470)")
    parser.add_argument("--sections", default=",".join(SECTIONS), help=f"which, joined by commas (default: {','.join(SECTIONS)})")
    parser.add_argument("--section", choices=list(SECTIONS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = Options(args.device, args.quick)
    if args.section:
        with reported("section"):
            SECTIONS[args.section](options)
        return 0
    names = [name.strip() for name in args.sections.split(",")]
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"argument --sections: {', '.join(sorted(unknown))} is unknown; valid: {', '.join(SECTIONS)}")
    end, report = time.monotonic() + args.seconds - GRACE, Report(args.output, options)
    for place, name in enumerate(names):
        share = WEIGHTS[name] / sum(WEIGHTS[other] for other in names[place:])
        run_section(name, options, max(1.0, share * (end - time.monotonic())), report)
        print(report.table(name), flush=True)
    print(f"{report.content['seconds']:.0f} s in all", flush=True)
    return int(any(entry["value"] in ("ERROR", "STOPPED") for entry in report.content["rows"]))


if __name__ == "__main__":
    sys.exit(main())
