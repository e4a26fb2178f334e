"""Networks that are fitted to rounded probabilities, against the networks behind them."""

import dataclasses
import os

import numpy as np
import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from datasets.teachers import links
from extraction.certificate import error_bars, to_precision
from extraction.fitting import fit
from extraction.network import Layers
from extraction.preparation.coordinates import Coordinates
from extraction.preparation.rows import Rows
from extraction.preparation.scaling import Scaling
from extraction.refinement.linked import fit_probabilities
from extraction.search import Reconstruction
from extraction.test.known_networks import network, queries, session_of, without_pictures
from testing.test_case import TestCase


class TestProbabilities(TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(without_pictures())

    def recovered(self, link, decimals, is_scaled=False):
        """A session, the true layers with logits of mean zero, and the reconstruction from a start near them."""
        x, teacher = queries(600, 3), network("mlp_3_4_3", seed=1)
        first, last = teacher.layer_vectors()
        last = 3 * (last - last.mean(0)) if link == "softmax" else 3 * last
        teacher.load_layer_vectors([first, last])
        logits = teacher(x).detach()
        true = torch.softmax(logits, 1) if link == "softmax" else torch.sigmoid(logits)
        converted = links.convert(true.numpy().round(decimals), link)
        x, y = x[torch.from_numpy(converted.kept)], torch.from_numpy(converted.logits)
        numbers = torch.arange(len(x))
        parts = numbers[numbers % 10 != 9], numbers[numbers % 10 == 9]
        own = Rows(
            Loaders(*(DataLoader(Dataset(x[part], y[part]), 64, 1, torch.float64) for part in parts)), parts, errors=converted.errors
        )
        scaling = Scaling(Coordinates.of_inputs(x), Coordinates.of_outputs(2 * y + 20)) if is_scaled else None
        if scaling:
            outputs = dataclasses.replace(scaling.outputs, mean=scaling.outputs.mean / 2 - 10, spread=scaling.outputs.spread / 2)
            scaling = dataclasses.replace(scaling, outputs=outputs)
        session = session_of("students_mlp(2)_3_9_3", own.kept, self.root)
        session = dataclasses.replace(session, scaling=scaling).of_file(own, own.scaled(scaling)).with_precision()
        session.desc.dataset_hparams.link = link
        inside = last
        if scaling:
            inside = scaling.outputs.inward.T @ (
                (last - torch.cat([0 * last[:, :-1], scaling.outputs.mean[:, None]], 1)) / scaling.outputs.spread[:, None]
            )
        folder = os.path.join(self.root, f"{link}_{decimals}_{is_scaled}")
        start = fit(session, Layers((first, inside), "tanh"), os.path.join(folder, "logits"), None)
        fitted = fit_probabilities(session, start, os.path.join(folder, "probabilities"))
        return session, [first, last], start, fitted

    def error(self, fitted, true, scaling=None):
        found = Layers.of(fitted.network)
        found = scaling.fold(found) if scaling else found
        return [np.asarray(mine - theirs) for mine, theirs in zip(found.vectors, true, strict=True)]

    def test_probabilities_tell_more_than_their_logits(self):
        for link, decimals in (("softmax", 4), ("softmax", 6), ("sigmoid", 4)):
            with self.subTest(link=link, decimals=decimals):
                session, true, start, fitted = self.recovered(link, decimals)
                worst = [max(abs(each).max() for each in self.error(one, true)) for one in (start, fitted)]
                self.assertLess(2 * worst[1], worst[0])
                self.assertLess(worst[1], 20 * 10.0**-decimals)
                self.assertEqual(session.known.name, f"decimals:{decimals}")

    def test_standard_errors_hold_with_the_shift_taken_out(self):
        session, true, _, fitted = self.recovered("softmax", 4)
        result = Reconstruction([], fitted, [], "", [])
        noise, bars = error_bars(session, result)
        np.testing.assert_allclose(np.asarray(noise), 1e-4 / 12**0.5, rtol=0.2)
        ratios = np.concatenate([(error / np.asarray(bar)).ravel() for error, bar in zip(self.error(fitted, true), bars, strict=True)])
        self.assertLess(abs(ratios).max(), 4)
        self.assertGreater(np.square(ratios).mean() ** 0.5, 0.4)
        figures, uncertain = to_precision(session, result, {"unknowns": 31, "separation": 0.1})
        self.assertEqual(uncertain, [])
        self.assertLess(abs(figures["structure"]), 5)
        self.assertLess(figures["error_95"], 0.01)

    def test_a_scaling_of_the_logits_changes_nothing(self):
        session, true, _, fitted = self.recovered("softmax", 4, is_scaled=True)
        errors = self.error(fitted, true, session.scaling)
        self.assertLess(max(abs(each).max() for each in errors), 2e-3)
        output = session.scaling.fold(Layers.of(fitted.network)).vectors[-1]
        np.testing.assert_allclose(np.asarray(output.mean(0)), 0, atol=1e-12)
        _, bars = error_bars(session, Reconstruction([], fitted, [], "", []))
        self.assertTrue(all(bool(bar.isfinite().all()) for bar in bars))
