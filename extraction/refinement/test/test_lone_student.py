"""The network of one student at the solution, on known networks."""

import copy
import dataclasses
import os

import torch

from extraction.fitting import gives_answers
from extraction.network import Layers
from extraction.refinement.lone_student import may_hold_the_network, of_best_students, of_lone_student
from extraction.students import Imitation, Standardisation
from extraction.test.known_networks import answered, network, queries, session_of
from testing.test_case import TestCase


class TestLoneStudent(TestCase):
    def found(self, act_fun: str, alike: int):
        """The network of three students, of which so many are the teacher with one neuron twice and one that adds nothing."""
        teacher = network("mlp_4_3_2_2", act_fun)
        first, second, last = teacher.layer_vectors()
        twice = torch.cat([first, first[:1], torch.ones_like(first[:1])])
        halves = torch.cat([second[:, :1] / 3, second[:, 1:3], second[:, :1] * 2 / 3, torch.zeros_like(second[:, :1]), second[:, 3:]], 1)
        noise = torch.randn(3 - alike, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        stack = torch.cat([twice.expand(alike, -1, -1), twice + noise])
        session = session_of("students_mlp(3)_4_5_2_2", answered(teacher, queries(400), 400), self.root, act_fun)
        session.desc.training_hparams.training_steps = "30000it"  # as by default, small deep students would be trained briefly
        students = (
            Layers((stack, halves.expand(3, -1, -1), last.expand(3, -1, -1)), act_fun).to_students(session.students_hparams, 3).double()
        )
        scale = Standardisation.identity(session.queries)
        start = Imitation(students, [], session.loaders, scale, self.root).evaluated()
        return session, start, of_lone_student(session, start, os.path.join(self.root, "extract_toy", "seed_1", "main", act_fun))

    def test_surplus_neurons_are_removed(self):
        for act_fun in ("tanh", "gelu"):
            with self.subTest(act_fun):
                session, _, (layers, fitted) = self.found(act_fun, alike=1)
                self.assertEqual(fitted.network.sizes, [4, 3, 2, 2])
                self.assertTrue(gives_answers(session, fitted.network))
                self.assertEqual([layer.clustering.count for layer in layers], [5, 2])

    def test_two_students_at_the_solution_or_none_are_left_to_clustering(self):
        for alike in (0, 2):
            self.assertIsNone(self.found("tanh", alike)[2])

    def test_students_that_are_near_are_taken_to_their_solutions_unless_they_are_deep_with_kinks(self):
        session, start, _ = self.found("tanh", alike=2)
        near = Layers.of(start.students)
        generator = torch.Generator().manual_seed(1)
        moved = [vectors + 1e-3 * torch.randn(vectors.shape, generator=generator, dtype=torch.float64) for vectors in near.vectors]
        students = near.replace(*moved).to_students(session.students_hparams, 3).double()
        start = dataclasses.replace(start, students=students).evaluated()
        self.assertGreater(start.best_loss, 1e-8)
        self.assertTrue(may_hold_the_network(session, start))
        _, fitted = of_best_students(session, start, os.path.join(self.root, "extract_toy", "seed_1", "main", "held"))
        self.assertEqual(fitted.network.sizes, [4, 3, 2, 2])
        kinked = copy.deepcopy(session.desc)
        kinked.model_hparams.act_fun = "relu"
        self.assertFalse(may_hold_the_network(dataclasses.replace(session, desc=kinked), start))
