"""Deep students that are taken to the solution, on known networks."""

import dataclasses
import os
from unittest import mock

import torch

from extraction.answers import Answers
from extraction.fitting import gives_answers
from extraction.network import Layers
from extraction.refinement import deep_students, lone_student
from extraction.students import BRIEF_STEPS, Imitation, Standardisation, is_brief, train_longer, train_students
from extraction.test.known_networks import answered, network, queries, session_of
from testing.test_case import TestCase
from training.plan import StandardPlan

STUDENTS = "students_mlp(2)_4_5_2_2"


class TestDeepStudents(TestCase):
    def students(self, offset: float):
        """Two students of a network 4-3-2-2: one has other weights; the other one has two more neurons, and is off by so much."""
        teacher = network("mlp_4_3_2_2")
        first, second, last = teacher.layer_vectors()
        generator = torch.Generator().manual_seed(0)
        wide = torch.cat([first, torch.randn(2, 5, generator=generator, dtype=torch.float64)])
        second = torch.cat([second[:, :3], torch.zeros_like(second[:, :2]), second[:, 3:]], 1)
        noise = [torch.randn(2, *each.shape, generator=generator, dtype=torch.float64) for each in (wide, second, last)]
        size = torch.tensor([3.0, offset], dtype=torch.float64)[:, None, None]
        vectors = [each + size * error for each, error in zip((wide, second, last), noise, strict=True)]
        location = os.path.join(self.root, "extract_toy", "seed_1", "main", "clustering")
        session = session_of(STUDENTS, answered(teacher, queries(400), 400), location)
        students = Layers(tuple(vectors), "tanh").to_students(session.students_hparams, 2).double()
        scale = Standardisation.identity(session.queries)
        return session, Imitation(students, [], session.loaders, scale, location).evaluated()

    def test_a_student_near_the_solution_is_taken_there_and_loses_its_surplus_neurons(self):
        session, start = self.students(0.05)
        self.assertGreater(start.best_loss, 1e-4)
        found = lone_student.of_lone_student(session, start, os.path.join(session.location, "alone"))
        assert found is not None
        self.assertEqual(found[1].network.sizes, [4, 3, 2, 2])
        self.assertTrue(gives_answers(session, found[1].network))

    def test_students_that_stay_away_from_the_solution_are_trained_in_full(self):
        session, start = self.students(3.0)
        with mock.patch.object(deep_students, "STEPS", 1):
            self.assertIsNone(lone_student.of_lone_student(session, start, os.path.join(session.location, "alone")))
        session.desc.training_hparams.training_steps = "20it"
        with mock.patch.object(type(session.desc), "default_for", return_value=session.desc):
            longer = train_longer(session, start, os.path.join(session.location, "longer"))
        self.assertNotEqual(longer.losses, start.losses)
        self.assertTrue(os.path.exists(os.path.join(session.location, "longer", "model_ep10_it0.pth")))

    def test_only_deep_small_students_by_default_of_exact_answers_are_trained_briefly(self):
        session, start = self.students(0.05)
        self.assertTrue(is_brief(session))
        latest = mock.patch("extraction.students.models.latest_weights_file", return_value="model_ep1_it0.pth")
        with latest, mock.patch("extraction.students.standard_train") as train:
            train_students(session, session.loaders, StandardPlan(verbose=False))
        self.assertEqual(train.call_args.args[0].training_steps, BRIEF_STEPS)
        noisy = dataclasses.replace(session, precision=Answers.of(session.answers, "noise:0.1", session.queries))
        self.assertFalse(is_brief(noisy))
        self.assertIs(train_longer(noisy, start, ""), start)
        for students in ("students_mlp(2)_4_5_2", "students_mlp(2)_64_36_36_2"):
            inputs = int(students.split(")_")[1].split("_")[0])
            other = session_of(students, answered(network(students.replace("students_mlp(2)", "mlp")), queries(9, inputs), 9), self.root)
            self.assertFalse(is_brief(other), students)
        self.assertFalse(is_brief(session_of(STUDENTS, session.loaders, self.root, "leaky_relu")))
        session.desc.training_hparams.training_steps = "30000it"
        self.assertFalse(is_brief(session))
