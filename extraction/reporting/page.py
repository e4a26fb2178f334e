"""The report of an extraction as a page: a single HTML file that contains all pictures and loads no other file.

The page is made from the files of the run and nothing else, so that it can be made again at any time. The template escapes all text.
"""

from __future__ import annotations

import base64
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2

from datasets.teachers import links
from extraction import evaluation
from extraction.refinement import linear_term
from extraction.report import Report
from extraction.reporting import export, verdict, weight_tables
from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import reason
from foundations.extraction_hparams import ExtractionHparams
from foundations.hparams import Hparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from models import registry as models
from platforms.platform import get_platform
from platforms.system import files, provenance

EXPORTED = os.path.basename(paths.exported_program(""))
TEMPLATE = os.path.join(os.path.dirname(__file__), "page.html")
BUNDLES: dict[str, type[Hparams]] = {
    "dataset_hparams": DatasetHparams,
    "model_hparams": ModelHparams,
    "training_hparams": TrainingHparams,
    "extraction_hparams": ExtractionHparams,
}

# The captions of the pictures, in the order of the page; the pictures of a layer have its number in their names.
CAPTIONS = {
    "student_losses": "The loss of each student during training. Clustering needs students that share neurons; it does not need "
    "exact students.",
    "dendrogram": "The merge tree of the students' neurons. Neurons that all students share merge early, at small distances. The tree is "
    "cut at the height around which the number of clusters stays the same for longest.",
    "distance_matrix": "Distances between the students' neurons, sorted by cluster. A dark square on the diagonal is a neuron that "
    "several students contain.",
    "cluster_alignment": "The angle between each member of a cluster and the neuron that was recovered from it.",
    "teacher_alignment": "Cosine similarity between the recovered neurons and the teacher's neurons. Partners are on the diagonal.",
}
WEIGHTS_CAPTION = "The incoming weights of each neuron, on one scale for the layer."
PARTNERS_CAPTION = "The teacher's weights and the recovered ones are shown in one order, with the same signs and scales."
RESIDUALS_CAPTION = "The errors of the network against the answers. Errors that are noise have the same spread everywhere, and no shape."


@dataclass(frozen=True)
class Figure:
    """A picture with its caption; `data` is the picture in base64."""

    data: str
    caption: str


@dataclass(frozen=True)
class Row:
    """A hyperparameter as the page shows it."""

    name: str
    value: object
    meaning: str


def write(location: str, students_location: str, content: Report) -> None:
    """Writes the page of a clustering folder whose pictures are drawn."""
    get_platform().write(paths.page(location), render(location, students_location, content))


def render(location: str, students_location: str, content: Report) -> str:
    """The text of the page."""
    names = [name.removesuffix(".png") for name in get_platform().listdir(paths.plots(location)) if name.endswith(".png")]
    pictures = [_figure(location, name, caption) for kind, caption in CAPTIONS.items() for name in _of_kind(kind, names)]
    compared = content.layers[0].matched is not None
    caption = f"{WEIGHTS_CAPTION} {PARTNERS_CAPTION}" if compared else WEIGHTS_CAPTION
    chosen, defaults = _hyperparameters(location, students_location)
    with get_platform().open(TEMPLATE) as file:
        environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        template = environment.from_string(file.read())
    return template.render(
        report=content,
        verdict=verdict.of(content),
        next_steps=verdict.next_steps(content),
        rows=verdict.rows(content),
        matched=f"{evaluation.MATCHED:.0e}",
        identified=f"{evaluation.IDENTIFIED:.0e}",
        tables=weight_tables.of(location, content),
        weights=[_figure(location, name, caption, len(content.layers)) for name in _of_kind("weights", names)],
        rebuilding="\n".join(_rebuilding(location, content)),
        exported=EXPORTED if get_platform().exists(paths.exported_program(location)) else "",
        residuals=[_figure(location, name, RESIDUALS_CAPTION) for name in _of_kind("residuals", names)],
        pictures=pictures,
        chosen=chosen,
        defaults=defaults,
        links=links.MEANINGS,
        origin=_origin(location, students_location),
    )


def _rebuilding(location: str, content: Report) -> list[str]:
    """The lines of Python that rebuild the network; none where its weights are not there."""
    folder = paths.reconstructed_model(location)
    layers = weight_tables.layers_in(folder)
    if not layers:
        return []
    sizes = [layers[0].shape[1] - 1, *map(len, layers)]
    linear = os.path.abspath(os.path.join(folder, linear_term.FILE))
    term = linear if get_platform().exists(linear) else None
    return export.lines(sizes, content.act_fun, os.path.abspath(models.latest_weights_file(folder)), term)


def _of_kind(kind: str, names: Sequence[str]) -> list[str]:
    """The pictures of a kind, by the number of their layer."""
    matching = [name for name in names if re.fullmatch(rf"{kind}(_\d+)?", name)]
    return sorted(matching, key=lambda name: (len(name), name))


def _figure(location: str, name: str, caption: str, layers: int | None = None) -> Figure:
    """A picture with a caption, which says the layer where there is one; the last of some layers is the output layer."""
    with get_platform().open(os.path.join(paths.plots(location), f"{name}.png"), "rb") as file:
        data = base64.b64encode(file.read()).decode()
    layer = re.search(r"_(\d+)$", name)
    if layer is None:
        return Figure(data, caption)
    return Figure(data, f"{'Output layer' if int(layer[1]) == layers else f'Hidden layer {layer[1]}'}. {caption}")


def _hyperparameters(location: str, students_location: str) -> tuple[list[Row], list[Row]]:
    """The hyperparameters that differ from their defaults, and those that do not."""
    path, remedy = paths.hparams_dict(students_location), f"move {students_location} away to start again"
    own = files.read_json(paths.hparams_dict(location, "extraction_"), remedy)
    students = files.read_json(path, remedy)
    try:
        if not isinstance(students, dict):
            raise TypeError("no bundles of hyperparameters")
        values = {**students, "extraction_hparams": own}
        groups = [(kind, field, values[name]) for name, kind in BUNDLES.items() for field, _ in kind.hyperparameters()]
        fields = [(kind, field, group.get(field.name, field.default)) for kind, field, group in groups]
    except (KeyError, TypeError, AttributeError) as error:
        raise files.damaged(path, f"not all hyperparameters: {reason(error)}", remedy) from None
    chosen, defaults = [], []
    for kind, field, value in fields:
        if field.name == "training_steps" and isinstance(value, str):
            trained = paths.trained_steps(get_platform().listdir(students_location), value)
            if trained != value:
                chosen.append(Row("trained_steps", trained, "How long the students were trained in the end."))
        row = Row(field.name, "" if value is None or value is dataclasses.MISSING else value, getattr(kind, f"_{field.name}", ""))
        (defaults if value == field.default else chosen).append(row)
    return chosen, defaults


@dataclass(frozen=True)
class Origin:
    """Where a report comes from.

    Attributes:
        command: the command that made it.
        students_command: the command that trained the students, where it is another.
        facts: when, with which versions and on which machine it was made.
    """

    command: str
    students_command: str | None
    facts: dict[str, str]


def _origin(location: str, students_location: str) -> Origin | None:
    """Where the report comes from; None for a run from before this was recorded."""
    own, students = provenance.read(location), provenance.read(students_location)
    if own is None:
        return None
    other = students.get("command") if students and students.get("command") != own.get("command") else None
    starts = [str(start.get("time")) for start in own["starts"]]
    facts = {
        "seed": own.get("seed"),
        "started": ", resumed ".join(starts),
        "revision": f"{own['revision']}{', with uncommitted changes' if own.get('dirty') else ''}" if own.get("revision") else "unknown",
        "versions": _listed(own.get("versions")),
        "device": _listed(own.get("device")),
        "threads": own.get("threads"),
        "host": own.get("host"),
        "system": own.get("system"),
        "platform": own.get("platform"),
    }
    return Origin(str(own.get("command")), other, {name: str(value) for name, value in facts.items()})


def _listed(values: object) -> str:
    """A mapping or a sequence in a line."""
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)
