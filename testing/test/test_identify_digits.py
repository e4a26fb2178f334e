"""The published clustering on trees that were planted, and against cutting at every merge."""

import math
import unittest

import numpy as np
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist

from extraction.symmetry import symmetries
from testing.benchmarks.identify_digits import canonical, collapse, literal_clusters, literal_cut, median_angle


def planted(neurons=4, students=6, dimensions=8, noise=1e-3, seed=0):
    """Orthogonal unit vectors, one row for each neuron of each student, up to noise; and the neuron of each row."""
    random = np.random.default_rng(seed)
    truth = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0][:neurons]
    rows = np.concatenate([truth + noise * random.standard_normal(truth.shape) for _ in range(students)])
    return rows, np.tile(np.arange(neurons), students)


class TestLiteralCut(unittest.TestCase):
    def test_equals_cutting_at_every_merge(self):
        random = np.random.default_rng(0)
        for least in (1.5, 2, 3, 7):
            # Small whole numbers make many merges at the same height, which belong together.
            for vectors in (random.standard_normal((60, 3)), random.integers(0, 4, (60, 2)).astype(float)):
                tree = average(pdist(vectors))
                counts = [np.sum(np.bincount(fcluster(tree, height, "distance")) >= least) for height in tree[:, 2]]
                self.assertEqual(literal_cut(tree, least), tree[np.argmax(counts), 2])

    def test_finds_the_planted_clusters(self):
        vectors, neuron = planted()
        found = literal_clusters(vectors, students=6, gamma=1)
        self.assertEqual({frozenset(members) for members in found}, {frozenset(np.flatnonzero(neuron == k)) for k in range(4)})

    def test_a_smaller_gamma_may_leave_members_out_but_mixes_none(self):
        vectors, neuron = planted()
        found = literal_clusters(vectors, students=6, gamma=0.7)
        self.assertEqual(sorted(sorted(set(neuron[members])) for members in found), [[0], [1], [2], [3]])
        self.assertTrue(all(len(members) >= 5 for members in found))

    def test_prefers_many_clusters_of_junk_to_few_true_ones(self):
        """Two clusters, one of them of two neurons, and four of junk higher up outnumber the three true ones."""
        height = 0.1
        true = np.array([[0, 0], [0, height], [0.3, 0], [0.3, height], [20, 0], [20, height]])
        junk = np.array([[100.0 * k, 50 + offset] for k in range(4) for offset in (0, 5)])
        tree = average(pdist(np.concatenate([true, junk])))
        self.assertGreaterEqual(literal_cut(tree, least=2), 5)

    def test_wide_clusters_do_not_count(self):
        angles = np.linspace(0, math.pi / 2, 5)
        fan = np.stack([np.cos(angles), np.sin(angles)], 1)
        self.assertEqual(len(literal_clusters(fan, students=2, gamma=1, beta=2)), 2)
        self.assertEqual(literal_clusters(fan, students=2, gamma=1, beta=60), [])

    def test_median_angle_of_three(self):
        self.assertAlmostEqual(median_angle(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])), math.pi / 4)


class TestCanonical(unittest.TestCase):
    def test_is_blind_to_what_is_free_and_to_no_more(self):
        random = np.random.default_rng(0)
        vectors = random.standard_normal((20, 5)) + 0.5
        signs, scales = random.choice([-1.0, 1.0], (20, 1)), random.uniform(0.5, 2, (20, 1))
        for act_fun, changed, blind in [
            ("relu", signs * scales, True),
            ("tanh", signs, True),
            ("tanh", scales, False),
            ("g", signs, False),
        ]:
            with self.subTest(act_fun=act_fun, blind=blind):
                forms = [canonical(each, symmetries[act_fun]) for each in (vectors, vectors * changed)]
                up_to_the_common_sign = min(np.abs(forms[0] - forms[1]).max(), np.abs(forms[0] + forms[1]).max())
                self.assertEqual(up_to_the_common_sign < 1e-12, blind)


class TestCollapse(unittest.TestCase):
    def test_takes_the_best_student_of_each_cluster_and_averages_its_copies(self):
        vectors = np.array([[1.0, 0.0], [3.0, 0.0], [8.0, 0.0], [0.0, 5.0], [0.0, 6.0]])
        student = np.array([1, 1, 0, 2, 0])
        clusters = [np.array([0, 1, 2]), np.array([3, 4])]
        found = collapse(vectors, clusters, student, losses=np.array([0.3, 0.1, 0.2]))
        np.testing.assert_array_equal(found, [[2.0, 0.0], [0.0, 5.0]])


if __name__ == "__main__":
    unittest.main()
