"""What a recovered network is worth: its certificate, the error bars of its weights, and the content of its report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from extraction import certificate, evaluation, fitting
from extraction.certification import residuals, uncertainty, undetermined
from extraction.certification.checks import Certificate
from extraction.certification.residuals import Points
from extraction.live import fresh
from extraction.refinement import linear_term, linked
from extraction.report import Columns, Derivatives, Report
from extraction.reporting import diagnosis
from extraction.search import Reconstruction
from extraction.session import Session
from models.mlp import FullyConnected


@dataclass(frozen=True)
class Examination:
    """A reconstruction that was examined.

    Attributes:
        session: the extraction, without the rows and columns that were left out in the end.
        result: the reconstruction.
        certificate: what the answers prove.
        noise: the standard deviation of the answers' errors, `[outputs]`; None where the answers are exact.
        errors: the standard errors of the incoming vectors of each layer, for the user's inputs and outputs; None likewise.
        notes: what is to be said of rows and of the stated precision, a sentence each.
    """

    session: Session
    result: Reconstruction
    certificate: Certificate
    noise: torch.Tensor | None
    errors: list[torch.Tensor] | None
    notes: list[str]

    @property
    def left_out(self) -> list[int]:
        """The numbers of the rows that are left out."""
        judgement = self.result.judgement
        return sorted(judgement.left_out) if judgement else []

    @property
    def advice(self) -> list[diagnosis.Advice]:
        """What to try next."""
        return evaluation.advice_on(self.session, self.result, self.certificate)

    @property
    def points(self) -> Points:
        """The errors on the answers."""
        of_logits = None if linked.is_linked(self.session) else self.noise
        return residuals.points(self.session.unscaled, self.result.unscaled, self.certificate, of_logits)

    def report(self, teacher: FullyConnected | None, columns: tuple[list[str], list[str]]) -> Report:
        """The content of the report.

        Args:
            teacher: the network behind the answers, where it is known.
            columns: the names of the inputs and of the outputs; empty where they have none.
        """
        content = evaluation.report_on(self.session.unscaled, self.result.unscaled, teacher, self.certificate)
        open_inputs = self.session.scaling.inputs.open_columns if self.session.scaling else []
        return dataclasses.replace(
            content,
            remarks=evaluation.remarks_on(self.session, self.result, self.certificate, teacher),
            notes=self.notes,
            left_out=self.left_out,
            columns=Columns(*columns, open_inputs),
            derivatives=self._derivatives,
        )

    @property
    def _derivatives(self) -> Derivatives | None:
        """What became of derivatives."""
        recovery = self.result.derivatives
        return Derivatives(list(recovery.lacks), dict(recovery.stages)) if recovery else None


def examine(session: Session, result: Reconstruction) -> Examination:
    """Examines a reconstruction, and saves the error bars of its weights where answers have errors."""
    judgement = result.judgement
    session = judgement.session if judgement else session
    notes = linear_term.saved(session.linear_term, result.unscaled.fit.location)
    notes += [*session.notes, *fitting.overstated(session, result.network), *(judgement.remarks if judgement else []), *result.remarks]
    session = fresh.with_checked_queries(session) if session.teacher and session.rows else session
    session, result, certified = undetermined.certified(session, result)
    noise = errors = None
    if "error_95" in certified:
        noise, errors = certificate.error_bars(session.unscaled, result.unscaled)
        uncertainty.save(result.unscaled.network, errors, result.unscaled.fit.location)
    if session.scaling:
        certified = certified.with_open(session.scaling.open_weights(result.network.sizes[1]))
    return Examination(session, result, certified, noise, errors, notes)
