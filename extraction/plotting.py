"""Pictures of an extraction, one file each.

Axes: N students, n clustered neurons, K recovered and R teacher's neurons, D inputs with the bias last.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from extraction import clustering
from extraction.certification.residuals import Points
from extraction.evaluation import in_gauge_of, match
from extraction.host import to_host
from extraction.network import Layers
from extraction.recovery import RecoveredLayer
from extraction.report import Columns
from extraction.reporting import weight_plots
from extraction.search import Reconstruction
from extraction.symmetry import Symmetry
from training.metric_logger import MetricLogger
from training.plotting import attempt, drawing, figure, fix_places, plottable, save

SHOWN_LEAVES = 500  # of a larger dendrogram only the top merges are drawn: scipy's function recurses as deep as the tree
SHOWN_ROWS = 2000  # of a larger matrix of distances, because a picture has fewer pixels
LEAST_ANGLE = 1e-7  # smaller angles are rounding errors, such as that of a neuron with itself, and drawn as this


@dataclass(frozen=True)
class Shown:
    """What the pictures show.

    Attributes:
        result: the reconstruction.
        teacher: None where its weights are unknown.
        columns: the names of inputs and outputs, and the inputs whose weights no query tells.
        points: the errors on the answers.
        errors: the standard errors of the weights, `[K, D]` for each layer; None where the answers have no errors.
    """

    result: Reconstruction
    teacher: Layers | None
    columns: Columns
    points: Points
    errors: list[torch.Tensor] | None = None


def draw(shown: Shown, students_location: str, folder: str, remedy: str) -> None:
    """Draws all pictures of an extraction. Each one that fails is a warning.

    Args:
        shown: the reconstruction, and what is known of it.
        students_location: the students' run folder, for their losses.
        folder: where the pictures go.
        remedy: how the user gets a picture after a failure.
    """

    def picture(name: str, draw_to: Callable[[str], None]) -> None:
        path = os.path.join(folder, f"{name}.png")
        attempt(path, lambda: draw_to(path), remedy)

    network = Layers.of(shown.result.network)
    if shown.result.losses:
        picture("student_losses", lambda path: student_losses(MetricLogger.load(students_location), path))
    for depth, layer in enumerate(shown.result.layers, start=1):
        picture(f"dendrogram_{depth}", lambda path, layer=layer: dendrogram(layer, path))
        picture(f"distance_matrix_{depth}", lambda path, layer=layer: distance_matrix(layer, path))
        picture(f"cluster_alignment_{depth}", lambda path, layer=layer: cluster_alignment(layer, network.symmetry, path))
    picture("residuals", lambda path: weight_plots.residuals(shown.points, shown.columns.outputs, path))
    for depth, neurons in enumerate(_neurons_of(network, shown, picture), start=1):
        picture(f"weights_{depth}", lambda path, neurons=neurons: weight_plots.weights(neurons(), path))


def _neurons_of(
    network: Layers, shown: Shown, picture: Callable[[str, Callable[[str], None]], None]
) -> Iterator[Callable[[], weight_plots.Neurons]]:
    """What is drawn of every layer; the alignment with the teacher's neurons is drawn on the way where these are known."""
    symmetry, ours = network.symmetry, list(network.vectors)
    known = list(shown.teacher.vectors) if shown.teacher and len(shown.teacher) == len(ours) else []
    ours = in_gauge_of(ours, known, symmetry) if known else ours
    for depth, (mine, true) in enumerate(zip(ours, known or [None] * len(ours), strict=True), start=1):
        is_last = depth == len(ours)
        if true is not None and not is_last:
            picture(f"teacher_alignment_{depth}", functools.partial(teacher_alignment, mine, true, symmetry))
        names = weight_plots.Names(
            "Output layer" if is_last else f"Hidden layer {depth}",
            shown.columns.inputs if depth == 1 else [],
            shown.columns.outputs if is_last else [],
            is_input=depth == 1,
        )
        errors = shown.errors[depth - 1] if shown.errors and true is None else None
        yield functools.partial(_neurons_shown, (mine, true, errors), symmetry, names, shown.columns.open if depth == 1 else [])


@drawing()
def student_losses(logger: MetricLogger, path: str) -> None:
    """The loss of every student during training, on held-out queries."""
    chart, (axis,) = figure(width=6.5)
    points = logger.vectors("test_individual_losses")
    iterations = [iteration for iteration, _ in points]
    for student, losses in enumerate(zip(*(values for _, values in points), strict=True)):
        axis.plot(iterations, plottable(losses), linewidth=1, label=f"student {student}")
    axis.set(yscale="log", xlabel="iteration", ylabel="mean squared error", title="Loss of each student on held-out queries")
    if points and len(points[0][1]) <= 10:
        axis.legend(fontsize=7, ncols=2)
    fix_places(chart)
    save(chart, path)


@drawing()
def dendrogram(layer: RecoveredLayer, path: str) -> None:
    """The merge tree of the clustered neurons, and the height of the cut."""
    from scipy.cluster import hierarchy

    clusters = layer.clustering
    chart, (axis,) = figure(width=11, height=4)
    many = len(clusters.labels) > SHOWN_LEAVES
    options = {"truncate_mode": "lastp", "p": SHOWN_LEAVES} if many else {}
    hierarchy.dendrogram(clusters.tree, ax=axis, no_labels=True, color_threshold=clusters.cut, above_threshold_color="0.6", **options)
    heights = clusters.tree[:, 2]
    axis.set_yscale("log")
    heights = heights[heights > clustering.LEAST_HEIGHT]
    axis.set_ylim(max(heights.min(initial=clusters.cut) / 2, clustering.LEAST_HEIGHT), 2 * heights.max(initial=clusters.cut))
    axis.axhline(
        clusters.cut, color="black", linestyle="--", linewidth=1, label=f"cut at {clusters.cut:.2g}: {clusters.count} accepted clusters"
    )
    axis.set(xlabel=f"{len(clusters.labels)} neurons of all students", ylabel="distance", title="Merge tree")
    axis.legend(loc="upper right")
    fix_places(chart)
    save(chart, path)


@drawing()
def distance_matrix(layer: RecoveredLayer, path: str) -> None:
    """Distances between the clustered neurons, sorted by cluster, neurons in no cluster last; of many neurons, evenly spaced ones."""
    clusters = layer.clustering
    labels = np.where(clusters.labels < 0, clusters.count, clusters.labels)
    order = np.lexsort((clusters.student, labels))
    if len(order) > SHOWN_ROWS:
        order = order[np.linspace(0, len(order) - 1, SHOWN_ROWS).round().astype(int)]
    chart, (axis,) = figure(width=6, height=5.2)
    image = axis.imshow(clusters.distances_among(order), cmap="viridis")
    ends = np.cumsum(np.bincount(labels[order]))[:-1] - 0.5
    for end in ends:
        axis.axhline(end, color="white", linewidth=0.4)
        axis.axvline(end, color="white", linewidth=0.4)
    chart.colorbar(image, ax=axis, label="distance")
    shown = "" if len(order) == len(labels) else f", {len(order)} of {len(labels)} shown"
    axis.set(title=f"Neurons in {clusters.count} clusters{shown}", xlabel="neuron", ylabel="neuron")
    save(chart, path)


@drawing()
def cluster_alignment(layer: RecoveredLayer, symmetry: Symmetry, path: str) -> None:
    """The angle between each member of a cluster and the neuron that was recovered from it."""
    clusters = layer.clustering
    chart, (axis,) = figure(width=max(5.0, 0.3 * clusters.count + 2))
    off = np.zeros(len(clusters.labels))
    for label in range(clusters.count):
        members = np.flatnonzero(clusters.labels == label)
        off[members] = to_host(clustering.angles(layer.vectors[members], layer.incoming[[label]], symmetry.opposite_looks_alike)[:, 0])
    shown = clusters.labels >= 0
    colours = clusters.student[shown] % 10
    axis.scatter(clusters.labels[shown] + 1, np.maximum(off[shown], LEAST_ANGLE), s=9, alpha=0.5, c=colours, cmap="tab10", vmin=0, vmax=9)
    counts = np.bincount(clusters.labels[clusters.labels >= 0])
    axis.set_xticks(range(1, clusters.count + 1), [f"{label}\n({count})" for label, count in enumerate(counts, start=1)], fontsize=7)
    axis.set(yscale="log", xlabel="cluster (number of neurons); one colour per student", ylabel="angle (radians)")
    axis.set_title("Agreement within clusters")
    fix_places(chart)
    save(chart, path)


@drawing()
def teacher_alignment(ours: torch.Tensor, theirs: torch.Tensor, symmetry: Symmetry, path: str) -> None:
    """Cosine similarity between every recovered neuron and every neuron of the teacher, partners on the diagonal."""
    pairs = match(ours, theirs, symmetry)
    ours, theirs = _partners_first(ours, pairs.ours), _partners_first(theirs, pairs.theirs)
    cosines = torch.cos(clustering.angles(ours, theirs, symmetry.opposite_is_equal))
    chart, (axis,) = figure(width=5.4, height=4.6)
    image = axis.imshow(to_host(cosines), cmap="RdBu_r", vmin=-1, vmax=1)
    chart.colorbar(image, ax=axis, label="cosine similarity")
    axis.set(title=f"{len(ours)} recovered neurons, {len(theirs)} teacher neurons", xlabel="teacher's neuron", ylabel="recovered neuron")
    save(chart, path)


def _neurons_shown(
    vectors: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None],
    symmetry: Symmetry,
    names: weight_plots.Names,
    open_inputs: Sequence[int],
) -> weight_plots.Neurons:
    """The recovered neurons of a layer and, where the teacher's weights are known, its neurons, partners in the same places.

    Args:
        vectors: the recovered neurons, the teacher's, and the standard errors of the recovered ones.
        symmetry: of the activation function.
        names: of the layer.
        open_inputs: the inputs whose weights no query tells.
    """
    ours, theirs, errors = vectors
    partners = None
    if theirs is not None and names.is_last:
        partners = to_host(theirs)
    elif theirs is not None:
        pairs = match(ours, theirs, symmetry)
        ours = ours.clone()
        ours[pairs.ours] *= pairs.factors
        ours, partners = _partners_first(ours, pairs.ours), to_host(_partners_first(theirs, pairs.theirs))
    marked = np.zeros(tuple(ours.shape), dtype=bool) if errors is None else ~np.isfinite(to_host(errors))
    marked[:, list(open_inputs)] = True
    return weight_plots.Neurons(names, to_host(ours), marked, partners, None if errors is None else to_host(errors))


def _partners_first(vectors: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """The vectors in the given order, followed by those that it leaves out."""
    rest = [place for place in range(len(vectors)) if place not in set(order.tolist())]
    return torch.cat([vectors[order], vectors[rest]])
