"""Recovery layer by layer, on known networks."""

import dataclasses
import os
import unittest
from unittest import mock

import torch

from extraction import peeling, search
from extraction.answers import Answers
from extraction.fitting import is_exact
from extraction.network import Layers, fit_outputs
from extraction.peeling import with_settled_signs
from extraction.students import Imitation, Standardisation, standardised
from extraction.test.known_networks import answered, network, queries, session_of, without_pictures
from foundations.training_hparams import TrainingHparams
from testing import toy_teacher
from testing.test_case import TestCase


class TestDepth(TestCase):
    def test_the_next_layer_determines_signs_for_new_students(self):
        teacher, x = network("mlp_4_5_4_3", "softplus"), queries(400)
        true, following, outputs = teacher.layer_vectors()
        turned = Layers((torch.tensor([1.0, -1, -1, 1, 1], dtype=torch.float64)[:, None] * true,), "softplus")
        session = session_of("students_mlp(2)_4_9_9_3", answered(teacher, x, 100), self.root, "softplus")
        session.desc.training_hparams = TrainingHparams("adam", 0.02, "3it")
        students = network("students_mlp(2)_4_9_9_3", "softplus")
        here = Imitation(students, [], session.loaders, Standardisation.identity(x), self.root)
        loaders, scale = standardised(session, turned, settled=False)
        over_both = fit_outputs(loaders.train.examples, Layers((true, following), "softplus").pre_activations(x)).T
        students = network("students_mlp(2)_10_4_3", "softplus")
        students.load_layer_vectors([over_both + 1e-4 * torch.stack([queries(4, 11), queries(4, 11).flip(0)]), outputs])
        above = Imitation(students, [], loaders, scale, os.path.join(self.root, "layer_2")).evaluated()
        layers, plain = with_settled_signs(session, turned, here, above)
        torch.testing.assert_close(layers.vectors, (true,))
        self.assertEqual(plain.students.sizes, [5, 9, 3])
        inputs = plain.loaders.train.examples * plain.scale.spread + plain.scale.mean
        torch.testing.assert_close(inputs, teacher.activations(x, 1).detach())

    def found(self, function, given=None, lacking=1, width=9):
        """The result of a function of a search whose students share all neurons but one, and how often layers were recovered from these.

        Args:
            function: of the module.
            given: the precision of the answers, as text.
            lacking: how many of the teacher's neurons the students do not share.
            width: of the students.
        """
        teacher, students = network(f"mlp_4_{4 + lacking}_3"), f"students_mlp(2)_4_{width}_3"
        hidden, outputs = teacher.layer_vectors()
        layers = Layers((hidden[lacking:], outputs[:, lacking:]), "tanh")
        session = session_of(students, answered(teacher, queries(400), 400), self.root)
        session = dataclasses.replace(session, precision=given and Answers.of(session.answers, given))
        start = Imitation(network(students), [0.1, 0.2], session.loaders, Standardisation.identity(session.queries), "")
        work = os.path.join(self.root, "extract_toy", "seed_1", "main", "work")
        with mock.patch.object(search, "peel", return_value=search.Peeled([], layers, False)) as peel, without_pictures():
            return function(session, start, work), peel.call_count

    def test_a_network_that_is_nearly_complete_grows_before_doubtful_clusters_are_taken(self):
        (session, ((_, found),)), attempts = self.found(search._attempted)
        self.assertEqual((found.network.sizes, attempts), ([4, 5, 3], 1))
        self.assertTrue(is_exact(found.network, session.loaders.train))

    def test_larger_errors_than_the_answers_have_do_not_end_the_search(self):
        (session, (_, found)), attempts = self.found(search._found, "noise:0.3")
        self.assertEqual((found.network.sizes, attempts, session.known.name), ([4, 5, 3], 2, "noise:0.3"))
        self.assertTrue(is_exact(found.network, session.loaders.train))

    def test_clusters_count_before_single_students_where_answers_are_scarce(self):
        with mock.patch.object(search.scarce, "suits", return_value=True), mock.patch.object(search, "of_lone_student") as alone:
            best, _ = self.found(search._found_at_once, lacking=0)
            assert best is not None
            self.assertEqual(best[1].network.sizes, [4, 4, 3])
            self.assertTrue(is_exact(best[1].network, answered(network("mlp_4_4_3"), queries(400), 400).train))
            alone.assert_not_called()
            best, _ = self.found(search._found_at_once)
            self.assertIs(best, alone.return_value)

    def test_students_that_are_too_narrow_end_the_search(self):
        (session, ((_, found),)), attempts = self.found(search._attempted, lacking=6, width=5)
        self.assertEqual((found.network.sizes, attempts), ([4, 4, 3], 1))

    def test_the_one_neuron_that_narrow_students_lack_is_grown(self):
        (session, ((_, found),)), attempts = self.found(search._attempted, lacking=1, width=5)
        self.assertEqual((found.network.sizes, attempts), ([4, 5, 3], 1))
        self.assertTrue(is_exact(found.network, session.loaders.train))

    def extract_two_layers(self, *flags: str) -> str:
        """Extracts a network with two hidden layers and returns the output of the command."""
        name, _ = toy_teacher.make("mlp_5_4_3_3", "tanh", seed=2)
        status, out, err = self.command(
            "extract", "--default_hparams=students_mlp(5)_5_12_9_3", "--act_fun=tanh", f"--teacher_name={name}", "--teacher_seed=2",
            "--datagen=random:1500", "--training_steps=2000it", "--global_seed=1", *flags,
        )  # fmt: skip
        self.assertEqual((status, err), (0, ""))
        return out

    @without_pictures()
    def test_two_hidden_layers_are_recovered_even_where_one_is_doubted_without_cause(self):
        out = self.extract_two_layers()
        self.assertNotIn("lack a neuron", out)
        self.assertIn("Verdict: IDENTIFIED. 4 of 4, 3 of 3 neurons, none in excess", out)
        with mock.patch.object(peeling, "LACKING", 0.0):
            out = self.extract_two_layers("--gamma=0.71")  # another folder for the results of the same students
        self.assertIn("Hidden layer 1 may lack a neuron", out)
        self.assertIn("Verdict: IDENTIFIED. 4 of 4, 3 of 3 neurons, none in excess", out)


if __name__ == "__main__":
    unittest.main()
