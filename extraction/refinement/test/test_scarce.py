"""The network of students that stall near the solution, because their surplus neurons cancel, on a known network."""

import dataclasses
from unittest import mock

import torch

from extraction.answers import Answers
from extraction.fitting import gives_answers
from extraction.network import Layers
from extraction.refinement import scarce
from extraction.session import Session
from extraction.students import Imitation, Standardisation
from extraction.test.known_networks import answered, network, queries, session_of
from testing.test_case import TestCase


class TestScarce(TestCase):
    def start(self, off: float) -> tuple[Session, Imitation]:
        """Three students of six neurons: those of a teacher with four, and two that nearly cancel; weights are off by so much."""
        teacher = network("mlp_4_4_2", "tanh")
        first, last = teacher.layer_vectors()
        generator = torch.Generator().manual_seed(0)

        def noise(*shape: int) -> torch.Tensor:
            return off * torch.randn(*shape, generator=generator, dtype=torch.float64)

        extra = torch.tensor([0.3, -0.5, 0.7, 0.2, 0.1], dtype=torch.float64).expand(3, 2, 5) + noise(3, 2, 5)
        pair = torch.tensor([[40.0, -40.0], [-30.0, 30.0]], dtype=torch.float64)
        stack = torch.cat([first + noise(3, 4, 5), extra], 1)
        outputs = torch.cat([last[:, :-1], pair, last[:, -1:]], 1).expand(3, -1, -1)
        session = session_of("students_mlp(3)_4_6_2", answered(teacher, queries(120), 120), self.root)
        students = Layers((stack, outputs), "tanh").to_students(session.students_hparams, 3).double()
        start = Imitation(students, [], session.loaders, Standardisation.identity(session.queries), self.root)
        return session, start.evaluated()

    def test_the_network_is_what_is_left_of_the_best_student(self):
        session, start = self.start(1e-3)
        found = scarce.smallest_exact(session, start)
        assert found is not None
        self.assertEqual(found.sizes, [4, 4, 2])
        self.assertTrue(gives_answers(session, found.to_network(session.students_hparams)[0]))

    def test_students_that_are_not_promising_are_left_to_clustering(self):
        session, start = self.start(1.0)
        with mock.patch.object(scarce, "STAGES", ((3, 0),)):
            self.assertGreater(min(start.losses), 1e-2)
            self.assertIsNone(scarce.smallest_exact(session, start))

    def test_it_serves_exact_answers_that_are_scarce(self):
        session, start = self.start(1e-3)
        self.assertFalse(scarce.suits(session, start))
        with mock.patch.object(Session, "is_scarce", True):
            self.assertTrue(scarce.suits(session, start))
            noisy = dataclasses.replace(session, precision=Answers.of(session.answers, "noise:0.01", session.queries))
            self.assertFalse(scarce.suits(noisy, start))
