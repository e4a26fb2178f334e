"""Tests of extraction/python_call.py."""

from __future__ import annotations

import os
import tempfile
import unittest

import numpy as np
import torch

from extraction import recover
from foundations.errors import ConfigError


class TestRecover(unittest.TestCase):
    def test_a_function_is_asked_and_its_network_returned(self):
        incoming, outgoing = np.array([[1.5, -0.5], [0.4, 1.2]]), np.array([[1.0, -2.0]])
        queries = np.random.default_rng(0).normal(size=(20, 2))

        def predict(inputs: np.ndarray) -> np.ndarray:
            return np.tanh(inputs @ incoming.T + 0.3) @ outgoing.T

        with tempfile.TemporaryDirectory() as folder:
            flags = {"act_fun": "tanh", "training_steps": "600it", "datagen": "random:300", "quiet": True}
            found = recover(predict, default_hparams="students_mlp(3)_2_6_1", folder=folder, **flags)
            self.assertTrue(found.certificate.accepted, found.verdict)
            self.assertEqual([(2, 3), (1, 3)], [layer.shape for layer in found.layers])
            self.assertTrue(os.path.exists(os.path.join(found.folder, "reconstructed_model", "network.pt2")))
            with torch.no_grad():
                np.testing.assert_allclose(found.network(torch.from_numpy(queries)).numpy(), predict(queries), atol=1e-12)

    def test_other_answers_and_unknown_flags_are_refused(self):
        for answers, flags in (([1.0], {}), ((np.ones((9, 2)), np.ones((9, 1))), {"acfun": "tanh"})):
            with self.subTest(flags), self.assertRaises(ConfigError):
                recover(answers, default_hparams="students_mlp(3)_2_6_1", **flags)


if __name__ == "__main__":
    unittest.main()
