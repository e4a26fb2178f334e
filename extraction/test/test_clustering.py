"""Clusters against scipy, against brute force, and against what was planted."""

import math
import unittest

import numpy as np
import torch
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist, squareform

from extraction.clustering import angles, best_cut, cluster, distances, median_angle, shared_clusters


def planted(neurons=5, students=6, dimensions=8, noise=1e-3, junk=0, seed=0, flip=False):
    """Vectors in which every student has every neuron once, up to noise (and sign), and some junk of its own."""
    random = np.random.default_rng(seed)
    truth = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0][:neurons]
    rows, student, label = [], [], []
    for owner in range(students):
        signs = random.choice([-1, 1], (neurons, 1)) if flip else 1
        own_junk = random.standard_normal((junk, dimensions))
        rows += [signs * truth + noise * random.standard_normal(truth.shape), own_junk / np.linalg.norm(own_junk, axis=1, keepdims=True)]
        student += [owner] * (neurons + junk)
        label += [*range(neurons), *[-1] * junk]
    return torch.from_numpy(np.concatenate(rows)), np.array(student), np.array(label)


def partition(labels):
    """The sets of places with the same label, -1 aside."""
    return {frozenset(np.flatnonzero(labels == label)) for label in set(labels) - {-1}}


class TestDistances(unittest.TestCase):
    def setUp(self):
        self.vectors = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 5)))

    def test_equal_those_of_scipy(self):
        expected = squareform(pdist(self.vectors.numpy()))
        np.testing.assert_allclose(distances(self.vectors, up_to_sign=False).numpy(), expected, atol=1e-7)

    def test_up_to_sign_is_the_shorter_of_both(self):
        v = self.vectors.numpy()
        expected = [[min(np.linalg.norm(a - b), np.linalg.norm(a + b)) for b in v] for a in v]
        np.testing.assert_allclose(distances(self.vectors, up_to_sign=True).numpy(), expected, atol=1e-7)

    def test_angles_equal_arccos(self):
        a, b = self.vectors[0], self.vectors[1]
        expected = math.acos(float(a @ b / a.norm() / b.norm()))
        self.assertAlmostEqual(angles(a[None], b[None], up_to_sign=False).item(), expected)
        self.assertAlmostEqual(angles(a[None], b[None], up_to_sign=True).item(), min(expected, math.pi - expected))

    def test_median_angle_of_three(self):
        vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        self.assertAlmostEqual(median_angle(vectors, up_to_sign=False), math.pi / 4, places=6)
        self.assertEqual(median_angle(vectors[:1], up_to_sign=False), 0.0)


class TestSharedClusters(unittest.TestCase):
    def test_equals_cutting_at_every_merge(self):
        for gamma in (0.1, 0.5, 1.0):
            with self.subTest(gamma=gamma):
                vectors, student, _ = planted(neurons=4, students=5, noise=0.2, junk=3)
                tree = average(pdist(vectors.numpy()))
                expected = []
                for height in tree[:, 2]:
                    raw = fcluster(tree, height, "distance")
                    expected.append(sum(len(set(student[raw == label])) >= gamma * 5 for label in set(raw)))
                np.testing.assert_array_equal(shared_clusters(tree, student, 5, gamma), expected)


class TestCut(unittest.TestCase):
    def test_takes_the_plateau_that_lasts_longest_on_a_logarithmic_axis(self):
        heights = np.array([1e-3, 2e-3, 3e-3, 0.3, 0.31])
        cut = best_cut(heights, np.array([1, 2, 4, 3, 1]), limit=0.5)
        self.assertTrue(3e-3 < cut < 0.3)

    def test_stays_below_the_limit(self):
        cut = best_cut(np.array([1e-3, 0.9]), np.array([3, 1]), limit=0.1)
        self.assertTrue(1e-3 < cut < 0.1)

    def test_passes_over_long_plateaus_with_few_clusters(self):
        cut = best_cut(np.array([1e-9, 1e-2, 1e-1]), np.array([1, 8, 1]), limit=0.5)
        self.assertTrue(1e-2 < cut < 1e-1)

    def test_is_none_where_nothing_is_shared(self):
        self.assertIsNone(best_cut(np.array([0.1, 0.2]), np.array([0, 0]), limit=0.5))

    def test_is_none_where_all_merges_are_above_the_limit(self):
        self.assertIsNone(best_cut(np.array([0.6, 0.7]), np.array([1, 2]), limit=0.5))


class TestCluster(unittest.TestCase):
    def check(self, gamma=0.7, beta=6, up_to_sign=False, **settings):
        vectors, student, label = planted(**settings)
        found = cluster(vectors, student, 6, gamma, beta, up_to_sign)
        self.assertEqual(partition(found.labels), partition(label))
        return found

    def test_finds_what_was_planted(self):
        self.assertEqual(self.check().clusters, 5)

    def test_finds_it_among_junk(self):
        self.check(junk=4)

    def test_finds_it_whatever_the_signs(self):
        self.check(flip=True, up_to_sign=True)

    def test_identical_vectors_are_one_cluster(self):
        self.check(noise=0.0)

    def test_a_cluster_needs_enough_students_not_enough_members(self):
        vectors, student, _ = planted(neurons=2, students=6)
        copies = torch.eye(8, dtype=torch.float64)[7] + 1e-3 * torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
        found = cluster(torch.cat([vectors, copies]), np.append(student, [0] * 10), 6, 0.5, 6, up_to_sign=False)
        self.assertEqual(found.clusters, 2)
        self.assertTrue((found.labels[-10:] == -1).all())

    def test_wide_clusters_are_dropped(self):
        vectors, student, _ = planted(noise=0.02)
        self.assertEqual(cluster(vectors, student, 6, 0.7, 6, up_to_sign=False).clusters, 5)
        self.assertIsNone(cluster(vectors, student, 6, 0.7, 1000, up_to_sign=False))

    def test_is_none_without_clusters_or_vectors(self):
        vectors, student, _ = planted(neurons=1, students=6, junk=6, noise=3.0)
        self.assertIsNone(cluster(vectors, student, 6, 1.0, 12, up_to_sign=False))
        self.assertIsNone(cluster(vectors[:1], student[:1], 6, 0.7, 6, up_to_sign=False))


if __name__ == "__main__":
    unittest.main()
