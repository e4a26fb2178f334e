"""The common eigenbasis of matrices that have one, or nearly one, or none."""

import unittest

import torch

from extraction.derivatives.diagonalising import MIXTURES, common_basis
from extraction.derivatives.test.known import normal


def matches(directions: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest 1 - |cos| of true directions from the nearest ones found."""
    cosines = (truth / truth.norm(dim=0)).T @ directions
    return float((1 - cosines.abs().amax(1)).max())


class TestCommonBasis(unittest.TestCase):
    def setUp(self):
        self.basis = normal(6, 6)
        inverse = torch.linalg.inv(self.basis)
        self.matrices = inverse.T @ torch.diag_embed(normal(4, 6, seed=1)) @ inverse

    def test_the_basis_is_found(self):
        found = common_basis(self.matrices, normal(MIXTURES, 2, 4, seed=2))
        self.assertLess(matches(found.directions, self.basis), 1e-12)
        self.assertLess(found.residual, 1e-10)

    def test_all_matrices_together_average_errors(self):
        noise = 1e-5 * self.matrices.abs().max() * normal(4, 6, 6, seed=3)
        found = common_basis(self.matrices + noise + noise.mT, normal(MIXTURES, 2, 4, seed=2))
        self.assertLess(matches(found.directions, self.basis), 1e-4)

    def test_matrices_without_a_common_basis_leave_a_residual(self):
        matrices = normal(4, 6, 6, seed=1)
        self.assertGreater(common_basis(matrices + matrices.mT, normal(MIXTURES, 2, 4, seed=2)).residual, 0.1)
