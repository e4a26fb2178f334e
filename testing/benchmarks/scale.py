"""Large networks from live teachers that answer exactly: the derivatives of `extraction/derivatives/`.

Command:  python -m testing.benchmarks.scale [NAMES]     such as gelu_784_128_10, or patterns such as '*_20_10_3'
Hardware: rows with "quiet": two cores with nothing else running. Others: one thread of two cores with a load of 10 to 19, so that seconds
          are four to eight times those of CPU.
Prints:   a line for each target: queries, the worst weight error of each layer after matching (relative to its largest weight), the
          worst error of an output on fresh inputs, seconds, device. The exit status is 0 if all targets are within their bounds.
          `--picture PATH` draws queries and seconds against the number of unknowns (`.github/cost.png`).
Result:   (n=1 each; the numbers to beat are of other teachers of the same kind)

| target | queries | worst weight error | seconds (CPU) | to beat |
|---|---|---|---|---|
| 784-128-64-10 tanh, P, quiet | 149,262 | 4e-14 | 10.1 (19.7) | 4.6e-13, 1.79 million, 750 s on a GPU |
| 784-128-64-10 gelu, P | 301,835 | 8e-14 | 362 (58) | |
| 784-128-64-10 leaky relu, P, quiet | 162,895 | 1e-13 | 17.3 (34.0) | fails (3.4) |
| 300-128-50 leaky relu, P | 47,450 | 3e-13 | (4.9) | |
| 3072-256-100 leaky relu, P, quiet | 194,679 | 1e-12, just over its bound | 69 (127) | 8.3e-8, 3.2 million, 257 s on a GPU |
| 784-128-10, five smooth functions, P, quiet | 68,318 to 68,473 | 5e-15 to 2e-14 | 3.2 to 4.6 (6 to 9) | prototype: directions, 158,656 |
| 784-128-1 relu, C | 224,880 (four seeds: up to 233,569) | 1e-14 (2^-46) | (2.8) | outputs 2^-25, 2^21.5, under an hour |
| 80-40-20-1 relu, C, quiet | 49,288 (2^15.6) | 8e-14 (2^-43) | 1.2 (2.4) | outputs 2^-40.4, 2^18.5 |
| 64-128-64 gelu; silu, P, quiet | 56,997; 71,864 | 4e-14 | 2.3 (4.6); 2.4 (4.9) | cosine 0.92; 0.94, 20,193 |
| 80-40-1 relu, C | 11,586 | 2e-14 | 0.9 (0.2) | |
| 200-64-32-10 tanh; leaky relu, P | 45,693; 37,548 | 9e-15; 1e-14 | 10 (1.9) | |
| 20-12-8-3 tanh; sigmoid, P | 6,800 | 6e-15; 2e-12 | 0.8 (0.1) | |
| 20-10-5-3 gelu, silu, g, P | 6,154 to 7,916 | 3e-14 | 3.3 (0.5) | |
| 20-10-5-1 relu, C; 40-20-10-3 relu, P | 8,373; 10,125 | 4e-15 | 1.6 (0.3) | |
| 20-12-8-5-3 leaky relu, P | 15,138 | 1e-12 | 7.8 (1.5) | |
| 64-32-10 and 20-10-3, five smooth functions and g, P | 5,600 and 2,800 | 1e-14 | 1.3 (0.3) | |
| 8-16-8 gelu, silu, softplus, P | 3,528 to 12,418 | 2e-14 | 2.5 (0.5) | |
| 20-10-3 and 64-32-10, five smooth functions and g, P, inputs in 0..1 | 2,444 and 5,327 | 2e-11 | 4.2 (2.1) | |
| 784-128-10 tanh and softplus, P, inputs in -1..1 | 68,146 | 3e-13 | 14 (7.6) | |
| 80-40-10 leaky relu, P | 10,430 | 1e-13 | 1.7 (0.3) | |

Not reached: three hidden layers of tanh (the first layer is found), of relu, gelu, silu and softplus (refused; leaky relu is found); more
neurons than inputs with two hidden layers, or with tanh; a second hidden layer that is wider than the first; a neuron of the second layer
that is never or always active where all of the first layer are (relu, gelu, silu, softplus: 1 of 13 networks 20-10-5-3); answers with links
(softmax); inputs within bounds where there is more than one hidden layer, or relu, or more neurons than inputs (784-128-10 gelu in 0..1
ends with answers that are 2e-8 off, after 128 s: the fit converges slowly where sums vary less than their means); without stated bounds,
inputs whose centre is far from 0 (shift them). Answers of float32, and noise of 1e-8: gelu and tanh 20-10-3 are found with errors of 1e-7
to 3e-7, gelu 64-32-10 from float32 with 2e-7, tanh 64-32-10 not (4 neurons are not alone); relu and deep networks are refused.

Teachers: *P* have PyTorch's default initialisation and are trained for 200 steps by Adam (1e-3, batches of 256, cross-entropy) on 2,000
smooth random images with random labels, which stand for the images and labels of published teachers: the same kind of network, not the
same network. *C* (Carlini et al. 2020) have weights N(0, 1) / sqrt(width) and biases 0, and are trained by Adam 3e-4 for 100 epochs of
batches of 4 on 20 Gaussian inputs with targets 0 and 1. The activation function and the widths are not given. A sigmoid network and a
tanh network are the same functions, so that either counts as right.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import torch
from matplotlib import pyplot

from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import recover, recover_inside
from extraction.evaluation import score
from extraction.network import Layers
from foundations.seeds import derive

matplotlib.use("agg")
IMAGES, BATCH, STEPS = 2000, 256, 200  # of training P
INPUTS, EPOCHS = 20, 100  # of training C


@dataclass(frozen=True)
class Target:
    """A teacher and the bounds that its recovery is to meet."""

    act_fun: str
    sizes: tuple[int, ...]
    kind: str
    error: float
    queries: int
    seconds: float
    domain: tuple[float, float] | None = None  # of every input

    @property
    def name(self) -> str:
        """Such as `tanh_784_128_10`, or `tanh_784_128_10@0:1` with a domain."""
        return self.network + ("" if self.domain is None else "@{:g}:{:g}".format(*self.domain))

    @property
    def network(self) -> str:
        """The name of the teacher."""
        return "_".join([self.act_fun, *map(str, self.sizes)])

    @property
    def unknowns(self) -> int:
        """The number of weights and biases."""
        return sum((inputs + 1) * width for inputs, width in zip(self.sizes, self.sizes[1:], strict=False))


TARGETS = [
    *(Target(act, (20, 10, 3), "P", 1e-12, 20_000, 5) for act in ("tanh", "sigmoid", "gelu", "silu", "softplus", "g")),
    *(Target(act, (64, 32, 10), "P", 1e-12, 50_000, 10) for act in ("tanh", "sigmoid", "gelu", "silu", "softplus", "g")),
    *(Target(act, (784, 128, 10), "P", 1e-12, 200_000, 30) for act in ("tanh", "sigmoid", "gelu", "silu", "softplus")),
    Target("tanh", (20, 12, 8, 3), "P", 1e-13, 40_000, 10),
    Target("sigmoid", (20, 12, 8, 3), "P", 1e-11, 40_000, 10),
    Target("tanh", (200, 64, 32, 10), "P", 1e-13, 100_000, 20),
    Target("tanh", (784, 128, 64, 10), "P", 1e-13, 400_000, 60),
    *(Target(act, (8, 16, 8), "P", 1e-11, 20_000, 10) for act in ("gelu", "silu", "softplus")),
    *(Target(act, (64, 128, 64), "P", 1e-9, 200_000, 1200) for act in ("gelu", "silu")),
    *(Target(act, (20, 10, 5, 3), "P", 1e-11, 20_000, 10) for act in ("gelu", "silu", "g")),
    Target("gelu", (784, 128, 64, 10), "P", 1e-9, 400_000, 600),
    *(Target(act, (20, 10, 3), "P", 1e-10, 5_000, 5, (0, 1)) for act in ("tanh", "sigmoid", "gelu", "silu", "softplus", "g")),
    *(Target(act, (64, 32, 10), "P", 1e-10, 10_000, 10, (0, 1)) for act in ("tanh", "sigmoid", "gelu", "silu", "softplus", "g")),
    *(Target(act, (784, 128, 10), "P", 1e-11, 200_000, 60, (-1, 1)) for act in ("tanh", "softplus")),
    Target("relu", (20, 10, 1), "C", 2**-40, 2**14, 5),
    Target("relu", (80, 40, 1), "C", 2**-40, 2**16, 10),
    Target("relu", (784, 128, 1), "C", 2**-40, 2**18, 60),
    Target("relu", (20, 10, 5, 1), "C", 2**-40, 2**14, 5),
    Target("relu", (40, 20, 10, 3), "P", 1e-12, 2**15, 5),
    Target("relu", (80, 40, 20, 1), "C", 2**-42, 2**18, 300),
    Target("leaky_relu", (20, 10, 3), "P", 1e-12, 2**14, 5),
    Target("leaky_relu", (80, 40, 10), "P", 1e-12, 2**16, 10),
    Target("leaky_relu", (20, 12, 8, 5, 3), "P", 1e-9, 2**15, 20),
    Target("leaky_relu", (200, 64, 32, 10), "P", 1e-9, 100_000, 30),
    Target("leaky_relu", (784, 128, 64, 10), "P", 1e-9, 400_000, 600),
    Target("leaky_relu", (300, 128, 50), "P", 1e-12, 200_000, 60),
    Target("leaky_relu", (3072, 256, 100), "P", 1e-12, 3_200_000, 1200),
]


def teacher(target: Target, seed: int = 0) -> Layers:
    """The network to recover."""
    generator = torch.Generator().manual_seed(derive(seed, "scale", target.network))
    return {"P": trained_on_images, "C": trained_on_noise}[target.kind](target, generator)


def trained_on_images(target: Target, generator: torch.Generator) -> Layers:
    """A teacher of kind P."""
    vectors = []
    for inputs, width in zip(target.sizes, target.sizes[1:], strict=False):
        vectors.append((2 * torch.rand(width, inputs + 1, generator=generator, dtype=torch.float64) - 1) / inputs**0.5)
    x = smooth_images(target.sizes[0], generator)
    y = torch.randint(target.sizes[-1], (IMAGES,), generator=generator)
    batches = [torch.randint(IMAGES, (BATCH,), generator=generator) for _ in range(STEPS)]
    return trained(
        Layers(tuple(vectors), target.act_fun), [(x[rows], y[rows]) for rows in batches], 1e-3, torch.nn.functional.cross_entropy
    )


def trained_on_noise(target: Target, generator: torch.Generator) -> Layers:
    """A teacher of kind C."""
    vectors = []
    for inputs, width in zip(target.sizes, target.sizes[1:], strict=False):
        weights = torch.randn(width, inputs, generator=generator, dtype=torch.float64) / width**0.5
        vectors.append(torch.cat([weights, torch.zeros(width, 1, dtype=torch.float64)], 1))
    x = torch.randn(INPUTS, target.sizes[0], generator=generator, dtype=torch.float64)
    y = torch.randint(2, (INPUTS, target.sizes[-1]), generator=generator).double()
    orders = [torch.randperm(INPUTS, generator=generator).split(4) for _ in range(EPOCHS)]
    batches = [(x[rows], y[rows]) for order in orders for rows in order]
    return trained(Layers(tuple(vectors), target.act_fun), batches, 3e-4, torch.nn.functional.mse_loss)


def smooth_images(pixels: int, generator: torch.Generator) -> torch.Tensor:
    """Standardised random images: blurred noise where there are 28 x 28 pixels, plain noise elsewhere."""
    if pixels != 28 * 28:
        return torch.randn(IMAGES, pixels, generator=generator, dtype=torch.float64)
    coarse = torch.rand(IMAGES, 1, 8, 8, generator=generator, dtype=torch.float64)
    images = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear").flatten(1)
    return (images - images.mean()) / images.std()


def trained(network: Layers, batches: Sequence[tuple[torch.Tensor, torch.Tensor]], lr: float, criterion) -> Layers:
    """A network after steps of Adam."""
    vectors = [each.clone().requires_grad_() for each in network.vectors]
    optimizer = torch.optim.Adam(vectors, lr)
    for x, y in batches:
        optimizer.zero_grad()
        criterion(network.replace(*vectors).pre_activations(x), y).backward()
        optimizer.step()
    return network.replace(*(each.detach() for each in vectors))


def as_tanh(network: Layers) -> Layers:
    """A sigmoid network as the equal one of tanh, by `sigmoid(x) = (1 + tanh(x / 2)) / 2`; others as they are."""
    if network.act_fun != "sigmoid":
        return network
    vectors = list(network.vectors)
    for depth in range(len(vectors) - 1):
        vectors[depth] = vectors[depth] / 2
        following = vectors[depth + 1] / 2
        following[:, -1] = vectors[depth + 1][:, -1] + following[:, :-1].sum(1)
        vectors[depth + 1] = following
    return Layers(tuple(vectors), "tanh")


def layer_errors(found: Layers, truth: Layers) -> list[float]:
    """The worst weight error of each layer; infinite where a width is wrong."""
    found, truth = as_tanh(found), as_tanh(truth)
    if found.sizes != truth.sizes or found.act_fun != truth.act_fun:
        return [float("inf")]
    return [layer.max_weight_error or 0.0 for layer in score(found, truth).layers]


@dataclass(frozen=True)
class Outcome:
    """What the recovery of a target took."""

    target: Target
    within_bounds: bool
    queries: int
    seconds: float  # of CPU


def measure(target: Target, device: str) -> Outcome:
    """Recovers one teacher and prints its line."""
    truth = teacher(target)
    truth = truth.replace(*(vectors.to(device) for vectors in truth.vectors))
    asked = Questions(truth.pre_activations, target.sizes[0], device=device)
    started, cpu = time.monotonic(), time.process_time()
    result = recover(asked) if target.domain is None else recover_inside(asked, target.domain)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    errors, worst = [float("inf")], float("inf")
    if result.layers is not None:
        fresh = torch.randn(1000, target.sizes[0], generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(device)
        if target.domain is not None:
            low, high = target.domain
            fresh = low + (high - low) * torch.special.ndtr(fresh)
        worst = float((result.layers.pre_activations(fresh) - truth.pre_activations(fresh)).abs().max())
        errors = layer_errors(result.layers, truth)
    within = max(errors) <= target.error and result.queries <= target.queries and seconds <= target.seconds
    weights, times = " ".join(f"{error:.0e}" for error in errors), f"{seconds:5.1f} s ({cpu:4.1f} s of CPU)"
    figures = f"{result.queries:9,} queries  weights {weights}  outputs {worst:.0e}  {times}"
    print(f"{target.name:24} {target.kind}  {figures}  {device}  {'within bounds' if within else 'not within bounds'}", flush=True)
    for lack in result.lacks:
        print(f"{'':28}{lack}", flush=True)
    print(f"{'':28}{', '.join(f'{stage} {queries:,}' for stage, queries in result.stages)}", flush=True)
    return (
        Outcome(target, within, result.queries, cpu) if result.layers is not None else Outcome(target, False, result.queries, float("nan"))
    )


PUBLISHED = [  # unknowns, queries, seconds or None, who
    (100_609, 2**21.5, 3600, "Carlini et al. 2020, 784-128-1 relu"),
    (4_081, 2**18.5, None, "Carlini et al. 2020, 80-40-20-1 relu"),
    (109_386, 1.79e6, 750, "Sequencing the Neurome, 784-128-64-10 tanh (GPU)"),
    (812_388, 3.2e6, 257, "the same, 3072-256-100 leaky relu (GPU)"),
]


def draw(outcomes: Sequence[Outcome], path: str) -> None:
    """Draws queries and seconds of CPU against the number of unknowns, beside the published figures."""
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    families = {"relu": "C0", "leaky_relu": "C1", "tanh": "C2", "sigmoid": "C2", "gelu": "C3", "silu": "C3", "softplus": "C3", "g": "C3"}
    labels = {"C0": "relu", "C1": "leaky relu", "C2": "tanh, sigmoid", "C3": "gelu, silu, softplus, g"}
    for axis, name in zip(axes, ("queries", "seconds"), strict=True):
        for colour, label in labels.items():
            some = [each for each in outcomes if families[each.target.act_fun] == colour]
            axis.plot([each.target.unknowns for each in some], [getattr(each, name) for each in some], "o", color=colour, label=label)
        for number, (unknowns, queries, seconds, who) in enumerate(PUBLISHED):
            value = queries if name == "queries" else seconds
            axis.plot([unknowns], [value or float("nan")], "xX*P"[number], color="black", label=who)
        axis.set(xscale="log", yscale="log", xlabel="unknown weights and biases", ylabel={"seconds": "seconds of one core"}.get(name, name))
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside lower center", ncols=4)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    """Measures the targets that are named; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("names", nargs="*", default=["*"], help="names of targets, or patterns; all of them when left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--picture", help="where to draw queries and seconds against the number of unknowns, such as .github/cost.png")
    args = parser.parse_args()
    chosen = [target for target in TARGETS if any(fnmatch.fnmatch(target.name, name) for name in args.names)]
    if not chosen:
        parser.error(f"no target has such a name; valid: {', '.join(target.name for target in TARGETS)}")
    outcomes = [measure(target, args.device) for target in chosen]
    if args.picture:
        draw(outcomes, args.picture)
    return 0 if all(outcome.within_bounds for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
