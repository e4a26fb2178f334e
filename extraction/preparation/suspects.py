"""Rows of a file of answers with gross errors, found before students are trained, so that these rows spoil neither scales nor students.

A row is suspect where a number is far from all others of its column, or where a regression on random functions of the queries misses its
answer by far more than those of other rows. Suspects are set aside, no more: whether they are left out is decided when the network is
known (`extraction/preparation/outliers.py`), and a suspect that the network explains comes back.

Axes: n rows, C columns, F functions.
"""

from __future__ import annotations

import torch

from datasets import repeats
from extraction.network import least_squares
from extraction.preparation.codes import coded
from extraction.preparation.rows import Rows
from foundations import json_text, paths
from foundations.seeds import derive
from models.mlp import with_ones
from platforms.platform import get_platform
from platforms.system import files

MOST = 0.05  # of the rows are suspects, at most
CODED = 0.5  # of the rows have codes for missing values, at most, where these rows are set aside
GAP = 10.0  # a number is far from others where its distance to the median is this many times that of the next nearer number
VARIED = 0.25  # of the numbers of a column differ from its median, at least, where a gap means something
FUNCTIONS = 300  # random functions in the regression
ROWS_PER_FUNCTION = 5
ROUNDS = 4  # regressions, each without the suspects of the one before
MISSED = 25.0  # a suspect is missed by more than this many times the usual error
GROSS = 0.5  # and by more than this many standard deviations of the answers: smaller errors do not spoil students
ROWS = 4000  # that functions are fitted to


def settled(rows: Rows, location: str) -> Rows:
    """The rows without those that students in a run folder do not learn from: those that are kept there, or else the suspects.

    Suspects are then kept. A run that was started without a look at its rows sets none aside.

    Args:
        rows: of the file.
        location: the run folder of the students, before the run is recorded there.
    """
    path = paths.set_aside(location)
    if not get_platform().exists(path):
        if get_platform().exists(paths.hparams_dict(location)):
            return rows
        queries, answers = (torch.cat([getattr(loader.dataset, name) for loader in rows.loaders]) for name in ("examples", "labels"))
        found = torch.cat(rows.numbers)[suspects(queries.double(), answers.double()).cpu()].tolist()
        if not found:
            return rows
        get_platform().on_primary(lambda: get_platform().write(path, json_text.dumps(sorted(found)) + "\n"))
    remedy = "delete the run folder and run the same command again"
    content = files.read_json(path, remedy)
    if not isinstance(content, list) or not all(type(number) is int for number in content):
        raise files.damaged(path, "it is no list of rows", remedy)
    return rows.without(content)


def suspects(queries: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    """Which rows have gross errors, as it seems, `[n]`; none where that would be more than a share MOST.

    Rows with a code for a missing value (`extraction/preparation/codes.py`) are suspects as well, up to a share CODED of the rows.

    Args:
        queries: `[n, inputs]`.
        answers: `[n, outputs]`.
    """
    codes = coded(queries)
    without = codes.any(1)
    if without.sum() > CODED * len(without):
        codes, without = torch.zeros_like(codes), torch.zeros_like(without)
    usual = torch.where(codes, queries.median(0).values, queries)
    extreme = far(torch.cat([usual, answers], 1))
    found = extreme | misses(usual, answers, extreme | without)
    if not bool(found.any()):
        return without
    return without | next((rows for rows in (found, extreme) if rows.sum() <= MOST * len(rows)), torch.zeros_like(found))


def far(values: torch.Tensor) -> torch.Tensor:
    """Which rows of `[n, C]` have a number far from all others of its column, `[n]`.

    The distances to the median, in order, have a gap: one is GAP times the one before. Only gaps among the last MOST of a column that
    varies count: in a column of zeros and a few ones, the ones are not errors.
    """
    distances = (values - values.median(0).values).abs()
    ordered, count = distances.sort(0).values, len(values)
    start = count - max(1, int(MOST * count))
    if start < 1:
        return torch.zeros(count, dtype=torch.bool, device=values.device)
    nearer, further = ordered[start - 1 : -1], ordered[start:]
    gaps = (further > GAP * nearer) & (nearer > 0)
    bounds = torch.where(gaps, nearer, torch.inf).amin(0)  # the nearest gap
    varied = (distances > 0).sum(0) >= VARIED * count
    return ((distances > bounds) & varied).any(1)


def misses(queries: torch.Tensor, answers: torch.Tensor, extreme: torch.Tensor) -> torch.Tensor:
    """Which rows, of those that take part, a robust regression on random functions of the queries misses by far, `[n]`.

    Least squares are repeated without the rows that they miss (least trimmed squares, Rousseeuw 1984). The fit follows a row
    that takes part by its leverage, and leaves less of its error.

    Args:
        queries: `[n, inputs]`.
        answers: `[n, outputs]`.
        extreme: rows that take no part, `[n]`.
    """
    count = min(FUNCTIONS, len(queries) // ROWS_PER_FUNCTION)
    found = torch.zeros_like(extreme)
    if count < 2 * queries.shape[1] + 2:
        return found
    spread = queries[~extreme].std(0)
    x = (queries - queries[~extreme].mean(0)) / torch.where(spread > 0, spread, 1.0)
    functions = _functions(x, count)
    for _ in range(ROUNDS):
        taking = ~(extreme | found)
        errors = _errors(functions, answers, taking)
        usual = repeats.NORMAL * errors[taking].abs().median(0).values
        least = torch.maximum(MISSED * usual, GROSS * answers[taking].std(0)).clamp_min(torch.finfo(errors.dtype).tiny)
        before, found = found, ~extreme & (errors.abs() > least).any(1)
        if torch.equal(before, found) or found.sum() > MOST * len(found):
            break
    return found


def _functions(x: torch.Tensor, count: int) -> torch.Tensor:
    """Random functions of standardised queries `[n, inputs]`, and the queries themselves, `[n, F]`."""
    generator = torch.Generator().manual_seed(derive(0, "suspects"))
    inputs = x.shape[1]
    bends = count - inputs - 1
    directions = torch.randn(inputs, bends, generator=generator, dtype=torch.float64)
    directions = (1.5 * directions / directions.norm(dim=0)).to(x)
    offsets = torch.randn(bends, generator=generator, dtype=torch.float64).to(x)
    sums = x.clamp(-10, 10) @ directions + offsets
    half = bends // 2
    return with_ones(torch.cat([x, torch.relu(sums[:, :half]), torch.tanh(sums[:, half:])], 1))


def _errors(functions: torch.Tensor, answers: torch.Tensor, taking: torch.Tensor) -> torch.Tensor:
    """The errors of a least-squares fit `[n, outputs]`, over the standard deviation that the fit leaves of an error."""
    some = torch.nonzero(taking)[:, 0]
    some = some[:: -(-len(some) // ROWS)]
    orthogonal, _ = torch.linalg.qr(functions[some])
    errors = answers - functions @ least_squares(functions[some], answers[some])
    leverage = orthogonal.square().sum(1).clamp_max(0.99)
    errors[some] = errors[some] / (1 - leverage[:, None]).sqrt()
    return errors
