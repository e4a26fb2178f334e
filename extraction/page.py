"""The report of an extraction as a page that stands alone: one file of HTML with all pictures in it, which asks nobody for anything.

It is made from the files of the run and nothing else, so that it can be made again in no time. All text is escaped.
"""

from __future__ import annotations

import base64
import html
import os
import re
import string
from collections.abc import Mapping, Sequence

from extraction import certificate, evaluation, report
from foundations import paths
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import reason
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from platforms.platform import get_platform
from platforms.system import files, provenance

TEMPLATE = os.path.join(os.path.dirname(__file__), "page.html")
REMEDY = "delete it and run the same command again"
BUNDLES = {
    "dataset_hparams": DatasetHparams,
    "model_hparams": ModelHparams,
    "training_hparams": TrainingHparams,
    "extraction_hparams": ExtractionHparams,
}

# The pictures in the order of the page, and what is to be seen in them; those of a layer have its number in their names.
CAPTIONS = {
    "student_losses": "How well each student imitates the teacher, over its training. The cluster analysis needs students that agree, not "
    "ones that are exact.",
    "dendrogram": "The tree in which the students' neurons merge, nearest first. Neurons that all students share sit close together, far "
    "from the rest: the tree is cut where clusters persist longest.",
    "distance_matrix": "Distances between the students' neurons, sorted by cluster. Dark squares on the diagonal are neurons that "
    "different students have found independently.",
    "cluster_alignment": "How far the members of each cluster point away from the neuron that they became.",
    "teacher_alignment": "Cosine similarity between recovered neurons and the teacher's, partners on the diagonal.",
}

# The figures of the certificate: what each is called, what is required of it, and what it means.
FIGURES = {
    "residual": (
        "Answers missed by",
        f"at most {certificate.FLOOR:.0e}",
        "The largest error on the queries that the network was recovered from, as a share of the spread of the answers. An exact network "
        "leaves rounding errors only.",
    ),
    "held_out_residual": (
        "Held-out answers missed by",
        f"at most {certificate.FLOOR:.0e}",
        "The same on queries that it has never seen.",
    ),
    "equations": (
        "Numbers in the answers",
        "more than unknowns",
        "Every number in an answer is an equation for the weights.",
    ),
    "rank": (
        "Unknowns determined",
        "all of them",
        "How many combinations of weights and biases the answers pin down. If one were missing, weights could change and no answer would.",
    ),
    "weight_error_bound": (
        "Weights uncertain by",
        f"at most {certificate.WEIGHT_ERROR:.0e}",
        "How far the error that is left can have led a weight astray, as a share of the largest in its layer.",
    ),
    "separation": (
        "Nearest two neurons, in radians",
        f"at least {certificate.SEPARATION:.0e}",
        "Two neurons of one direction could divide their work in any proportion, and no answer would tell.",
    ),
    "signs_settled": (
        "Signs settled",
        "yes",
        "Whether no neurons can be turned to their opposites together without a change of the function.",
    ),
    "disagreement": (
        "A rival differs by",
        f"at most {certificate.DISAGREEMENT:.0e}",
        "A second network, disturbed and fitted anew to half of the answers, is compared where gradient ascent finds the two to differ "
        "most, as a share of the spread.",
    ),
    "agreement": (
        "Students with the rarest neuron",
        "",
        "How many of the students that have a say hold the neuron that the fewest of them hold.",
    ),
}


def write(location: str, students_location: str, content: dict) -> None:
    """Writes the page of a clustering folder whose pictures are drawn; `content` is what its report says."""
    try:
        text = render(location, students_location, content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise files.damaged(paths.report(location), f"not a whole report: {reason(error)}", REMEDY) from None
    get_platform().write(paths.page(location), text)


def render(location: str, students_location: str, content: dict) -> str:
    """The text of the page."""
    verdict = report.verdict(content)
    headline, _, rest = verdict.partition(". ")
    found, losses, seconds = content["certificate"], content["students"]["losses"], content["seconds"]
    pictures = [name.removesuffix(".png") for name in get_platform().listdir(paths.plots(location)) if name.endswith(".png")]
    with get_platform().open(TEMPLATE) as file:
        template = string.Template(file.read())
    return template.substitute(
        title=_escape(f"{headline}: {content['model_name']}"),
        tone="bad" if headline.startswith("NOT") else "good",
        headline=_escape(headline),
        verdict=_escape(rest),
        tiles="".join(f"<div><dd>{_escape(value)}</dd><dt>{_escape(name)}</dt></div>" for name, value in _tiles(content).items()),
        compared=_escape(_compared(content)),
        layers=_table(report.rows(content)),
        weights=_weights(location, pictures, content),
        certified="It is <b>accepted</b>." if found["accepted"] else "It is <b>not accepted</b>: what is not met is marked.",
        certificate=_certificate(found),
        fitted=_escape(_fitted(content)),
        pictures="".join(_figure(location, name, caption) for stem, caption in CAPTIONS.items() for name in _of(stem, pictures)),
        students=_table([["student", "mean squared error"], *([str(place), f"{loss:.3e}"] for place, loss in enumerate(losses))]),
        seconds=_table([["phase", "seconds"], *([phase, f"{value:.1f}"] for phase, value in seconds.items())]),
        hparams=_hyperparameters(location, students_location),
        provenance=_provenance(location, students_location),
    )


def _escape(text: object) -> str:
    return html.escape(str(text))


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table of text, its titles first."""
    head, *body = rows
    return f"<thead>{_row(head, 'th')}</thead><tbody>{''.join(_row(row) for row in body)}</tbody>"


def _row(cells: Sequence[str], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{_escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _tiles(content: dict) -> dict[str, str]:
    """What is to be seen at a glance."""
    hidden, error = content["layers"][:-1], content["max_relative_error"]
    tiles = {"activation function": content["act_fun"], "hidden neurons": " + ".join(str(layer["recovered_width"]) for layer in hidden)}
    if error is not None:
        tiles["largest weight error, relative"] = f"{error:.1e}"
    tiles["largest error on fresh queries"] = f"{content['function']['max_abs_error']:.1e}"
    tiles["certificate"] = "accepted" if content["certificate"]["accepted"] else "not accepted"
    return tiles | {"in all": f"{sum(content['seconds'].values()):.0f} s"}


def _compared(content: dict) -> str:
    """What the table of the layers is about."""
    if content["identified"] is None:
        return "Of the teacher only its answers are known, so that there are no weights to compare with."
    return (
        "Neurons are paired with the teacher's one to one, after order, signs and scales are undone, which the outputs cannot tell. A pair "
        f"is matched within a cosine distance of {evaluation.MATCHED:.0e}. The weight error is relative to the largest weight of its "
        f"layer, and at most {evaluation.IDENTIFIED:.0e} in a network that counts as identified."
    )


def _fitted(content: dict) -> str:
    """How close the network was when it was put together, and how close it is now."""
    losses, before, after = content["students"]["losses"], content["before_finetuning"]["function"], content["function"]
    return (
        f"{len(losses)} students, each wider than the teacher, imitated it with a mean squared error of {min(losses):.1e} to "
        f"{max(losses):.1e}. What their neurons share was put together to a network of {content['model_name']}, which missed "
        f"{after['queries']} fresh answers by {before['max_abs_error']:.1e} at most; fine-tuning in double precision took that to "
        f"{after['max_abs_error']:.1e}."
    )


def _of(stem: str, names: Sequence[str]) -> list[str]:
    """The pictures of a kind, by the number of their layer."""
    found = [name for name in names if re.fullmatch(rf"{stem}(_\d+)?", name)]
    return sorted(found, key=lambda name: (len(name), name))


def _figure(location: str, name: str, caption: str) -> str:
    """A picture with a caption, which says the layer where there is one."""
    with get_platform().open(os.path.join(paths.plots(location), f"{name}.png"), "rb") as file:
        data = base64.b64encode(file.read()).decode()
    layer = re.search(r"_(\d+)$", name)
    text = _escape(f"Hidden layer {layer[1]}. {caption}" if layer else caption)
    image = f'<img alt="{text}" src="data:image/png;base64,{data}">'
    return f'<figure><div class="wide">{image}</div><figcaption>{text}</figcaption></figure>'


def _weights(location: str, pictures: Sequence[str], content: dict) -> str:
    """The pictures of the recovered weights; nothing where there are none."""
    caption = "The incoming weights of each recovered neuron, as an image where the inputs are one, else as bars."
    if content["layers"][0]["matched"] is not None:
        caption = f"{caption} Below it its partner in the teacher, after order, signs and scales are undone."
    shown = "".join(_figure(location, name, caption) for name in _of("weights", pictures))
    return f'<section class="weights"><h2>The weights</h2>{shown}</section>' if shown else ""


def _certificate(found: Mapping[str, object]) -> str:
    """The figures of the certificate: what was found, what is required, and what it means."""
    met, rows = certificate.met(found), []
    for name, (title, required, meaning) in FIGURES.items():
        mark, tone = {True: ("✓ ", "met"), False: ("✗ ", "unmet"), None: ("", "")}[met.get(name)]
        value = f'<td class="value {tone}">{mark}{_escape(_figure_of(found, name))}</td>'
        rows.append(f'<tr><td>{_escape(title)}</td>{value}<td class="soft">{_escape(required)}</td><td>{_escape(meaning)}</td></tr>')
    head = "<thead><tr><th>figure</th><th>found</th><th>required</th><th>meaning</th></tr></thead>"
    return f"{head}<tbody>{''.join(rows)}</tbody>"


def _figure_of(found: Mapping[str, object], name: str) -> str:
    """A figure of the certificate as text."""
    value = found[name]
    if value is None:
        return "not examined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "agreement":
        return f"{value:.0%}"
    return f"{value:,} of {found['unknowns']:,}" if name == "rank" else f"{value:,}" if isinstance(value, int) else f"{value:.1e}"


def _hyperparameters(location: str, students_location: str) -> str:
    """All hyperparameters, those that were chosen before those that are at their defaults."""
    path, remedy = paths.hparams_dict(students_location), f"move {students_location} away to start anew"
    own = files.read_json(paths.hparams_dict(location, "extraction_"), remedy)
    try:
        values = {**files.read_json(path, remedy), "extraction_hparams": own}
        groups = [(kind, field, values[name]) for name, kind in BUNDLES.items() for field, _ in kind.hyperparameters()]
        fields = [(kind, field, group.get(field.name, field.default)) for kind, field, group in groups]
    except (KeyError, TypeError, AttributeError) as error:
        raise files.damaged(path, f"not all hyperparameters: {reason(error)}", remedy) from None
    chosen, left = [], []
    for kind, field, value in fields:
        row = f"<tr><td><code>{field.name}</code></td>{_cell(value)}<td>{_escape(getattr(kind, f'_{field.name}', ''))}</td></tr>"
        (left if value == field.default else chosen).append(row)
    tables = [f'<table class="explained"><tbody>{"".join(rows)}</tbody></table>' for rows in (chosen, left)]
    return f"{tables[0]}<details><summary>{len(left)} at their defaults</summary>{tables[1]}</details>"


def _cell(value: object) -> str:
    return f'<td class="value">{"" if value is None else _escape(value)}</td>'


def _provenance(location: str, students_location: str) -> str:
    """The command that made the report, and what is known of where and when."""
    own, students = provenance.read(location), provenance.read(students_location)
    if own is None:
        return "<p>The run is older than the records that say so.</p>"
    parts = [f"<pre>{_escape(own.get('command'))}</pre>"]
    if students and students.get("command") != own.get("command"):
        parts.append(f"<p class='soft'>The students were there already, from</p><pre>{_escape(students.get('command'))}</pre>")
    starts = [start.get("time") for start in own["starts"]]
    facts = {
        "seed": own.get("seed"),
        "begun": ", resumed ".join(map(str, starts)),
        "revision": f"{own['revision']}{', with changes' if own.get('dirty') else ''}" if own.get("revision") else "no checkout",
        "versions": _listed(own.get("versions")),
        "device": _listed(own.get("device")),
        "threads": own.get("threads"),
        "host": own.get("host"),
        "system": own.get("system"),
        "platform": own.get("platform"),
    }
    rows = "".join(f"<tr><td>{name}</td><td>{_escape(value)}</td></tr>" for name, value in facts.items())
    return f'{"".join(parts)}<table class="facts"><tbody>{rows}</tbody></table>'


def _listed(values: object) -> str:
    """A mapping or a sequence in a line."""
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)
