"""Black boxes: what they are asked, what is said when they fail, and what their answers are taken for."""

import importlib.util
import os
import unittest
import warnings
from unittest import mock

import numpy as np
import torch

from datasets.teachers import links
from datasets.teachers import registry as registered
from datasets.teachers.ledger import Ledger
from datasets.teachers.live import LEAST, START, LiveTeacher, order_of_asking
from datasets.teachers.onnx_network import OnnxNetwork
from datasets.teachers.responding import as_matrix, in_batches
from foundations.dataset_hparams import DatasetHparams
from foundations.errors import ConfigError
from testing.test_case import TestCase

WEIGHTS = np.random.RandomState(0).randn(3, 2)
COUNTS = """
import numpy as np
W = np.random.RandomState(0).randn(3, 2)
def predict(X):
    with open("{log}", "ab") as file:
        file.write(X.tobytes())
    return np.tanh(X @ W)
"""


class LiveTest(TestCase):
    def setUp(self):
        super().setUp()
        self.log = os.path.join(self.root, "asked")

    def source(self, body: str = COUNTS, name: str = "oracle.py") -> str:
        path = os.path.join(self.root, name)
        with open(path, "w") as file:
            file.write(body.replace("{log}", self.log))
        return f"{path}:predict"

    def asked(self) -> np.ndarray:
        with open(self.log, "rb") as file:
            return np.frombuffer(file.read()).reshape(-1, 3)

    def teacher(self, text: str, datagen: str = "random:20", inputs: int | None = 3, **hparams) -> LiveTeacher:
        link = hparams.get("link")
        dataset_hparams = DatasetHparams("teacher", 8, text, datagen=datagen, **hparams)
        kind = registered.recognised(text)
        assert issubclass(kind, LiveTeacher)
        teacher = kind.named(registered.name_of(kind), dataset_hparams, inputs).started(datagen, link)
        teacher.begin()
        return teacher

    def pairs(self, teacher: LiveTeacher, datagen: str = "random:20") -> list[torch.Tensor]:
        hparams = DatasetHparams("teacher", 8, teacher.name, datagen=datagen)
        sets = [registered.read(hparams).pairs(hparams, train, seed=1) for train in (True, False)]
        return [values for each in sets for values in (each.queries, each.answers)]


class TestFunction(LiveTest):
    def test_answers_are_those_of_the_function_in_float64_and_are_asked_once(self):
        for _ in range(2):
            queries, answers, held_out, _ = self.pairs(self.teacher(self.source()))
            np.testing.assert_array_equal(answers.numpy(), np.tanh(queries.numpy() @ WEIGHTS))
            self.assertEqual((queries.dtype, answers.dtype, len(queries), len(held_out)), (torch.float64, torch.float64, 20, 5))
        self.assertEqual(len(self.asked()), START + 20 + 5)  # the first queries for training are those of the start

    def test_every_seed_has_the_same_queries(self):
        self.teacher(self.source())
        hparams = DatasetHparams("teacher", 8, self.teacher(self.source()).name, datagen="random:20")
        first, second = (registered.read(hparams).pairs(hparams, True, seed).queries for seed in (1, 2))
        self.assertTrue(torch.equal(first, second))

    def test_it_is_named_by_its_bytes_and_its_function_alone(self):
        names = [self.teacher(self.source(name=name)).name for name in ("a.py", "b.py")]
        other = self.teacher(self.source(COUNTS + "\n")).name
        self.assertEqual(names[0], names[1])
        self.assertNotEqual(names[0], other)
        self.assertRegex(names[0], r"^function_[0-9a-f]{32}$")

    def test_questions_are_counted_by_phase(self):
        teacher = self.teacher(self.source())
        self.pairs(teacher)
        queries, answers = teacher.ask_for("more", torch.randn(3, 3))
        np.testing.assert_array_equal(answers.numpy(), np.tanh(queries.numpy() @ WEIGHTS))
        self.assertEqual(teacher.questions.counts, {"start": 16, "training": 12, "held out": 5, "more": 3})

    def test_it_needs_the_number_of_inputs_and_a_name_that_exists(self):
        text = self.source()
        for wrong, inputs, message in (
            (text, None, "--d_in is required with oracle.py:predict, which does not say"),
            (text.replace("predict", "answer"), 3, "oracle.py has no answer; valid: oracle.py:predict"),
            (text.replace(":predict", ""), 3, "names no function; valid: .*oracle.py:FUNCTION, such as oracle.py:predict"),
            (text.replace("predict", "W"), 3, "W in .* is no function"),
            (text.replace("oracle", "other"), 3, "other.py cannot be read"),
        ):
            with self.assertRaisesRegex(ConfigError, message):
                self.teacher(wrong, inputs=inputs)

    def test_what_fails_is_said_with_the_number_of_the_query(self):
        head = "import numpy as np\nasked = 0\ndef predict(X):\n    global asked\n    asked += len(X)\n    y = X[:, :2].copy()\n"
        for body, message in (
            ("    if asked > 30:\n        raise OSError('gone')", r"failed on queries 29 to 32 \(OSError: gone, line 8 of oracle.py\)"),
            ("    if asked > 30:\n        y = y[:, :1]", "returned 1 values for a query, not 2 as before, for queries 2.* to "),
            ("    if asked > 26:\n        y[0, 0] = np.nan", "answered query 2. with a value that is not finite"),
            ("    if asked > 26:\n        y = 'text'", "returned str of .*, not an array of numbers, for quer"),
            ("    if asked > 26:\n        y = None", "returned None, not an array of numbers"),
            ("    if asked > 26:\n        y = y[1:]", r"returned an array of shape \[.*\], not \[.*, outputs\]"),
            ("    if asked > 26:\n        raise SystemExit(3)", "failed on .*SystemExit: 3"),
        ):
            teacher = self.teacher(self.source(head + body + "\n    return y\n"), oracle_batch_size=4)
            with self.assertRaisesRegex(ConfigError, f"--teacher_name: oracle.py:predict {message}.*; the answers before are kept"):
                self.pairs(teacher)
            self.assertGreater(teacher.questions.ledger.asked, 24)

    def test_what_it_does_to_generators_and_settings_of_torch_stays_with_it(self):
        body = "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.manual_seed(5)\n"
        body += "def predict(X):\n    torch.manual_seed(7)\n    return X[:, :2]\n"
        torch.manual_seed(1)
        expected = torch.get_rng_state()
        self.pairs(self.teacher(self.source(body)))
        self.assertTrue(torch.equal(torch.get_rng_state(), expected))
        self.assertEqual(torch.get_default_dtype(), torch.float32)

    def test_neither_settings_of_numpy_nor_the_working_folder_change(self):
        folder, settings = os.getcwd(), np.geterr()
        body = f"import os\nimport numpy as np\nnp.seterr(all='raise')\nos.chdir({self.root!r})\n"
        body += f"def predict(X):\n    assert os.getcwd() == os.path.realpath({self.root!r}), os.getcwd()\n    return X[:, :2]\n"
        self.pairs(self.teacher(self.source(body)))
        self.assertEqual((os.getcwd(), np.geterr()), (folder, settings))

    def test_a_function_that_takes_batches_of_one_size_says_so(self):
        body = "def predict(X):\n    assert len(X) == 16, f'batches of 16, not {len(X)}'\n    return X[:, :2]\n"
        with self.assertRaisesRegex(ConfigError, "batches of 16, not 8"):
            self.teacher(self.source(body))
        x, y, *_ = self.pairs(self.teacher(self.source(body + "predict.batch_size = 16\n")))
        self.assertTrue(torch.equal(x[:, :2], y))

    def test_one_that_answers_differently_the_second_time_is_noticed(self):
        for library in ("np.random.randn(*y.shape)", "torch.randn(*y.shape).numpy()"):
            body = f"import numpy as np, torch\ndef predict(X):\n    y = X[:, :2].copy()\n    return y + 0.1 * {library}\n"
            teacher = self.teacher(self.source(body))
            self.assertIn("the same query is answered differently the second time by oracle.py:predict, by up to", teacher.note)
            self.assertIn("dropout", teacher.note)
            self.assertTrue(all(0.03 < noise < 0.3 for noise in teacher.noise), teacher.noise)
        self.assertEqual((self.teacher(self.source()).noise, self.teacher(self.source()).note), ((), ""))

    def test_answers_that_depend_on_the_other_queries_of_a_batch_are_noticed(self):
        body = "def predict(X):\n    return (X - X.mean(0))[:, :2]\n"
        self.assertIn("differently", self.teacher(self.source(body)).note)

    def test_probabilities_are_converted_to_logits_under_a_name_of_their_own(self):
        body = COUNTS.replace("return np.tanh(X @ W)", "p = np.exp(X @ W)\n    return p / p.sum(1, keepdims=True)")
        teacher = self.teacher(self.source(body))
        queries, answers, _, _ = self.pairs(teacher)
        logits = queries.numpy() @ WEIGHTS
        np.testing.assert_allclose(answers.numpy(), logits - logits.mean(1, keepdims=True), atol=1e-12)
        self.assertEqual(teacher.link, "softmax")
        self.assertTrue(teacher.name.endswith("_softmax"))
        raw = self.teacher(self.source(body), link=links.RAW)
        self.assertEqual(teacher.name, f"{raw.name}_softmax")
        self.assertEqual(len(self.asked()), 33)  # both have one ledger

    def test_classes_and_constants_are_refused(self):
        for body, message in (
            ("(X[:, :1] > 0).astype(float)", "whole numbers 0, 1: classes"),
            ("0 * X[:, :1]", "the same answer to every"),
        ):
            with self.assertRaisesRegex(ConfigError, message):
                self.pairs(self.teacher(self.source(f"def predict(X):\n    return {body}\n")))

    def test_a_budget_is_never_exceeded_and_larger_ones_keep_the_queries_of_smaller_ones(self):
        sets = []
        for budget in (START + LEAST, 30, 32):
            teacher = self.teacher(self.source(f"# {budget}\n" + COUNTS), query_budget=budget)
            queries, _, held_out, _ = self.pairs(teacher)
            self.assertLessEqual(len(self.asked()), budget)
            self.assertLessEqual(sum(teacher.questions.counts.values()), budget)
            self.assertIn(f"--query_budget {budget} allows {budget - START} of the 25 queries", teacher.shortage("random:20"))
            sets.append({tuple(row) for row in queries.tolist()})
            self.assertGreaterEqual(len(held_out), 2)
            os.remove(self.log)
        self.assertTrue(sets[0] <= sets[1] <= sets[2])
        with self.assertRaisesRegex(ConfigError, "--query_budget: 19 is too small; valid: 20 or more"):
            self.teacher(self.source(), query_budget=19)

    def test_a_budget_counts_questions_whose_answers_were_lost(self):
        teacher = self.teacher(self.source(), query_budget=45)
        respond = teacher.questions.respond.connection

        def killed():
            raise KeyboardInterrupt

        teacher.questions.respond.connection = killed
        with self.assertRaises(KeyboardInterrupt):
            self.pairs(teacher)
        teacher.questions.respond.connection = respond
        queries, _, held_out, _ = self.pairs(self.teacher(self.source(), query_budget=45))
        self.assertEqual((len(queries), len(held_out)), (16, 4))  # of 25, 17 of which were lost
        self.assertEqual(Ledger(teacher.questions.ledger_path).asked, 45)

    def test_a_budget_goes_on_with_the_answers_before_a_failure(self):
        body = COUNTS.replace(
            "    return", "    if __import__('os').path.getsize('{log}') > 24 * 25:\n        raise OSError('quota')\n    return"
        )
        with self.assertRaisesRegex(ConfigError, r"quota.*; the answers before are kept; --query_budget 24 goes on with them"):
            self.pairs(self.teacher(self.source(body), oracle_batch_size=4))
        asked = len(self.asked())
        teacher = self.teacher(self.source(body), query_budget=24)
        queries, _, held_out, _ = self.pairs(teacher)
        self.assertEqual((len(queries) + len(held_out), len(self.asked())), (16, asked))
        self.assertEqual(sum(teacher.questions.counts.values()), 24 + 4)  # four were lost

    def test_the_order_of_asking_has_both_kinds_in_their_proportion_everywhere(self):
        for train, test in ((20, 5), (4000, 1000), (10, 360), (1437, 360), (5, 2), (400, 0)):
            order = order_of_asking(train, test)
            self.assertEqual(order.sort().values.tolist(), list(range(train + test)))
            count = torch.arange(1, train + test + 1)
            held_out = (order >= train).cumsum(0)
            expected = torch.maximum(count * test // (train + test), count - train)
            self.assertTrue((held_out[11:] >= min(2, test)).all() and ((count - held_out)[11:] >= min(train, 10)).all())
            self.assertTrue(((held_out - expected).abs()[60:] <= 11).all())
            self.assertEqual(order[:8].tolist()[: min(train, 8)], list(range(min(train, 8))))

    def test_a_finished_ledger_needs_no_function(self):
        text = self.source("import os\nif os.environ.get('GONE'):\n    raise OSError('gone')\n" + COUNTS)
        self.pairs(self.teacher(text))
        os.environ["GONE"] = "1"
        self.addCleanup(os.environ.pop, "GONE")
        self.assertEqual(len(self.pairs(self.teacher(text))[0]), 20)


class TestPrograms(LiveTest):
    def network(self, dtype=torch.float64) -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)).to(dtype)

    def test_torchscript_answers_in_the_number_type_of_its_weights(self):
        for dtype in (torch.float64, torch.float32):
            network, path = self.network(dtype), os.path.join(self.root, f"{dtype}.pt")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.jit.trace(network, torch.randn(5, 3, dtype=dtype)).save(path)
            queries, answers, _, _ = self.pairs(self.teacher(path))
            with torch.no_grad():
                torch.testing.assert_close(answers, network(queries.to(dtype)).double(), rtol=1e-6, atol=1e-6)
            self.assertEqual(torch.equal(answers.float().double(), answers), dtype == torch.float32)

    def test_an_exported_program_says_how_many_inputs_it_takes_and_may_have_a_fixed_batch(self):
        network = self.network()
        for number, shapes in enumerate((({0: torch.export.Dim("batch")},), None)):
            path = os.path.join(self.root, f"{number}.pt2")
            torch.export.save(torch.export.export(network, (torch.randn(5, 3, dtype=torch.float64),), dynamic_shapes=shapes), path)
            queries, answers, _, _ = self.pairs(self.teacher(path, inputs=None))
            with torch.no_grad():
                torch.testing.assert_close(answers, network(queries))
        with self.assertRaisesRegex(ConfigError, "--d_in: 4 is wrong; 1.pt2 takes 3 inputs"):
            self.teacher(path, d_in=4)

    def test_files_that_are_no_programs_are_refused(self):
        for name, message in (("a.pt", "is not a TorchScript program"), ("a.pt2", "is not an exported program")):
            path = os.path.join(self.root, name)
            torch.save({"weight": torch.zeros(2)}, path)
            with self.assertRaisesRegex(ConfigError, message):
                self.teacher(path)

    def test_onnx_without_its_library_is_one_line(self):
        path = os.path.join(self.root, "network.onnx")
        with self.assertRaisesRegex(ConfigError, "network.onnx cannot be read"):
            self.teacher(path)
        open(path, "wb").close()
        with (
            mock.patch.dict("sys.modules", onnxruntime=None),
            self.assertRaisesRegex(ConfigError, "network.onnx needs onnxruntime, which cannot be imported .*: pip install onnxruntime"),
        ):
            OnnxNetwork.connect(path)


@unittest.skipUnless(importlib.util.find_spec("onnx") and importlib.util.find_spec("onnxruntime"), "needs onnx and onnxruntime")
class TestOnnx(LiveTest):
    def network(self, number_type: type, batch: int | str | None, outputs: int = 2) -> str:
        """A file with the network `tanh(X W)` in a number type, whose batches have a size that may be open."""
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        kind = {np.float64: TensorProto.DOUBLE, np.float32: TensorProto.FLOAT}[number_type]
        weights = numpy_helper.from_array(WEIGHTS[:, :outputs].astype(number_type), "W")
        nodes = [helper.make_node("MatMul", ["X", "W"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
        ends = [helper.make_tensor_value_info(name, kind, [batch, size]) for name, size in (("X", 3), ("y", outputs))]
        graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], [weights])
        path = os.path.join(self.root, "network.onnx")
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    def test_answers_are_those_of_the_network_in_its_number_type(self):
        for number_type, batch, outputs in ((np.float64, None, 2), (np.float32, "n", 2), (np.float32, 7, 2), (np.float64, None, 1)):
            with self.subTest(number_type=number_type, batch=batch):
                teacher = self.teacher(self.network(number_type, batch, outputs), inputs=None)
                x, y, *_ = self.pairs(teacher)
                self.assertEqual((teacher.inputs, teacher.outputs), (3, outputs))
                self.assertTrue(torch.equal(x, x.to(torch.from_numpy(np.empty(0, number_type)).dtype).double()))
                tolerance = 10 * np.finfo(number_type).eps
                np.testing.assert_allclose(y, np.tanh(x.numpy() @ WEIGHTS[:, :outputs]), rtol=tolerance, atol=tolerance)

    def test_files_that_are_no_networks_and_wrong_numbers_of_inputs_are_refused(self):
        path = self.network(np.float64, None)
        with self.assertRaisesRegex(ConfigError, "--d_in: 4 is wrong; network.onnx takes 3 inputs"):
            self.teacher(path, d_in=4)
        with open(path, "wb") as file:
            file.write(b"no network")
        with self.assertRaisesRegex(ConfigError, "network.onnx is not an ONNX network that onnxruntime can run"):
            self.teacher(path)

    @unittest.skipUnless(importlib.util.find_spec("skl2onnx"), "needs skl2onnx")
    def test_regressors_and_classifiers_of_scikit_learn_answer(self):
        from skl2onnx import to_onnx
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        x = np.random.RandomState(1).randn(60, 3)
        models = MLPRegressor(hidden_layer_sizes=(4,), max_iter=5), MLPClassifier(hidden_layer_sizes=(4,), max_iter=5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they have not converged
            regressor, classifier = models[0].fit(x, x @ WEIGHTS), models[1].fit(x, np.arange(60) % 3)
        for model, options, expected in ((regressor, {}, regressor.predict), (classifier, {"zipmap": False}, classifier.predict_proba)):
            path = os.path.join(self.root, "model.onnx")
            with open(path, "wb") as file:
                file.write(to_onnx(model, x[:1], options=options).SerializeToString())
            queries = np.random.RandomState(2).randn(5, 3)
            np.testing.assert_allclose(OnnxNetwork.connect(path).answer(queries), expected(queries), rtol=1e-12)


class TestResponding(unittest.TestCase):
    def test_whatever_holds_numbers_is_a_matrix(self):
        expected = np.arange(6.0).reshape(3, 2)
        for returned in (
            expected,
            expected.tolist(),
            torch.tensor(expected, requires_grad=True),
            expected.astype(np.float32),
            expected[:, :, None],
        ):
            values, why = as_matrix(returned, 3)
            np.testing.assert_array_equal(values, expected)
            self.assertEqual((values.dtype, why), (np.float64, ""))
        self.assertEqual(as_matrix(np.arange(3.0), 3)[0].shape, (3, 1))

    def test_everything_else_is_not(self):
        for returned in (
            None,
            "text",
            1.0,
            np.ones((2, 2)),
            np.ones((3, 0)),
            np.ones((3, 2), bool),
            np.ones((3, 2)) * 1j,
            [[1], [1, 2], [3]],
        ):
            self.assertTrue(as_matrix(returned, 3)[1], returned)

    def test_a_program_of_a_fixed_batch_answers_any_number_of_queries(self):
        sizes = []

        def answer(queries):
            sizes.append(len(queries))
            return 2 * queries

        for count in (1, 4, 5, 9):
            queries = np.random.RandomState(0).randn(count, 2)
            np.testing.assert_array_equal(in_batches(answer, 4)(queries), 2 * queries)
        self.assertEqual({*sizes}, {4})
