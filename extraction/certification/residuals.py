"""What a recovered network leaves of the answers, output by output, in a unit that says how large errors may be.

Axes: Q queries, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from datasets.base import DataLoader
from extraction.answers import Answers, spreads
from extraction.certification.checks import Certificate
from extraction.report import OutputErrors, Residuals
from extraction.search import Reconstruction
from extraction.session import Session
from models.mlp import FullyConnected

ROUNDINGS = "roundings of float64 (of the largest answer of the output)"
ESTIMATED = "standard deviations of the answers' errors, as estimated from the answers for training"
SPREADS = "standard deviations of the output"


@dataclass(frozen=True)
class Points:
    """The errors of a network.

    Attributes:
        unit: what the errors are counted in, as text.
        units: the unit of each output, `[O]`.
        answers: for training and held out, `[Q, O]` each.
        errors: of the network's outputs, in `units`, likewise.
    """

    unit: str
    units: torch.Tensor
    answers: tuple[torch.Tensor, torch.Tensor]
    errors: tuple[torch.Tensor, torch.Tensor]

    @property
    def summary(self) -> Residuals:
        """The size of the errors of each output."""
        figures = [part for errors in self.errors for part in (errors.square().mean(0).sqrt(), errors.abs().amax(0))]
        return Residuals(self.unit, [OutputErrors(*values) for values in torch.stack([self.units, *figures]).T.tolist()])


@torch.no_grad()
def points(session: Session, result: Reconstruction, certificate: Certificate, noise: torch.Tensor | None) -> Points:
    """The errors of a network of the user's inputs and outputs, for the user's queries and answers.

    Args:
        session: the extraction, unscaled.
        result: the reconstruction, likewise. The network before its last fit is judged by the held-out answers where these joined that fit.
        certificate: of the network.
        noise: the estimated standard deviation of the answers' errors, `[O]`; None where it was not estimated.
    """
    unit, units = _units(session, certificate, noise)
    train, test = session.loaders
    errors = _errors(result.network, train) / units, _errors(result.validated or result.network, test) / units
    return Points(unit, units, (train.labels, test.labels), errors)


def _units(session: Session, certificate: Certificate, noise: torch.Tensor | None) -> tuple[str, torch.Tensor]:
    """The unit of errors: as text, and of each output, `[O]`."""
    answers, given = session.answers, session.desc.extraction_hparams.answers
    if certificate.is_met_exactly:
        largest = answers.abs().amax(0)
        return ROUNDINGS, torch.finfo(answers.dtype).eps * torch.where(largest > 0, largest, 1.0)
    if noise is not None and certificate.fits:
        return ESTIMATED, noise
    known = Answers.of(answers, given)
    if all(known.shares):
        return f"standard deviations of errors with the precision {known.name}", torch.tensor(known.shares).to(answers) * spreads(answers)
    return SPREADS, spreads(answers)


def _errors(network: FullyConnected, loader: DataLoader) -> torch.Tensor:
    return network(loader.examples) - loader.labels
