"""Error bars of weights against the errors of least-squares fits, and the tests of what fits leave."""

import copy
import math
import unittest

import torch
from torch.func import functional_call, jacrev

from datasets.base import DataLoader
from datasets.teacher_dataset import Dataset
from extraction.certification.uncertainty import (
    held_out_excess,
    largest_weight_error,
    noise_of,
    standard_errors,
    structure,
    uncertain_neurons,
)
from extraction.evaluation import in_gauge_of, match
from extraction.symmetry import symmetries
from extraction.test.known_networks import network
from training.second_order import LevenbergMarquardt
from training.train import Objective

NOISE = torch.tensor([1e-3, 3e-3], dtype=torch.float64)


def fitted(name, act_fun, seed, count=600, start=None):
    """A teacher, a network that was fitted to its noisy answers, and these answers."""
    generator = torch.Generator().manual_seed(seed)
    teacher = network(name, act_fun)
    for parameter in teacher.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x = 2 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    y = teacher(x).detach()
    y = y + NOISE * torch.randn(y.shape, generator=generator, dtype=torch.float64)
    model = copy.deepcopy(start or teacher)
    optimizer, objective = LevenbergMarquardt(model), Objective(model, x, y)
    for _ in range(8):
        optimizer.step(objective)
    return teacher, model, DataLoader(Dataset(x, y), count, seed=0, dtype=torch.float64)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


class TestStandardErrors(unittest.TestCase):
    def test_true_weights_are_within_one_and_two_standard_errors_as_often_as_they_should_be(self):
        for act_fun in ("tanh", "relu"):
            deviations, covered = [], 0
            for seed in range(20):
                teacher, model, loader = fitted("mlp_3_3_2", act_fun, seed)
                symmetry = symmetries[act_fun]
                errors = standard_errors(model, symmetry, loader, noise_of(model, loader, parameters(model)))
                hidden, last = in_gauge_of(model.layer_vectors(), teacher.layer_vectors(), symmetry)
                pairs = match(hidden, teacher.layer_vectors()[0], symmetry)
                self.assertEqual(pairs.ours.tolist(), pairs.theirs.tolist())
                ours, true = (hidden * pairs.factors, last), teacher.layer_vectors()
                deviations += [((a - b) / error).flatten() for a, b, error in zip(ours, true, errors, strict=True)]
                worst = max(float(((a - b).abs() / b.abs().max()).max()) for a, b in zip(ours, true, strict=True))
                covered += worst <= largest_weight_error(model, errors)
            values = torch.cat(deviations).abs()
            with self.subTest(act_fun):
                self.assertAlmostEqual(float((values < 1).double().mean()), 0.68, delta=0.07)
                self.assertAlmostEqual(float((values < 2).double().mean()), 0.95, delta=0.04)
                self.assertGreaterEqual(covered, 18)

    def test_errors_are_those_of_the_larger_covariance_of_least_squares(self):
        _, model, loader = fitted("mlp_3_3_2", "tanh", 4)
        spread = loader.examples[:, :1].abs()  # errors are larger where the first input is
        residuals = 1e-3 * spread * torch.randn(600, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        loader = DataLoader(Dataset(loader.examples, model(loader.examples).detach() - residuals), 600, 0, torch.float64)
        weights = dict(model.named_parameters())
        rows = jacrev(lambda values: functional_call(model, values, (loader.examples,)))(weights)
        jacobian = torch.cat([rows[name].flatten(2) for name in weights], 2).detach()  # [Q, O, P]
        inverse = torch.linalg.inv(torch.einsum("qop,qor->pr", jacobian, jacobian))
        noise = noise_of(model, loader, parameters(model))
        torch.testing.assert_close(noise, (residuals.square().sum(0) / (600 - parameters(model) / 2)).sqrt())
        equal = torch.einsum("qop,o,qor->pr", jacobian, noise.square(), jacobian)
        pulls = torch.einsum("qop,qo->qp", jacobian, residuals)
        own = pulls.T @ pulls * 600 / (600 - parameters(model) / 2)
        away = (inverse @ pulls.sum(0)).square()
        covariances = [(inverse @ each @ inverse).diagonal() for each in (equal, own)]
        self.assertTrue(0 < int((covariances[0] > covariances[1]).sum()) < parameters(model))
        expected = (torch.maximum(*covariances) + away).sqrt()
        hidden, last = standard_errors(model, symmetries["tanh"], loader, noise)
        found = torch.cat([hidden[:, :-1].flatten(), hidden[:, -1], last[:, :-1].flatten(), last[:, -1]])
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)

    def test_answers_to_the_same_query_count_once_where_errors_are_those_of_rounding(self):
        teacher, model, loader = fitted("mlp_3_3_2", "tanh", 5)
        answers = teacher(loader.examples).detach().round(decimals=2)
        once = DataLoader(Dataset(loader.examples, answers), 600, 0, torch.float64)
        noise = noise_of(teacher, once, parameters(model))
        twice = DataLoader(Dataset(loader.examples.repeat(2, 1), answers.repeat(2, 1)), 1200, 0, torch.float64)
        torch.testing.assert_close(noise_of(teacher, twice, parameters(model)), noise, rtol=1e-3, atol=0)
        errors = [standard_errors(teacher, symmetries["tanh"], each, noise) for each in (once, twice)]
        ratios = torch.cat([(b / a).flatten() for a, b in zip(*errors, strict=True)])
        self.assertGreater(float(ratios.min()), 0.95)
        self.assertLess(float(ratios.max()), 1.05)

    def test_errors_of_arithmetic_do_not_average_out(self):
        teacher, model, loader = fitted("mlp_3_3_2", "tanh", 6)
        answers = copy.deepcopy(teacher).float()(loader.examples.float()).double().detach()
        loader = DataLoader(Dataset(loader.examples, answers), 600, 0, torch.float64)
        for _ in range(8):
            LevenbergMarquardt(model).step(Objective(model, loader.examples, answers))
        noise = noise_of(model, loader, parameters(model))
        plain, wider = (standard_errors(model, symmetries["tanh"], loader, noise, computed_in) for computed_in in (None, torch.float32))
        ratios = torch.cat([(b / a).flatten() for a, b in zip(plain, wider, strict=True)])
        self.assertGreater(float(ratios.min()), 1.3)
        self.assertLess(float(ratios.median()), 2)

    def test_weights_that_no_answer_tells_have_infinite_errors(self):
        _, model, loader = fitted("mlp_3_3_2", "tanh", 0)
        model.fc.weight.data[:, 1] = 0
        loader = DataLoader(Dataset(loader.examples, model(loader.examples).detach()), 600, 0, torch.float64)
        hidden, last = standard_errors(model, symmetries["tanh"], loader, NOISE)
        self.assertEqual([bool(row.isinf().all()) for row in hidden], [False, True, False])
        self.assertEqual(uncertain_neurons(model, [hidden, last], 1e-2), ["neuron 1"])

    def test_a_fit_away_from_the_optimum_has_errors_that_include_the_distance(self):
        teacher, model, loader = fitted("mlp_3_3_2", "tanh", 0)
        model.fc.weight.data[0, 0] += 0.01
        errors = standard_errors(model, symmetries["tanh"], loader, NOISE)
        self.assertGreater(float(errors[1][0, 0]), 0.005)


class TestNoise(unittest.TestCase):
    def test_the_noise_is_estimated_output_by_output(self):
        _, model, loader = fitted("mlp_3_3_2", "tanh", 1, count=2000)
        torch.testing.assert_close(noise_of(model, loader, parameters(model)), NOISE, rtol=0.06, atol=0)

    def test_noise_has_no_structure_and_a_missing_neuron_has(self):
        teacher, model, loader = fitted("mlp_3_3_2", "tanh", 2)
        self.assertLess(structure(model, loader, parameters(model)), 3)
        _, narrow, loader = fitted("mlp_3_3_2", "tanh", 2, start=network("mlp_3_2_2"))
        self.assertGreater(structure(narrow, loader, parameters(narrow)), 10)

    def test_errors_of_arithmetic_have_structure_up_to_a_size(self):
        teacher, model, loader = fitted("mlp_3_3_2", "relu", 2)
        wave = NOISE * torch.sign(model(loader.examples).detach())  # as large as the noise, and a function of the query
        loader = DataLoader(Dataset(loader.examples, loader.labels + 0.5 * wave), 600, 0, torch.float64)
        self.assertGreater(structure(model, loader, parameters(model)), 5)
        self.assertLess(structure(model, loader, parameters(model), torch.float32), 5)
        loader = DataLoader(Dataset(loader.examples, loader.labels + 5 * wave), 600, 0, torch.float64)
        self.assertGreater(structure(model, loader, parameters(model), torch.float32), 5)

    def test_rows_that_are_repeated_with_their_errors_show_no_more(self):
        _, model, loader = fitted("mlp_3_3_2", "tanh", 0)
        twice = DataLoader(Dataset(*(torch.cat([each, each]) for each in (loader.examples, loader.labels))), 1200, 0, torch.float64)
        share = parameters(model) / loader.labels.numel()
        for found in (structure, lambda *arguments: held_out_excess(*arguments[:2], NOISE, share)):
            once, again = (found(model, each, parameters(model)) for each in (loader, twice))
            self.assertAlmostEqual(again, once, delta=0.5)

    def test_too_few_queries_show_no_structure(self):
        _, model, loader = fitted("mlp_3_3_2", "tanh", 2, count=40)
        self.assertIsNone(structure(model, loader, parameters(model)))

    def test_held_out_errors_of_the_size_of_the_noise_are_expected(self):
        _, model, _ = fitted("mlp_3_3_2", "tanh", 3)
        generator = torch.Generator().manual_seed(9)
        x = torch.randn(800, 3, generator=generator, dtype=torch.float64)
        errors = torch.randn(800, 2, generator=generator, dtype=torch.float64)
        for factor, least, most in ((1.0, -4, 4), (1.5, 10, math.inf)):
            labels = model(x).detach() + factor * NOISE * errors
            excess = held_out_excess(model, DataLoader(Dataset(x, labels), 800, 0, torch.float64), NOISE, 0.0)
            self.assertTrue(least < excess < most, excess)


if __name__ == "__main__":
    unittest.main()
