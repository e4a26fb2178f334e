"""Queries that cover a cube evenly."""

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.stats import qmc

from datasets.datagen.grid import Grid
from foundations.errors import ConfigError
from testing.test_case import TestCase

EDGE = 3**0.5


def make(count: int, inputs: int, train: bool = True, seed: int = 0) -> torch.Tensor:
    return Grid().generate(count, train, inputs, torch.Generator().manual_seed(seed))


def in_unit_cube(queries: torch.Tensor) -> np.ndarray:
    return ((queries.double() / EDGE + 1) / 2).clamp(0, 1).numpy()


def levels(queries: torch.Tensor) -> list[np.ndarray]:
    """The different values along each axis in ascending order, up to rounding errors."""
    return [np.unique(axis.numpy().round(4)) for axis in queries.T]


def noise(count: int, inputs: int) -> list[np.ndarray]:
    return [np.random.RandomState(seed).rand(count, inputs) for seed in range(5)]


def hole_and_gap(points: np.ndarray, probes: np.ndarray) -> tuple[float, float]:
    """The largest distance of a probe to its nearest point, and the smallest distance of two points."""
    tree = KDTree(points)
    return tree.query(probes)[0].max(), tree.query(points, k=2)[0][:, 1].min()


class GridTest(TestCase):
    def test_the_number_of_queries_is_the_count_and_all_differ(self):
        for inputs in (1, 2, 3, 4, 7):
            for count in (1, 2, 3, 5, 8, 28, 57, 64, 100):
                with self.subTest(inputs=inputs, count=count):
                    self.assertEqual(make(count, inputs).shape, (count, inputs))
                    self.assertEqual(len(make(count, inputs).unique(dim=0)), count)

    def test_test_queries_are_a_quarter_of_the_count_rounded_up(self):
        self.assertEqual([len(make(count, inputs, train=False)) for inputs in (2, 5) for count in (1, 5, 400)], [1, 2, 100] * 2)

    def test_queries_fill_the_cube_and_stay_within_it(self):
        for inputs in (1, 2, 3, 4, 64):
            queries = make(4096, inputs)
            self.assertLessEqual(queries.abs().max().item(), EDGE + 1e-6)
            torch.testing.assert_close(queries.mean(0), torch.zeros(inputs), rtol=0, atol=0.06)
            torch.testing.assert_close(queries.var(0), torch.ones(inputs), rtol=0, atol=0.02)
            self.assertTrue((queries.amax(0) - queries.amin(0) > 2 * EDGE * 15 / 16 - 1e-4).all())

    def test_a_count_that_is_a_power_gives_a_full_lattice_with_equal_steps(self):
        for inputs, side in ((1, 50), (2, 9), (3, 5), (3, 7)):
            queries = make(side**inputs, inputs)
            axes = levels(queries)
            self.assertEqual([len(axis) for axis in axes], [side] * inputs)
            for axis in axes:
                np.testing.assert_allclose(np.diff(axis), 2 * EDGE / side, atol=3e-4)
            self.assertEqual(len({tuple(query) for query in queries.numpy().round(4).tolist()}), side**inputs)

    def test_other_counts_give_sides_as_equal_as_possible(self):
        self.assertEqual([len(axis) for axis in levels(make(56, 2))], [8, 7])
        self.assertEqual([len(axis) for axis in levels(make(100, 3))], [5, 5, 4])

    def test_omitted_points_are_spread_evenly_over_the_lattice(self):
        for count, inputs in ((50, 2), (57, 2), (95, 2), (28, 3), (1001, 3)):
            queries = make(count, inputs)
            _, in_line = queries[:, :-1].unique(dim=0, return_counts=True)
            self.assertGreaterEqual(in_line.min().item(), len(levels(queries)[-1]) - 1)

    def test_a_lattice_has_smaller_holes_and_larger_distances_than_uniform_noise(self):
        for inputs in (1, 2, 3):
            probes = np.random.RandomState(9).rand(4000, inputs)
            holes, gaps = zip(
                *(hole_and_gap(points, probes) for points in (in_unit_cube(make(500, inputs)), *noise(500, inputs))), strict=True
            )
            self.assertLess(holes[0], min(holes[1:]))
            self.assertGreater(gaps[0], 3 * max(gaps[1:]))

    def test_a_sobol_sequence_has_a_lower_discrepancy_than_uniform_noise(self):
        for inputs in (4, 8):
            ours = qmc.discrepancy(in_unit_cube(make(500, inputs)))
            self.assertLess(ours, min(map(qmc.discrepancy, noise(500, inputs))) / 2)

    def test_each_64th_of_every_axis_has_one_of_64_points_of_a_sobol_sequence(self):
        cells = (in_unit_cube(make(64, 20)) * 64).astype(int)
        for axis in cells.T:
            self.assertEqual(sorted(axis.tolist()), list(range(64)))

    def test_training_and_test_have_no_common_queries_for_equal_numbers(self):
        for inputs in (1, 2, 3, 4):
            both = torch.cat([make(64, inputs), make(256, inputs, train=False, seed=1)])
            self.assertEqual(len(both.unique(dim=0)), 128)

    def test_all_randomness_comes_from_the_generator(self):
        before = torch.get_rng_state()
        for inputs in (2, 5):
            self.assertTrue(torch.equal(make(30, inputs), make(30, inputs)))
            self.assertFalse(torch.isin(make(30, inputs), make(30, inputs, seed=1)).all())
        self.assertTrue(torch.equal(torch.get_rng_state(), before))

    def test_more_inputs_than_dimensions_of_a_sobol_sequence_are_refused(self):
        Grid().check("grid", 21201, None)
        with self.assertRaisesRegex(ConfigError, "^--datagen: grid generates queries of at most 21201 values; the teacher takes 21202$"):
            Grid().check("grid", 21202, None)
