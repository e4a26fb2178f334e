"""The network of a live teacher from its derivatives (`extraction/derivatives/`), as a part of an extraction.

Derivatives need no students and no queries of `--datagen`: they choose their questions themselves. These follow from the answers alone,
and are the same for every seed of a run, so that the ledger answers them when an extraction is resumed or repeated. It ends in the same
bits. A network that they find is examined at fresh queries, which no step has used. Where they refuse, their reason is noted, and students
begin.

Axes: n queries, d inputs, o outputs.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import torch

from datasets.base import DataLoader, Loaders
from datasets.datagen import registry as datagen
from datasets.teacher_dataset import Dataset
from datasets.teachers import registry
from datasets.teachers.base import Teacher
from datasets.teachers.live import LEAST, START, LiveTeacher
from datasets.teachers.stored_answers import AnswerFile
from extraction.answers import Answers
from extraction.certification.large_rank import Design
from extraction.derivatives.profiles import SMOOTH, TWINS
from extraction.derivatives.questions import Questions
from extraction.derivatives.recovering import recover, recover_inside
from extraction.derivatives.result import Lacking, Recovery
from extraction.desc import ExtractionDesc
from extraction.fitting import Fit, fit, gives_answers
from extraction.network import Layers, unknowns_of
from extraction.search import Reconstruction
from extraction.session import Session
from foundations import paths
from foundations.errors import ConfigError
from foundations.extraction_hparams import AUTO, DERIVATIVES, STUDENTS, parse_domain
from foundations.seeds import derive
from foundations.step import Step
from models import registry as models
from models.base import to_bytes
from models.mlp import FullyConnected
from platforms.platform import get_platform
from training.desc import TrainingDesc
from training.metric_logger import MetricLogger
from training.run_records import record
from training.second_order import DENSE_PARAMETERS

USUAL_QUERIES = "random"  # of students, where neither `--datagen` nor `--domain` is given
PHASE = "derivatives"  # of questions
FRESH, HELD_OUT = "fresh", "held out"  # phases of questions that examine the network
IN_VAIN, PER_INPUT = 100_000, 400  # questions of derivatives where students would begin: so many at most, and more for each input
RESERVED = 10  # of so many questions of a budget one is kept for the examination
EQUATIONS, KINKED_EQUATIONS = 5, 12  # at fresh queries for each unknown; the same for networks with kinks
LEAST_FRESH, CHECKED, KINKED_CHECKED = 200, 200, 2000  # fresh queries at least, and held out; the same of large networks with kinks
LEVELS, REACH, FARTHEST = 4, 3.0, 100.0  # distances of fresh queries, in turn; the largest, in radii, at least and at most
TRAINED = Step.from_iteration(1, 1)  # in the name of the file of weights


def comes_first(desc: ExtractionDesc, teacher: Teacher) -> bool:
    """Whether derivatives are tried: as `--seeds_from` says, or by itself for a black box that gives the same answer twice."""
    chosen = desc.extraction_hparams.seeds_from
    return chosen == DERIVATIVES or (chosen == AUTO and isinstance(teacher, LiveTeacher) and not teacher.noise)


def may_come_first(teacher_name: str | None, chosen: str) -> bool:
    """Whether derivatives may be tried of a teacher that is not at hand yet, for a value of `--seeds_from`."""
    if teacher_name is None or chosen == STUDENTS:
        return False
    kind = registry.recognised(teacher_name)
    return issubclass(kind, LiveTeacher) or (chosen == DERIVATIVES and kind is not AnswerFile)


def usual_queries(domain: str | None) -> str:
    """The queries of students where `--datagen` is not given, within a domain where there is one."""
    return USUAL_QUERIES if domain is None else f"box:{domain}"


def with_usual_queries(desc: ExtractionDesc) -> ExtractionDesc:
    """The hyperparameters with queries for students where none are given, and the teacher is asked by derivatives first.

    The queries of the default hyperparameters of a model count as given where they suit its number of inputs.
    """
    dataset = desc.dataset_hparams
    if not may_come_first(dataset.teacher_name, desc.extraction_hparams.seeds_from) or not _is_unsuitable(desc):
        return desc
    return dataclasses.replace(desc, dataset_hparams=dataclasses.replace(dataset, datagen=usual_queries(desc.extraction_hparams.domain)))


def _is_unsuitable(desc: ExtractionDesc) -> bool:
    """Whether there are no queries for students, or only those of the default hyperparameters of a model with other inputs."""
    given, name = desc.dataset_hparams.datagen, desc.model_hparams.model_name
    inputs = models.meta_model(desc.model_hparams).input_size
    if given is None or inputs is None:
        return given is None
    try:
        datagen.resolve(given, inputs, desc.dataset_hparams.samples)
    except ConfigError:
        return given == ExtractionDesc.default_for(name).dataset_hparams.datagen
    return False


def check(desc: ExtractionDesc, teacher: Teacher) -> None:
    """Raises a ConfigError if derivatives are wanted of a teacher that cannot be asked."""
    if desc.extraction_hparams.seeds_from == DERIVATIVES and not teacher.is_askable:
        raise ConfigError(f"--seeds_from: {DERIVATIVES} needs a teacher that can be asked; valid for a file of answers: {STUDENTS}")


def attempt(desc: ExtractionDesc, teacher: Teacher) -> Recovery:
    """What derivatives find of a teacher.

    Args:
        desc: the hyperparameters. The activation function counts only where two are the same function (tanh and sigmoid).
        teacher: ready to be asked.

    Raises:
        ConfigError: derivatives alone are wanted, and the teacher fails.
    """
    h, budget = desc.extraction_hparams, _budget(desc, teacher)
    if budget is not None and budget < 2 * teacher.inputs:
        return refused(f"--query_budget {desc.dataset_hparams.query_budget} is too small for them")
    asked = Questions(_asking(teacher), teacher.inputs, budget, get_platform().torch_device)
    started = time.monotonic()
    try:
        candidates = _candidates(desc.model_hparams.act_fun)
        recovery = recover_inside(asked, parse_domain(h.domain), candidates) if h.domain else recover(asked, candidates)
        return dataclasses.replace(recovery, seconds=round(time.monotonic() - started, 3))
    except ConfigError as error:
        if h.seeds_from == DERIVATIVES:
            raise
        return refused(f"the teacher fails on one of their questions: {error}", asked.count.asked)


def refused(reason: str, queries: int = 0) -> Recovery:
    """Nothing, for a reason."""
    return Recovery(None, math.inf, (reason,), None, queries, ())


def refusal(desc: ExtractionDesc, lacks: Sequence[str]) -> str:
    """A sentence without its full stop about a network that derivatives do not find.

    Raises:
        ConfigError: they alone are wanted.
    """
    reason = f"derivatives do not find the network: {'; '.join(lacks)}"
    if desc.extraction_hparams.seeds_from == DERIVATIVES:
        raise ConfigError(f"--seeds_from: {reason}; valid: {STUDENTS}")
    return reason


def _candidates(act_fun: str) -> list[str]:
    """The activation functions to look for: of two that are the same function, the one that is stated."""
    return [name for name in SMOOTH if name != TWINS.get(act_fun)]


def _budget(desc: ExtractionDesc, teacher: Teacher) -> int | None:
    """How many questions derivatives may ask.

    Where students would begin, these keep half of `--query_budget`, and what may be in vain is limited.
    """
    left = teacher.questions.left if isinstance(teacher, LiveTeacher) else None
    is_alone = desc.extraction_hparams.seeds_from == DERIVATIVES
    most = None if is_alone else IN_VAIN + PER_INPUT * teacher.inputs
    if left is None:
        return most
    kept = left // RESERVED if is_alone else max(left // 2, START + LEAST)
    return max(0, left - kept if most is None else min(most, left - kept))


def _asking(teacher: Teacher) -> Callable[[torch.Tensor], torch.Tensor]:
    """The teacher as a function `[n, d] -> [n, o]`."""
    if isinstance(teacher, LiveTeacher):

        def ask(queries: torch.Tensor) -> torch.Tensor:
            if not len(queries):
                return queries.new_zeros(0, teacher.outputs)
            answers = teacher.ask_all(PHASE, queries).to(queries)
            if not bool(answers.isfinite().all()):
                raise Lacking("some of their questions have answers that tell no outputs, such as a probability of 0")
            return answers

        return ask
    network = teacher.load()
    assert isinstance(network, FullyConnected)  # other teachers are refused
    return lambda queries: network(queries).detach()


def session_of(desc: ExtractionDesc, teacher: Teacher, recovery: Recovery, location: str, seed: int) -> Session:
    """The extraction with fresh queries, at which the network of derivatives is examined.

    Those of a large network show whether the answers determine its weights (`large_rank.py`). Others are at LEVELS distances from the
    origin, so far that every neuron of the first layer switches. Where `--datagen` says which inputs matter, its held-out queries are among
    those held out.

    Args:
        desc: the hyperparameters.
        teacher: ready to be asked.
        recovery: with a network.
        location: the clustering folder.
        seed: of the run.
    """
    layers = recovery.layers
    assert layers is not None
    inputs, outputs = layers.sizes[0], layers.sizes[-1]
    unknowns = layers.unknowns
    equations = KINKED_EQUATIONS if layers.symmetry.positive_scaling else EQUATIONS
    domain = parse_domain(text) if (text := desc.extraction_hparams.domain) else None
    design = Design.of(layers, recovery.radius) if unknowns > DENSE_PARAMETERS and domain is None else None
    wanted = -(-equations * unknowns // outputs)
    if unknowns > DENSE_PARAMETERS and wanted > recovery.queries:
        wanted = 0  # what they would show is not worth that many
    generator, distances = torch.Generator().manual_seed(derive(0, "fresh queries")), _distances(layers, recovery.radius)

    def pairs(count: int, phase: str) -> tuple[torch.Tensor, torch.Tensor]:
        queries = torch.randn(count, inputs, generator=generator, dtype=torch.float64)
        queries = queries * distances[torch.arange(count) % LEVELS, None]
        if domain is not None:
            queries = domain[0] + (domain[1] - domain[0]) * torch.rand(count, inputs, generator=generator, dtype=torch.float64)
        return teacher.ask_for(phase, queries.to(get_platform().torch_device))

    held_out = pairs(KINKED_CHECKED if design is not None and layers.symmetry.positive_scaling else CHECKED, HELD_OUT)
    fresh = pairs(max(LEAST_FRESH, wanted), FRESH) if design is None else teacher.ask_for(FRESH, design.queries)
    if not len(fresh[0]) or not len(held_out[0]):
        raise ConfigError(f"--query_budget: {desc.dataset_hparams.query_budget} leaves no queries to examine the network; use more")
    if desc.dataset_hparams.datagen != datagen.resolve(usual_queries(desc.extraction_hparams.domain), inputs):
        more = teacher.pairs(desc.dataset_hparams, False, seed)
        held_out = torch.cat([held_out[0].cpu(), more.queries.cpu()]), torch.cat([held_out[1].cpu(), more.answers.cpu()])
    loaders = Loaders(*(DataLoader(Dataset(*each), desc.dataset_hparams.batch_size, seed, torch.float64) for each in (fresh, held_out)))
    model_hparams = dataclasses.replace(desc.model_hparams, act_fun=layers.act_fun)
    answers = loaders.train.labels
    precision = Answers.of(answers, desc.extraction_hparams.answers, loaders.train.examples)
    return Session(dataclasses.replace(desc, model_hparams=model_hparams), loaders, location, precision=precision)


def _distances(layers: Layers, radius: float) -> torch.Tensor:
    """The standard deviations of fresh queries, `[LEVELS]`: up to twice the distance of the farthest plane of a first neuron.

    Neurons with a kink are linear nearer to the origin than their planes.
    """
    weights, bias = layers.vectors[0][:, :-1], layers.vectors[0][:, -1]
    planes = bias.abs() / weights.norm(dim=1)
    if layers.symmetry.positive_scaling:
        radius = max(radius, float(planes.median()))
    reach = min(max(2 * float(planes.max()) / radius, REACH), FARTHEST)
    return radius * reach ** torch.linspace(0, 1, LEVELS, dtype=torch.float64)


def reconstruction(session: Session, recovery: Recovery) -> Reconstruction:
    """The network of derivatives in its final folder. Where it does not give the answers to rounding, it is fitted to them first."""
    layers = recovery.layers
    assert layers is not None
    network, model_hparams = layers.to_network(session.students_hparams)
    final = paths.reconstructed_model(session.location)
    fitted = Fit(model_hparams, network, network, final)
    counts = [recovery.queries, *(len(loader.labels) for loader in session.loaders)]
    asked: dict[str, int] = dict(zip((PHASE, FRESH, HELD_OUT), counts, strict=True))
    remarks = _notes(session.desc, layers)
    if not gives_answers(session, network) and unknowns_of(network) <= DENSE_PARAMETERS:
        fitted = fit(session, layers, session.work_folder(PHASE))
        get_platform().move(fitted.location, final)
        fitted = dataclasses.replace(fitted, location=final)
    else:
        get_platform().on_primary(lambda: _save(session, fitted))
    return Reconstruction([], fitted, [], "", [], asked=asked, remarks=remarks)


def _save(session: Session, fitted: Fit) -> None:
    """Writes a network and its hyperparameters to its folder."""
    desc, (inputs, *_, outputs) = session.desc, fitted.network.sizes
    run = TrainingDesc(desc.dataset_hparams, fitted.model_hparams, desc.training_hparams)
    record(run, fitted.location, session.seed, (inputs, outputs))
    state = {name: value.cpu() for name, value in fitted.network.state_dict().items()}
    get_platform().write(paths.model(fitted.location, TRAINED), to_bytes(state))
    MetricLogger().save(fitted.location)


def _notes(desc: ExtractionDesc, layers: Layers) -> list[str]:
    """What is to be said where the network of derivatives is not the one that was stated, a sentence each."""
    stated, found = desc.model_hparams.act_fun, layers.act_fun
    return [] if stated == found else [f"derivatives show that the activation function is {found}, not {stated} (--act_fun)"]
