"""Clusters against scipy, brute force, and the planted clusters."""

import math
import unittest

import numpy as np
import torch
from scipy.cluster.hierarchy import average, fcluster, linkage
from scipy.spatial.distance import pdist, squareform

from extraction.clustering import Criteria, angles, best_cut, cluster, condensed_distances, distances, is_narrow, shared_clusters
from foundations.extraction_hparams import LINKAGES


def planted(neurons=5, students=6, dimensions=8, noise=1e-3, junk=0, seed=0, flip=False):
    """Vectors of students that each have every neuron once, up to noise (and sign), and `junk` random vectors each."""
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
    """The sets of indices with the same label, without label -1."""
    return {frozenset(np.flatnonzero(labels == label)) for label in set(labels) - {-1}}


def within(vectors, limit, up_to_sign):
    """Whether the lower median of the angles of all pairs is at most the limit, by a loop over pairs."""
    found = []
    for place, a in enumerate(vectors):
        for b in vectors[place + 1 :]:
            cosine = float(a @ b / (a.norm() * b.norm()))
            found.append(math.acos(max(-1.0, min(1.0, abs(cosine) if up_to_sign else cosine))))
    return not found or sorted(found)[(len(found) - 1) // 2] <= limit


class TestDistances(unittest.TestCase):
    def setUp(self):
        self.vectors = torch.from_numpy(np.random.default_rng(0).standard_normal((30, 5)))

    def crowd(self, spread, flip=False):
        """Vectors of different lengths, four for each neuron, with distances from zero up to the order of `spread`."""
        random = np.random.default_rng(1)
        centres = np.repeat(random.standard_normal((10, 50)) * np.geomspace(0.1, 10, 10)[:, None], 4, axis=0)
        nearness = np.tile([1, 1, 1e-3, 0], 10)[:, None]
        signs = random.choice([-1, 1], (40, 1)) if flip else 1
        return random.permutation(signs * (centres + spread * nearness * random.standard_normal(centres.shape)))

    def test_distances_equal_those_of_scipy_for_every_block_size(self):
        expected = pdist(self.vectors.numpy())
        for block in (1, 7, 10, 29, 30, 64):
            with self.subTest(block=block):
                np.testing.assert_allclose(condensed_distances(self.vectors, up_to_sign=False, block=block), expected, rtol=1e-12)

    def test_distances_up_to_sign_are_the_smaller_of_both_signs(self):
        v = self.vectors.numpy()
        expected = [min(np.linalg.norm(a - b), np.linalg.norm(a + b)) for place, a in enumerate(v) for b in v[place + 1 :]]
        for block in (7, 64):
            with self.subTest(block=block):
                np.testing.assert_allclose(condensed_distances(self.vectors, up_to_sign=True, block=block), expected, rtol=1e-12)

    def test_small_distances_keep_their_precision(self):
        for spread in (1e-2, 1e-4, 1e-6, 1e-9, 1e-12):
            for block in (7, 64):
                with self.subTest(spread=spread, block=block):
                    v = self.crowd(spread)
                    np.testing.assert_allclose(condensed_distances(torch.from_numpy(v), up_to_sign=False, block=block), pdist(v), rtol=1e-8)

    def test_small_distances_up_to_sign_keep_their_precision(self):
        v = self.crowd(1e-9, flip=True)
        expected = [min(np.linalg.norm(a - b), np.linalg.norm(a + b)) for place, a in enumerate(v) for b in v[place + 1 :]]
        np.testing.assert_allclose(condensed_distances(torch.from_numpy(v), up_to_sign=True, block=7), expected, rtol=1e-8)

    def test_distances_of_equal_and_of_zero_vectors_are_zero(self):
        v = torch.tensor([[0.1, 0.7], [0.0, 0.0], [0.1, 0.7], [0.0, 0.0], [-0.1, -0.7]])
        np.testing.assert_array_equal(condensed_distances(v, up_to_sign=True) == 0, [0, 1, 0, 1, 0, 1, 0, 0, 1, 0])

    def test_the_square_matrix_equals_the_condensed_distances(self):
        square = distances(self.vectors, up_to_sign=True)
        np.testing.assert_array_equal(square.numpy(), squareform(condensed_distances(self.vectors, up_to_sign=True)))
        self.assertEqual(distances(self.vectors[:1], up_to_sign=True).tolist(), [[0.0]])

    def test_angles_equal_arccos(self):
        a, b = self.vectors[0], self.vectors[1]
        expected = math.acos(float(a @ b / a.norm() / b.norm()))
        self.assertAlmostEqual(angles(a[None], b[None], up_to_sign=False).item(), expected)
        self.assertAlmostEqual(angles(a[None], b[None], up_to_sign=True).item(), min(expected, math.pi - expected))

    def test_a_cluster_is_narrow_if_half_of_its_angles_are_within_the_limit(self):
        for count in (1, 2, 3, 4, 30):
            for limit in (0.3, 0.9, 1.2, 1.5, 2.0, math.pi):
                for up_to_sign in (False, True):
                    with self.subTest(count=count, limit=limit, up_to_sign=up_to_sign):
                        expected = within(self.vectors[:count], limit, up_to_sign)
                        self.assertEqual(is_narrow(self.vectors[:count], limit, up_to_sign, block=7), expected)


class TestSharedClusters(unittest.TestCase):
    def test_the_number_of_shared_clusters_equals_that_of_a_cut_at_every_merge(self):
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
    def test_the_cut_is_in_the_longest_plateau_on_a_logarithmic_axis(self):
        heights = np.array([1e-3, 2e-3, 3e-3, 0.3, 0.31])
        cut = best_cut(heights, np.array([1, 2, 4, 3, 1]), limit=0.5)
        self.assertTrue(3e-3 < cut < 0.3)

    def test_the_cut_is_below_the_limit(self):
        cut = best_cut(np.array([1e-3, 0.9]), np.array([3, 1]), limit=0.1)
        self.assertTrue(1e-3 < cut < 0.1)

    def test_the_cut_ignores_long_plateaus_with_few_clusters(self):
        cut = best_cut(np.array([1e-9, 1e-2, 1e-1]), np.array([1, 8, 1]), limit=0.5)
        self.assertTrue(1e-2 < cut < 1e-1)

    def test_the_cut_is_none_without_shared_clusters(self):
        self.assertIsNone(best_cut(np.array([0.1, 0.2]), np.array([0, 0]), limit=0.5))

    def test_the_cut_is_none_if_all_merges_are_above_the_limit(self):
        self.assertIsNone(best_cut(np.array([0.6, 0.7]), np.array([1, 2]), limit=0.5))


class TestCluster(unittest.TestCase):
    def naive(self, found, vectors, student, students, gamma, beta):
        """The clusters at the cut of a clustering, computed by their definition."""
        kept = set()
        for members in partition(fcluster(found.tree, found.cut, "distance")):
            members = sorted(members)
            if len(set(student[members])) >= gamma * students and within(vectors[members], math.pi / beta, up_to_sign=False):
                kept.add(frozenset(members))
        return kept

    def test_labels_are_the_shared_clusters_at_the_cut(self):
        for linking in LINKAGES:
            for seed in range(3):
                with self.subTest(linkage=linking, seed=seed):
                    vectors, student, _ = planted(noise=0.15, junk=8, seed=seed)
                    found = cluster(vectors, student, 6, Criteria(0.5, 6, linking), False)
                    self.assertEqual(partition(found.labels), self.naive(found, vectors, student, 6, 0.5, 6))
                    self.assertEqual(set(found.labels) - {-1}, set(range(found.count)))

    def test_the_tree_equals_that_of_scipy_for_every_linkage(self):
        vectors, student, label = planted(junk=4)
        for linking in LINKAGES:
            with self.subTest(linkage=linking):
                found = cluster(vectors, student, 6, Criteria(0.7, 6, linking), False)
                np.testing.assert_allclose(found.tree, linkage(pdist(vectors.numpy()), linking), rtol=1e-9)
                self.assertEqual(partition(found.labels), partition(label))

    def test_average_linkage_is_the_default(self):
        vectors, student, _ = planted(junk=4)
        by_default, average_one = (cluster(vectors, student, 6, Criteria(0.7, 6, *linking), False) for linking in ((), ("average",)))
        np.testing.assert_array_equal(by_default.tree, average_one.tree)

    def test_distances_among_selected_vectors_equal_those_of_the_square_matrix(self):
        found = cluster(*planted(junk=2)[:2], 6, Criteria(0.7, 6), False)
        places = np.array([40, 3, 0, 17, 41, 18])
        np.testing.assert_array_equal(found.distances_among(places), squareform(found.distances)[np.ix_(places, places)])

    def check(self, gamma=0.7, beta=6, up_to_sign=False, **settings):
        vectors, student, label = planted(**settings)
        found = cluster(vectors, student, 6, Criteria(gamma, beta), up_to_sign)
        self.assertEqual(partition(found.labels), partition(label))
        return found

    def test_planted_clusters_are_recovered(self):
        self.assertEqual(self.check().count, 5)

    def test_planted_clusters_are_recovered_among_random_vectors(self):
        self.check(junk=4)

    def test_planted_clusters_are_recovered_for_all_signs(self):
        self.check(flip=True, up_to_sign=True)

    def test_identical_vectors_are_one_cluster(self):
        self.check(noise=0.0)

    def test_a_cluster_needs_many_students_rather_than_many_members(self):
        vectors, student, _ = planted(neurons=2, students=6)
        copies = torch.eye(8, dtype=torch.float64)[7] + 1e-3 * torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
        found = cluster(torch.cat([vectors, copies]), np.append(student, [0] * 10), 6, Criteria(0.5, 6), up_to_sign=False)
        self.assertEqual(found.count, 2)
        self.assertTrue((found.labels[-10:] == -1).all())

    def test_wide_clusters_are_dropped(self):
        vectors, student, _ = planted(noise=0.02)
        self.assertEqual(cluster(vectors, student, 6, Criteria(0.7, 6), up_to_sign=False).count, 5)
        self.assertIsNone(cluster(vectors, student, 6, Criteria(0.7, 1000), up_to_sign=False))

    def test_doubtful_clusters_are_loose_or_shared_by_fewer_students(self):
        vectors, student, label = planted(neurons=6, students=6)
        late = np.random.default_rng(1).standard_normal(vectors[label == 4].shape) * 0.08
        vectors[label == 4] += torch.from_numpy(late)  # a loose cluster
        kept = (label != 5) | (student < 3)  # a cluster of half of the students
        vectors, student, label = vectors[kept], student[kept], label[kept]
        strict, generous = (cluster(vectors, student, 6, Criteria(0.7, 6, doubtful=share), up_to_sign=False) for share in (0.0, 0.5))
        self.assertEqual(partition(strict.labels), {frozenset(np.flatnonzero(label == one)) for one in range(4)})
        self.assertTrue(partition(strict.labels) < partition(generous.labels))
        self.assertEqual(partition(generous.labels) - partition(strict.labels), self.smallest(vectors, student, label, least=3))

    def smallest(self, vectors, student, label, least):
        """For each of the last two planted clusters, the first merge that contains `least` students, by brute force."""
        found = set()
        for one in (4, 5):
            places = np.flatnonzero(label == one)
            tree = average(pdist(vectors[places].numpy()))
            cuts = (fcluster(tree, height, "distance") for height in tree[:, 2])
            groups = ({frozenset(places[cut == group]) for group in set(cut)} for cut in cuts)
            found.add(next(group for cut in groups for group in cut if len(set(student[list(group)])) >= least))
        return found

    def test_the_clustering_is_none_without_clusters_or_vectors(self):
        vectors, student, _ = planted(neurons=1, students=6, junk=6, noise=3.0)
        self.assertIsNone(cluster(vectors, student, 6, Criteria(1.0, 12), up_to_sign=False))
        self.assertIsNone(cluster(vectors[:1], student[:1], 6, Criteria(0.7, 6), up_to_sign=False))


if __name__ == "__main__":
    unittest.main()
