"""Recovered layers are built upon and made more exact, on networks that are known."""

import os

import torch

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.desc import ExtractionDesc
from extraction.finetuning import layer_vectors
from extraction.imitation import imitate_above, sharpen, train_together
from extraction.test.test_finetuning import network, queries
from foundations.training_hparams import TrainingHparams
from testing.test_case import TestCase
from training.evaluation import evaluate


class TestAbove(TestCase):
    def nearly_recovered(self, noise: float):
        """A layer of a known network and as it is with some noise, students above the latter, the hyperparameters, and the loaders."""
        teacher, x = network("mlp_4_5_4_3"), queries(1500)
        loader = DataLoader(Dataset(x, teacher(x).detach()), 256, seed=1, dtype=torch.float64)
        desc = ExtractionDesc.default_for("students_mlp(2)_4_9_9_3")
        desc.model_hparams.act_fun, desc.training_hparams = "tanh", TrainingHparams("adam", 0.02, "1500it", lr_decay="cosine")
        true = layer_vectors(teacher)[0]
        near = true + noise * queries(5, 5)
        folder = os.path.join(self.root, "layer_2")
        above = imitate_above([near], network("students_mlp(2)_4_9_9_3"), desc, (loader, loader), folder, verbose=False)
        return true, near, above, desc, (loader, loader)

    def test_recovered_layers_become_more_exact_with_students_above_them(self):
        true, near, above, desc, loaders = self.nearly_recovered(1e-2)
        desc.training_hparams.training_steps = "15000it"  # of which this takes a tenth
        before = above.losses
        (exact,), better = train_together([near], above, desc, loaders, verbose=False)
        self.assertLess((exact - true).norm().item(), 0.8 * (near - true).norm().item())
        self.assertLess(max(better.losses), min(before))
        again = evaluate(better.students, better.asked[0])["individual_losses"]
        self.assertEqual(better.losses, again)

    def test_recovered_layers_are_sharpened_by_a_student_above_them(self):
        true, near, above, desc, loaders = self.nearly_recovered(1e-3)
        (sharp,), better = sharpen([near], above, desc, loaders, verbose=False)
        self.assertLess((sharp - true).norm().item(), 0.1 * (near - true).norm().item())
        self.assertLess(max(better.losses), min(above.losses))

    def test_the_weights_of_shallower_students_do_not_depend_on_the_folder(self):
        desc = ExtractionDesc.default_for("students_mlp(3)_4_5_6_2")
        desc.training_hparams = TrainingHparams("adam", 0.01, "3it")
        loaders = tuple(DataLoader(Dataset(queries(40), queries(40, 2)), 40, seed=7, dtype=torch.float64) for _ in range(2))
        found = []
        for folder in ("here", "elsewhere"):
            location = os.path.join(self.root, folder)
            above = imitate_above([queries(5, 5)], network("students_mlp(3)_4_5_6_2"), desc, loaders, location, verbose=False)
            found.append(above.students)
        self.assertEqual(found[0].sizes, [5, 6, 2])
        for here, elsewhere in zip(found[0].parameters(), found[1].parameters(), strict=True):
            self.assertTrue(torch.equal(here, elsewhere))
