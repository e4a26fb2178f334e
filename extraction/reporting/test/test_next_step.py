"""The command to try next is the command of the run with other flags."""

import shlex
import unittest

from extraction.reporting.diagnosis import Advice
from extraction.reporting.next_step import added, command
from extraction.reporting.test.test_verdict import graded
from extraction.test.test_report import report

RUN = "python EC.py extract --default_hparams='students_mlp(10)_5_32_2' --teacher_name 'my answers.npz' --quiet --act_fun tanh"


class TestCommand(unittest.TestCase):
    def test_a_flag_is_replaced_however_it_was_written(self):
        wider = {"default_hparams": "students_mlp(10)_5_64_2"}
        words = ["python", "EC.py", "extract", "--teacher_name", "my answers.npz", "--quiet", "--act_fun", "tanh"]
        self.assertEqual(shlex.split(command(RUN, wider)), [*words, "--default_hparams", "students_mlp(10)_5_64_2"])
        spaced = RUN.replace("hparams=", "hparams ")
        self.assertEqual(command(spaced, wider), command(RUN, wider))
        self.assertEqual(command(f"{RUN} --model_name x", wider), command(RUN, wider))

    def test_a_flag_without_a_value_is_left_out(self):
        self.assertEqual(command(f"{RUN} --answers noise:1e-5", {"answers": ""}), command(RUN, {}))

    def test_the_same_command_is_repeated_where_only_the_answers_change(self):
        self.assertEqual(shlex.split(command(RUN, {})), shlex.split(RUN))

    def test_queries_replace_their_former_number(self):
        self.assertEqual(
            command("python EC.py extract --samples 50 --quiet", {"datagen": "random:400"}).split()[3:],
            ["--quiet", "--datagen", "random:400"],
        )

    def test_several_values_make_a_sweep(self):
        tried = command(RUN, {"act_fun": "relu,gelu"})
        self.assertTrue(tried.startswith("python EC.py sweep extract "))
        self.assertTrue(tried.endswith("--quiet --act_fun relu,gelu"))
        self.assertTrue(command(f"{RUN} --arrays a,b", {"act_fun": "relu,gelu"}).endswith("--arrays a,b --act_fun relu"))

    def test_an_unknown_command_gives_none(self):
        for recorded in (None, "", "python 'EC.py"):
            self.assertEqual(command(recorded, {"lr": "1"}), "")


class TestAdded(unittest.TestCase):
    def test_a_network_that_is_identified_needs_no_next_step(self):
        for found in (report(), graded()):
            self.assertEqual(added(found, [Advice("Wait.", {"lr": "1"})], RUN), found)

    def test_the_likeliest_cause_gives_the_command(self):
        found = added(graded(structure=40.0), [Advice("Narrow.", {"lr": "1"}), Advice("Few.", {"lr": "2"})], RUN)
        self.assertEqual(found.advice, ["Narrow.", "Few."])
        self.assertTrue(found.command.endswith("--lr 1"))

    def test_without_advice_the_certificate_gives_the_command(self):
        self.assertTrue(added(graded(structure=40.0), [], RUN).command.endswith("--extra_training 6000it"))
        self.assertEqual(shlex.split(added(graded(equations=100), [], RUN).command), shlex.split(RUN))

    def test_open_weights_have_no_command_unless_flags_tell_more(self):
        open_neuron = graded("neuron 3", error_95=0.1)
        self.assertEqual(added(open_neuron, [], RUN).command, "")
        self.assertTrue(added(open_neuron, [Advice("Spread.", {"datagen": "wide"})], RUN).command.endswith("--datagen wide"))


if __name__ == "__main__":
    unittest.main()
