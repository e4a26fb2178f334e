"""A diagnosis names the cause that the numbers show, with a command."""

import dataclasses
import unittest

import torch

from extraction.reporting.diagnosis import Facts, Unit, advice, deeper, wider
from extraction.reporting.facts import of_network, of_students, units_on_one_side
from extraction.test.known_networks import answered, network, queries, session_of
from models.students import Model as Students

GOOD = Facts("students_mlp(10)_5_32_2", "tanh", 1e-8, 1e-8, [8], 1e-8, 1e-8, 200, 1800, 2, 66)


def changed(**facts) -> str:
    """The advice for facts that differ from good ones."""
    return "\n".join(map(str, advice(dataclasses.replace(GOOD, **facts))))


class TestAdvice(unittest.TestCase):
    def test_nothing_is_advised_where_answers_are_given_to_their_precision(self):
        self.assertEqual(advice(GOOD), [])

    def test_too_few_queries_are_said_with_their_numbers(self):
        line = changed(best_loss=1e-12, best_held_out_loss=4e-2, found=[2], error=0.2, held_out_error=0.3, held_out=6, queries=54)
        self.assertIn("54 distinct queries give 108 numbers for 66 unknowns", line)
        self.assertIn("agrees with the answers to 1.0e-06 of their standard deviation, and misses the 6 held-out answers by 2.0e-01", line)
        self.assertIn("use 165 queries or more", line)
        self.assertNotIn("\n", line)

    def test_a_smaller_difference_counts_where_numbers_are_fewer_than_two_for_each_unknown(self):
        for count, few in ((54, True), (100, False)):
            line = changed(best_loss=1e-4, best_held_out_loss=1e-3, found=[2], error=0.2, held_out_error=0.3, held_out=6, queries=count)
            self.assertEqual("too few queries" in line, few)

    def test_a_network_that_misses_held_out_answers_wants_queries_as_well(self):
        self.assertIn("The network agrees with the answers to 1.0e-08", changed(held_out_error=1e-3))

    def test_narrow_students_are_told_by_their_neurons_or_by_their_loss(self):
        narrow = {"students": "students_mlp(10)_10_32_3", "error": 0.1, "held_out_error": 0.1}
        line = changed(found=[30], best_loss=2e-3, best_held_out_loss=2e-3, **narrow)
        self.assertIn("too narrow for so many neurons: 30 were found in hidden layer 1, of students of 32", line)
        self.assertIn("--default_hparams='students_mlp(10)_10_64_3'", line)
        line = changed(found=[18], best_loss=2e-3, best_held_out_loss=2e-3, **narrow)
        self.assertIn("may be too narrow: the loss of the best student is 2.0e-03", line)

    def test_students_that_never_imitate_have_the_wrong_activation_function_or_depth(self):
        line = changed(found=[5], best_loss=0.02, best_held_out_loss=0.02, error=0.2, held_out_error=0.2)
        self.assertIn("No student imitates the teacher: the loss of the best student is 2.0e-02", line)
        self.assertIn("another --act_fun (relu, leaky_relu, sigmoid,", line)
        self.assertIn("a hidden layer more (--default_hparams='students_mlp(10)_5_32_32_2')", line)
        self.assertNotIn("longer", line)

    def test_a_skip_connection_is_named_where_a_linear_map_lowers_the_error(self):
        line = changed(best_loss=1e-5, best_held_out_loss=1e-5, error=1e-2, held_out_error=1e-2, without_map=1e-2, beside_map=1e-4)
        self.assertIn("The teacher may have a skip connection: a linear map of X beside it lowers the error from 1.0e-02", line)
        for without, beside in ((1e-2, 5e-3), (1e-7, 1e-9), (None, None)):
            self.assertNotIn("skip", changed(error=1e-2, held_out_error=1e-2, without_map=without, beside_map=beside))

    def test_more_students_are_advised_where_they_are_trained_to_the_end(self):
        for error in (1e-2, 1e-8):
            line = changed(best_loss=1e-5, best_held_out_loss=1e-5, error=error, held_out_error=error, is_trained_to_the_end=True)
            self.assertIn("train more of them (--default_hparams='students_mlp(20)_5_32_2')", line)
            self.assertNotIn("longer", line)
        narrow = {"error": 0.1, "held_out_error": 0.1, "best_loss": 1e-5, "best_held_out_loss": 1e-5}
        self.assertIn("9 were found in hidden layer 1, of students of 12", changed(found=[9], widths=[12], **narrow))

    def test_longer_training_is_advised_only_where_students_imitate(self):
        line = changed(best_loss=1e-5, best_held_out_loss=1e-5, error=1e-2, held_out_error=1e-2)
        self.assertIn("train them longer (--extra_training 6000it)", line)
        self.assertIn("train them longer", changed(best_loss=1e-5, best_held_out_loss=1e-5, found=(), error=None, held_out_error=None))

    def test_units_that_never_switch_and_those_that_few_queries_show_are_named(self):
        line = changed(units=[Unit(1, 3, 1800), Unit(1, 5, 4), Unit(2, 1, 0)], weights=6)
        self.assertIn("the sum of such maps: neuron 3 of hidden layer 1, active for 1,800 of 1,800 queries", line)
        self.assertIn("neuron 5 of hidden layer 1, neuron 1 of hidden layer 2 do: active for 4, 0 of 1,800 queries", line)

    def test_each_cause_has_the_flags_of_the_command_to_try(self):
        failed = {"error": 0.2, "held_out_error": 0.2}
        few = failed | {"best_loss": 1e-12, "best_held_out_loss": 4e-2, "queries": 54}
        cases = (
            (few, {}),
            (few | {"datagen": "digits+random:60"}, {"datagen": "digits+random:165"}),
            (failed | {"found": [30], "best_loss": 2e-3, "best_held_out_loss": 2e-3}, {"default_hparams": "students_mlp(10)_5_64_2"}),
            (failed | {"best_loss": 1e-5, "best_held_out_loss": 1e-5}, {"extra_training": "6000it"}),
            ({"units": [Unit(1, 3, 4)]}, {}),
            ({"units": [Unit(1, 3, 4)], "datagen": "random:1800"}, {"datagen": "wide"}),
        )
        for facts, flags in cases:
            with self.subTest(flags):
                self.assertEqual(advice(dataclasses.replace(GOOD, **facts))[0].flags, flags)
        (wrong,) = advice(dataclasses.replace(GOOD, **failed, found=[5], best_loss=0.02, best_held_out_loss=0.02))
        self.assertEqual(wrong.flags["act_fun"].split(",")[:2], ["relu", "leaky_relu"])
        self.assertNotIn("tanh", wrong.flags["act_fun"])

    def test_of_a_network_that_fits_only_units_are_said(self):
        facts = dataclasses.replace(GOOD, error=0.1, held_out_error=0.1, units=[Unit(1, 3, 4)])
        self.assertEqual([line.text[:16] for line in advice(facts, fits=True)], ["Few queries show"])

    def test_the_students_to_try_are_students(self):
        for name in ("students_mlp(10)_5_32_9_2", "students_digits_lenet(4)_36_36", "students_mnist_lenet_20"):
            for other in (wider(name), deeper(name)):
                self.assertIsNotNone(Students.parse(other), other)
        self.assertEqual(wider("students_digits_lenet(4)_36_36"), "students_digits_lenet(4)_72_72")
        self.assertEqual(deeper("students_mlp(10)_5_32_9_2"), "students_mlp(10)_5_32_9_9_2")


class TestFacts(unittest.TestCase):
    def test_units_on_one_side_are_those_that_are_always_or_seldom_active(self):
        model, x = network("mlp_4_5_3", "relu"), queries(300)
        hidden, outputs = model.layer_vectors()
        hidden[:, -1] = torch.tensor([0.0, 1e3, -1e3, 0.1, 0.0], dtype=torch.float64)
        model.load_layer_vectors([hidden, outputs])
        self.assertEqual(units_on_one_side(model, x), [Unit(1, 1, 300), Unit(1, 2, 0)])
        self.assertEqual(units_on_one_side(network("mlp_4_5_3", "tanh"), x), [])

    def test_facts_are_those_of_the_best_student_and_of_the_network(self):
        teacher, x = network("mlp_4_5_3"), torch.cat([queries(100), queries(100)])
        session = session_of("students_mlp(2)_4_20_3", answered(teacher, x, 50), "")
        variance = teacher(x).detach().var(0).mean().item()
        facts = of_students(session, [float("nan"), 2.0, 1.0], [0.0, 5.0, 3.0])
        self.assertAlmostEqual(facts.best_loss * variance, 1.0)
        self.assertAlmostEqual(facts.best_held_out_loss * variance, 3.0)
        self.assertEqual((facts.queries, facts.held_out, facts.outputs, facts.unknowns), (100, 200, 3, 5 * 5 + 6 * 3))
        facts = of_network(facts, session, teacher)
        self.assertEqual((facts.found, facts.error, facts.held_out_error, facts.unknowns), ([5], 0.0, 0.0, 43))
        self.assertLess(facts.without_map, 1e-12)

    def test_a_linear_map_that_is_missing_is_a_fact(self):
        teacher, x = network("mlp_4_5_3"), queries(100)
        loaders = answered(teacher, x, 50)
        loaders.train.labels += x[:, :3]
        session = session_of("students_mlp(2)_4_20_3", loaders, "")
        facts = of_network(of_students(session, [1.0], [1.0]), session, teacher)
        self.assertGreater(facts.without_map, 0.01)
        self.assertLess(facts.beside_map, 1e-12)


if __name__ == "__main__":
    unittest.main()
