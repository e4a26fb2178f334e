"""The command `extract` for black boxes whose network derivatives find, and for those where they do not."""

import dataclasses
import json
import os
import unittest
from unittest import mock

import numpy as np
import torch

from extraction import certificate, plotting, runner
from extraction.certification.rival import largest_error
from extraction.derivatives.result import Recovery
from extraction.desc import ExtractionDesc
from extraction.live import derived
from extraction.network import Layers, fit_outputs
from extraction.racing.derived_race import Architecture
from extraction.reporting import export
from foundations.errors import ConfigError
from testing import toy_teacher
from testing.test_case import TestCase
from training.job import JobArgs

FUNCTION = """
import numpy as np
with np.load({weights!r}) as file:
    W = dict(file)
def predict(X):
    with open({log!r}, "ab") as file:
        file.write(np.ascontiguousarray(X).tobytes())
    {check}
    return {fun}(X @ W["W1"].T + W["b1"]) @ W["W2"].T + W["b2"]
"""


class DerivedTestCase(TestCase):
    def setUp(self):
        super().setUp()
        self.log = os.path.join(self.root, "asked")
        for name in ("draw", "program"):  # pictures and the exported program take seconds, and are tested elsewhere
            module = plotting if name == "draw" else export
            patch = mock.patch.object(module, name, return_value=b"")
            patch.start()
            self.addCleanup(patch.stop)

    def oracle(self, inputs=8, hidden=4, outputs=2, fun="np.tanh", check="pass"):
        """The name of a black box, and its weights."""
        numbers = np.random.default_rng(0)
        weights = {"W1": (hidden, inputs), "b1": (hidden,), "W2": (outputs, hidden), "b2": (outputs,)}
        self.weights = {name: numbers.uniform(-1, 1, shape) for name, shape in weights.items()}
        path = os.path.join(self.root, "weights.npz")
        np.savez(path, **self.weights)
        with open(os.path.join(self.root, "oracle.py"), "w") as file:
            file.write(FUNCTION.format(weights=path, log=self.log, check=check, fun=fun))
        return f"{self.root}/oracle.py:predict"

    def asked(self, inputs=8):
        """The queries that the black box was asked, `[n, inputs]`."""
        with open(self.log, "rb") as file:
            return np.frombuffer(file.read()).reshape(-1, inputs)

    def checked(self, *, students="students_mlp(6)_8_16_2", act_fun="tanh", extraction=None, **dataset):
        """The descriptor and the teacher of an extraction, ready to be asked."""
        desc = ExtractionDesc.default_for(students)
        desc.model_hparams.act_fun = act_fun
        desc = dataclasses.replace(
            desc,
            dataset_hparams=dataclasses.replace(desc.dataset_hparams, **dataset),
            extraction_hparams=dataclasses.replace(desc.extraction_hparams, **(extraction or {})),
        )
        desc, teacher, prepare = runner.check(desc, JobArgs(quiet=True))
        prepare()
        return desc, teacher


class TestCommand(DerivedTestCase):
    def test_a_network_is_found_without_its_architecture_and_examined_at_fresh_queries(self):
        black_box = f"--teacher_name={self.oracle()}"
        status, out, err = self.command("extract", black_box, "--d_in=8", "--global_seed=3")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Verdict: IDENTIFIED exactly. mlp_8_4_2 gives every answer to rounding", out)
        (name,) = [name for name in self.files() if name.endswith("report.json")]
        location = os.path.join(self.root, os.path.dirname(name))
        with open(os.path.join(self.root, name)) as file:
            report = json.load(file)
        with self.subTest("every question counts, and is asked once"):
            asked = self.asked()
            self.assertEqual(len(asked), sum(report["queries"].values()))
            self.assertEqual(len(np.unique(asked, axis=0)), len(asked) - 8)  # the first eight are asked twice
            self.assertEqual(set(report["queries"]), {"start", "derivatives", "fresh", "held out"})
        with self.subTest("the network is saved"):
            state = torch.load(os.path.join(location, "reconstructed_model", "model_ep1_it0.pth"), weights_only=True)
            queries = np.random.default_rng(1).normal(size=(9, 8))
            hidden = np.tanh(queries @ state["fc_layers.0.weight"].numpy().T + state["fc_layers.0.bias"].numpy())
            given = np.tanh(queries @ self.weights["W1"].T + self.weights["b1"]) @ self.weights["W2"].T + self.weights["b2"]
            np.testing.assert_allclose(hidden @ state["fc.weight"].numpy().T + state["fc.bias"].numpy(), given, atol=1e-12)
        with self.subTest("the ordinary command has the same result, and asks nothing"):
            ordinary = out.splitlines()[-1].partition("EC.py ")[2].replace("'", "").split()
            *_, again = self.command(*ordinary)[1].splitlines()
            self.assertRegex(again, "^Verdict: IDENTIFIED exactly")
            self.assertEqual(len([name for name in self.files() if name.endswith("report.json")]), 1)
            self.assertEqual(len(self.asked()), len(asked))
        with self.subTest("a killed run asks nothing again, and ends in the same bits"):
            os.remove(os.path.join(location, "report.json"))
            self.assertEqual(self.command(*ordinary)[0], 0)
            self.assertEqual(len(self.asked()), len(asked))
            later = torch.load(os.path.join(location, "reconstructed_model", "model_ep1_it0.pth"), weights_only=True)
            self.assertTrue(all(torch.equal(state[key], later[key]) for key in state))
        with self.subTest("runs lists it"):
            self.assertRegex(self.command("runs", "--where", "accepted=yes")[1], "extract .* finished")

    def test_the_network_of_a_run_folder_is_compared_with_the_one_that_is_found(self):
        name, _ = toy_teacher.make("mlp_6_4_3", "relu", seed=1)
        run = "extract", "--default_hparams=students_mlp(6)_6_12_3", f"--teacher_name={name}", "--teacher_seed=1", "--global_seed=3"
        status, out, err = self.command(*run, "--act_fun=relu", "--seeds=derivatives", "--datagen=random:50")
        self.assertEqual((status, err), (0, ""))
        self.assertIn("Verdict: IDENTIFIED. 4 of 4 neurons, none in excess", out)

    def test_derivatives_alone_say_why_they_find_nothing(self):
        box = f"--teacher_name={self.oracle(fun='np.sin')}"
        status, _, err = self.command("extract", box, "--d_in=8", "--seeds_from=derivatives")
        self.assertEqual((status, err.count("\n")), (2, 1))
        self.assertRegex(err, "--seeds_from: derivatives do not find the network: the activation function is unknown")
        status, _, err = self.command("extract", box, "--d_in=8", "--seeds=derivative")
        self.assertRegex(err, "--seeds_from: .*'derivatives'")


class TestAttempt(DerivedTestCase):
    def test_the_answers_of_black_boxes_come_first_where_they_are_always_the_same(self):
        desc, teacher = self.checked(teacher_name=self.oracle(), datagen="random:40")
        named = lambda choice: dataclasses.replace(desc, extraction_hparams=dataclasses.replace(desc.extraction_hparams, seeds_from=choice))  # noqa: E731
        choices = [derived.comes_first(named(choice), teacher) for choice in ("auto", "students", "derivatives")]
        self.assertEqual(choices, [True, False, True])
        self.assertFalse(derived.comes_first(desc, dataclasses.replace(teacher, noise=(0.1, 0.1))))

    def test_a_budget_leaves_half_to_students(self):
        desc, teacher = self.checked(teacher_name=self.oracle(), datagen="random:400", query_budget=900)
        recovery = derived.attempt(desc, teacher)
        self.assertRegex(recovery.lacks[0], "exceed the budget")
        planned = sum(map(len, teacher.planned("random:400")))
        self.assertLessEqual(recovery.queries, 450)
        self.assertLessEqual(recovery.queries + planned + 8, 900)
        self.assertGreaterEqual(planned, 400)

    def test_a_domain_is_not_left(self):
        check = "assert X.min() >= 1 and X.max() <= 2, 'outside'"
        for fun, lacks in (("np.tanh", ()), ("np.abs", ("within a domain, networks of relu and leaky relu are not found yet",))):
            box = self.oracle(fun=fun, check=check)
            desc, teacher = self.checked(teacher_name=box, datagen=None, extraction={"domain": "1:2"})
            self.assertEqual(desc.dataset_hparams.datagen, "box:1:2:4000")
            recovery = derived.attempt(desc, teacher)
            self.assertEqual(recovery.lacks, lacks)
            os.remove(self.log)
        desc, teacher = self.checked(teacher_name=self.oracle(check=check), datagen=None, extraction={"domain": "1:2"})
        session = derived.session_of(desc, teacher, derived.attempt(desc, teacher), os.path.join(self.root, "run"), 3)
        self.assertTrue(all(bool(((loader.examples >= 1) & (loader.examples <= 2)).all()) for loader in session.loaders))

    def test_a_black_box_that_fails_far_out_is_left_to_students(self):
        check = "assert abs(X).max() < 50, 'too large'"
        desc, teacher = self.checked(teacher_name=self.oracle(check=check), datagen="random:40")
        self.assertRegex(derived.attempt(desc, teacher).lacks[0], "the teacher fails on one of their questions: .* too large")
        alone = dataclasses.replace(desc, extraction_hparams=dataclasses.replace(desc.extraction_hparams, seeds_from="derivatives"))
        with self.assertRaisesRegex(ConfigError, "too large"):
            derived.attempt(alone, teacher)

    def test_answers_of_float32_are_examined_at_one_distance_and_fitted(self):
        rounded = 'return (np.tanh(X @ W["W1"].T + W["b1"]) @ W["W2"].T + W["b2"]).astype(np.float32)'
        desc, teacher = self.checked(teacher_name=self.oracle(check=rounded), datagen="random:40")
        recovery = derived.attempt(desc, teacher)
        assert recovery.layers is not None
        session = derived.session_of(desc, teacher, recovery, os.path.join(self.root, "run"), 3)
        queries = session.loaders.train.examples
        self.assertEqual(len(queries), max(200, 20 * 46 // 2))
        self.assertLess(float(queries.std()), 1.2 * recovery.radius)
        fitted = derived.reconstruction(dataclasses.replace(session, verbose=False), recovery).network
        self.assertLess(largest_error(fitted, session.loaders.test, session.answers.std(0)), 1e-6)

    def test_of_two_names_of_a_function_the_stated_one_is_given(self):
        found = []
        for act_fun in ("tanh", "sigmoid"):
            desc, teacher = self.checked(teacher_name=self.oracle(), datagen="random:40", act_fun=act_fun)
            found.append(derived.attempt(desc, teacher).layers.act_fun)
        self.assertEqual(found, ["tanh", "sigmoid"])

    def test_a_file_of_answers_cannot_be_asked(self):
        path = os.path.join(self.root, "answers.npz")
        queries = np.random.default_rng(0).normal(size=(40, 8))
        np.savez(path, X=queries, y=np.tanh(queries[:, :2]))
        with self.assertRaisesRegex(ConfigError, "--seeds_from: derivatives needs a teacher that can be asked"):
            self.checked(teacher_name=path, datagen=None, extraction={"seeds_from": "derivatives"})
        desc, teacher = self.checked(teacher_name=path, datagen=None)
        self.assertFalse(derived.comes_first(desc, teacher))


class TestCertificate(DerivedTestCase):
    def accepted(self, layers, name):
        """Whether the certificate of large networks accepts a network that derivatives are said to have found."""
        desc, teacher = self.checked(teacher_name=self.box, act_fun="relu", datagen="random:40")
        recovery = Recovery(layers, 1e-14, (), None, 10**6, (), 1.0)
        session = derived.session_of(desc, teacher, recovery, os.path.join(self.root, name), 3)
        result = dataclasses.replace(derived.reconstruction(session, recovery), derivatives=recovery)
        return certificate.certify(session, result).accepted

    def test_a_large_network_with_kinks_is_accepted_if_it_is_right(self):
        self.box = self.oracle(fun="(lambda u: np.maximum(u, 0))")
        for module in (derived, certificate):
            patch = mock.patch.object(module, "DENSE_PARAMETERS", 10)
            patch.start()
            self.addCleanup(patch.stop)
        first, last = (
            torch.cat([torch.as_tensor(self.weights[f"W{layer}"]), torch.as_tensor(self.weights[f"b{layer}"])[:, None]], 1)
            for layer in (1, 2)
        )
        network = Layers((first, last), "relu")
        self.assertTrue(self.accepted(network, "right"))
        scale = torch.tensor([0.1, 3.0, 1.0, 50.0], dtype=torch.float64)
        order = [2, 0, 1, 3]
        same = network.replace((first * scale[:, None])[order], torch.cat([(last[:, :-1] / scale)[:, order], last[:, -1:]], 1))
        self.assertTrue(self.accepted(same, "same"))
        wrong = {"weight": (first.clone(), last), "sign": (first.clone(), last), "outgoing": (first, last.clone())}
        wrong["weight"][0][1, 2] += 1e-6
        wrong["sign"][0][2] *= -1
        wrong["outgoing"][1][1, 1] += 1e-6
        wrong |= {"rows": (first[[1, 0, 2, 3]], last), "missing": (first[1:], last[:, 1:])}
        for name, vectors in wrong.items():
            if name in ("sign", "missing"):  # the output layer compensates as well as it can
                hidden, queries = network.replace(vectors[0]), torch.randn(400, 8, dtype=torch.float64)
                vectors = vectors[0], fit_outputs(hidden.activations(queries), network.pre_activations(queries)).T.contiguous()
            with self.subTest(name):
                self.assertFalse(self.accepted(network.replace(*vectors), name))


class TestArchitecture(unittest.TestCase):
    def test_the_ordinary_extraction_has_wider_students_and_the_activation_function(self):
        layers = Layers((torch.zeros(3, 6), torch.zeros(2, 4)), "gelu")
        found = Architecture.of(Recovery(layers, 0.0, (), None, 70, ()))
        bundles = {"training_hparams": {}, "extraction_hparams": {}}
        desc = found.as_given(bundles | {"dataset_hparams": {"teacher_name": "oracle.py:predict"}, "model_hparams": {}})
        self.assertEqual((desc.model_hparams.model_name, desc.model_hparams.act_fun), ("students_mlp(10)_5_12_2", "gelu"))

    def test_students_have_what_is_left_of_a_budget(self):
        found = Architecture([], "", ["nothing"], 70)
        changes = found.without_derivatives({"dataset_hparams": {"query_budget": 200}, "extraction_hparams": {"gamma": 0.5}})
        self.assertEqual(
            changes, {"dataset_hparams": {"query_budget": 130}, "extraction_hparams": {"gamma": 0.5, "seeds_from": "students"}}
        )


if __name__ == "__main__":
    unittest.main()
