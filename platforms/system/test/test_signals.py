"""Signals that ask to stop leave a note, and nothing else."""

import os
import signal
import threading
from unittest import mock

from platforms.local import Platform
from platforms.system import signals
from testing.test_case import TestCase

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class TestStopping(TestCase):
    def test_each_signal_is_noted_and_the_program_goes_on(self):
        for number in SIGNALS:
            with self.subTest(signal=number.name), signals.watching():
                self.assertIsNone(signals.requested())
                self.assertFalse(Platform().is_stopping)
                os.kill(os.getpid(), number)
                self.assertEqual(signals.requested(), number.name)
                self.assertTrue(Platform().is_stopping)

    def test_the_same_signal_may_come_twice_and_another_after_it(self):
        with signals.watching():
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
                os.kill(os.getpid(), number)
            self.assertIsNotNone(signals.requested())

    def test_afterwards_everything_is_as_before(self):
        before = [signal.getsignal(number) for number in SIGNALS]
        with self.assertRaises(ZeroDivisionError), signals.watching():
            os.kill(os.getpid(), signal.SIGUSR1)
            raise ZeroDivisionError
        self.assertIsNone(signals.requested())
        self.assertEqual([signal.getsignal(number) for number in SIGNALS], before)

    def test_a_ctrl_c_is_noted_too_where_it_is_wanted_and_a_second_one_interrupts(self):
        before = signal.default_int_handler
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, before))
        with self.assertRaises(KeyboardInterrupt), signals.watching(), signals.interruptible(), mock.patch("os.write"):
            os.kill(os.getpid(), signal.SIGINT)
            self.assertEqual(signals.requested(), "SIGINT")
            os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual((signal.getsignal(signal.SIGINT), signals.requested()), (before, None))

    def test_outside_the_main_thread_signals_are_left_alone(self):
        before, seen = signal.getsignal(signal.SIGTERM), []

        def work():
            with signals.watching():
                seen.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(seen, [before])

    def test_stopping_is_no_error_that_is_handled_as_one(self):
        self.assertFalse(issubclass(signals.Stopped, Exception))
