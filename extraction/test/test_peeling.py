"""Layer after layer, on networks that are known."""

import os
import unittest
from unittest import mock

import torch

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction import layer_reconstruction as layers
from extraction import peeling
from extraction.desc import ExtractionDesc
from extraction.finetuning import layer_vectors
from extraction.imitation import Imitation, standardised
from extraction.peeling import with_settled_signs
from extraction.test.test_finetuning import network, queries
from foundations.training_hparams import TrainingHparams
from testing import toy_teacher
from testing.test_case import TestCase
from training.evaluation import evaluate


class TestDepth(TestCase):
    def test_the_next_layer_settles_signs_for_new_students(self):
        teacher, x = network("mlp_4_5_4_3", "softplus"), queries(400)
        true, following, outputs = layer_vectors(teacher)
        turned = torch.tensor([1.0, -1, -1, 1, 1], dtype=torch.float64)[:, None]
        loader = DataLoader(Dataset(x, teacher(x).detach()), 100, seed=1, dtype=torch.float64)
        desc = ExtractionDesc.default_for("students_mlp(2)_4_9_9_3")
        desc.model_hparams.act_fun, desc.training_hparams = "softplus", TrainingHparams("adam", 0.02, "3it")
        here = Imitation(network("students_mlp(2)_4_9_9_3", "softplus"), [], (loader, loader), (torch.zeros(4), torch.ones(4)), self.root)
        asked, scale = standardised((loader, loader), [turned * true], here.students, desc, settled=False)
        pre_activations = (layers.with_ones(teacher.activations(x, 1)) @ following.T).detach()
        over_both = layers.fit_outputs(asked[0].examples, pre_activations).T
        students = network("students_mlp(2)_10_4_3", "softplus")
        students.load_layer_vectors([over_both + 1e-4 * torch.stack([queries(4, 11), queries(4, 11).flip(0)]), outputs])
        above = Imitation(students, evaluate(students, asked[0])["individual_losses"], asked, scale, os.path.join(self.root, "layer_2"))
        (settled,), plain = with_settled_signs([turned * true], here, above, desc, (loader, loader), verbose=False)
        torch.testing.assert_close(settled, true)
        self.assertEqual(plain.students.sizes, [5, 9, 3])
        inputs = plain.asked[0].examples * plain.scale[1] + plain.scale[0]
        torch.testing.assert_close(inputs, teacher.activations(x, 1).detach())

    def peel_off(self) -> str:
        """What `extract` prints about a network with two hidden layers."""
        name, _ = toy_teacher.make("mlp_5_4_3_3", "tanh", seed=2)
        status, out, err = self.command(
            "extract", "--default_hparams=students_mlp(5)_5_12_9_3", "--act_fun=tanh", f"--teacher_name={name}", "--teacher_seed=2",
            "--datagen=random:1500", "--training_steps=2000it", "--global_seed=1",
        )  # fmt: skip
        self.assertEqual((status, err), (0, ""))
        return out

    def test_two_hidden_layers_are_peeled_off(self):
        out = self.peel_off()
        self.assertNotIn("lack a neuron", out)
        self.assertIn("Verdict: IDENTIFIED. 4 of 4, 3 of 3 neurons, none in excess", out)

    def test_a_layer_that_is_doubted_without_cause_is_found_all_the_same(self):
        with mock.patch.object(peeling, "LACKING", 0.0):
            out = self.peel_off()
        self.assertIn("Hidden layer 1 seems to lack a neuron", out)
        self.assertIn("Verdict: IDENTIFIED. 4 of 4, 3 of 3 neurons, none in excess", out)


if __name__ == "__main__":
    unittest.main()
