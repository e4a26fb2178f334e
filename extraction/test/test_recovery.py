"""Recovery of a layer from the neurons of students, on known layers."""

import unittest

import torch

from extraction.clustering import Criteria
from extraction.recovery import Neurons, is_surplus, recover
from extraction.symmetry import symmetries


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def students_of(truth, outgoing, copies=2, surplus=3, students=6, noise=1e-4, seed=0):
    """Students with `copies` copies of every true neuron, which share its outgoing vector, and surplus neurons without effect."""
    incoming, outputs = [], []
    for student in range(students):
        draw = lambda *shape, k=student: random(*shape, seed=100 * seed + k)  # noqa: E731
        vectors = truth.repeat(copies, 1) + noise * draw(copies * len(truth), truth.shape[1])
        incoming.append(torch.cat([vectors, draw(surplus, truth.shape[1])]))
        outputs.append(torch.cat([outgoing.repeat(copies, 1) / copies, 1e-7 * draw(surplus, outgoing.shape[1])]))
    incoming, outputs = torch.stack(incoming), torch.stack(outputs)
    return Neurons(incoming, outputs.norm(dim=2), torch.full((students,), 1e-5, dtype=torch.float64))


class TestRecover(unittest.TestCase):
    def setUp(self):
        self.truth, self.outgoing = random(5, 9, seed=1), random(5, 3, seed=2)

    def test_every_neuron_is_recovered_once_in_the_scale_of_the_best_student(self):
        for act_fun in ("tanh", "relu", "g"):
            with self.subTest(act_fun):
                found = recover(students_of(self.truth, self.outgoing), symmetries[act_fun], Criteria(0.7, 6)).incoming
                gaps = torch.cdist(self.truth, found)
                self.assertEqual(found.shape, self.truth.shape)
                self.assertEqual(sorted(gaps.argmin(1).tolist()), list(range(5)))
                self.assertLess(gaps.amin(1).max().item(), 1e-2)

    def test_students_much_worse_than_the_best_two_are_ignored(self):
        neurons = students_of(self.truth, self.outgoing)
        others = students_of(random(5, 9, seed=8), self.outgoing)
        neurons.incoming[2:] = others.incoming[2:]
        self.assertGreater(self.gaps(recover(neurons, symmetries["tanh"], Criteria(0.5, 6))).min().item(), 0.1)
        neurons.residual[:2] = 1e-14
        found = recover(neurons, symmetries["tanh"], Criteria(0.5, 6))
        self.assertEqual(len(found.incoming), 5)
        self.assertLess(self.gaps(found).max().item(), 1e-2)
        self.assertEqual(set(found.clustering.student.tolist()), {0, 1})

    def gaps(self, found):
        return torch.cdist(self.truth, found.incoming).amin(1)

    def test_a_cluster_needs_at_least_two_students(self):
        neurons = students_of(self.truth, self.outgoing, copies=1, surplus=3)
        neurons.residual[:2] = 1e-14
        neurons.contribution[:, 5:] = 1.0
        self.assertEqual(len(recover(neurons, symmetries["tanh"], Criteria(0.34, 6)).incoming), 5)

    def test_uninformative_inputs_are_ignored(self):
        neurons = students_of(self.truth, self.outgoing)
        neurons.incoming[:, :, 2] = 10 * random(6, 13, seed=4)
        informative = torch.arange(8) != 2
        found = recover(neurons, symmetries["tanh"], Criteria(0.7, 6), informative)
        self.assertEqual(len(found.incoming), 5)
        seen = torch.arange(9) != 2
        self.assertLess(torch.cdist(self.truth[:, seen], found.incoming[:, seen]).amin(1).max().item(), 1e-2)
        self.assertEqual(found.incoming.shape[1], 9)
        without_mask = recover(neurons, symmetries["tanh"], Criteria(0.7, 6))
        self.assertTrue(without_mask is None or len(without_mask.incoming) != 5)

    def test_neurons_with_a_small_contribution_are_recovered_only_as_doubtful(self):
        neurons = students_of(self.truth, self.outgoing, copies=1, surplus=0)
        neurons.contribution[:, 4] = 5 * neurons.residual[0]
        self.assertEqual(len(recover(neurons, symmetries["tanh"], Criteria(0.7, 6)).incoming), 4)
        found = recover(neurons, symmetries["tanh"], Criteria(0.7, 6, doubtful=0.5))
        self.assertLess(self.gaps(found).max().item(), 1e-2)

    def test_the_student_with_the_lowest_loss_is_chosen(self):
        neurons = students_of(self.truth, self.outgoing, copies=1)
        neurons.residual[3] = 1e-6
        found = recover(neurons, symmetries["tanh"], Criteria(0.7, 6)).incoming
        torch.testing.assert_close(torch.cdist(found, neurons.incoming[3][:5]).amin(1), torch.zeros(5, dtype=torch.float64))

    def test_copies_are_averaged_by_contribution(self):
        neurons = students_of(self.truth, self.outgoing, copies=2, surplus=0, noise=0.0)
        off = 0.02 * random(6, 5, 9, seed=3)
        neurons.incoming[:, :5] += 3 * off
        neurons.incoming[:, 5:] -= off
        neurons.contribution[:, :5] *= 0.5
        neurons.contribution[:, 5:] *= 1.5
        found = recover(neurons, symmetries["tanh"], Criteria(0.7, 6)).incoming
        self.assertLess(torch.cdist(self.truth, found).amin(1).max().item(), 1e-12)

    def test_recovery_is_none_without_shared_neurons(self):
        neurons = Neurons(random(6, 4, 9), torch.ones(6, 4), torch.full((6,), 1e-5))
        self.assertIsNone(recover(neurons, symmetries["g"], Criteria(1.0, 12)))

    def test_neurons_with_contributions_below_the_residual_are_surplus(self):
        contribution = torch.tensor([[1.0, 0.5, 1e-3, 0.2]])
        for residual in (1e-3, 1.0):
            with self.subTest(residual=residual):
                neurons = Neurons(random(1, 4, 3), contribution, torch.tensor([residual]))
                self.assertEqual(is_surplus(neurons).tolist(), [[False, False, True, False]])


if __name__ == "__main__":
    unittest.main()
