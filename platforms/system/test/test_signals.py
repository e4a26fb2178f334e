"""Signals that request a stop are recorded and have no other effect."""

import os
import signal
import threading
from unittest import mock

from platforms.local import Platform
from platforms.system import signals
from testing.test_case import TestCase

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class TestStopping(TestCase):
    def test_each_signal_is_recorded_and_the_program_continues(self):
        for number in SIGNALS:
            with self.subTest(signal=number.name), signals.watching():
                self.assertIsNone(signals.requested())
                self.assertFalse(Platform().is_stopping)
                os.kill(os.getpid(), number)
                self.assertEqual(signals.requested(), number.name)
                self.assertTrue(Platform().is_stopping)

    def test_signals_may_arrive_repeatedly(self):
        with signals.watching():
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1):
                os.kill(os.getpid(), number)
            self.assertIsNotNone(signals.requested())

    def test_the_previous_handlers_are_restored(self):
        before = [signal.getsignal(number) for number in SIGNALS]
        with self.assertRaises(ZeroDivisionError), signals.watching():
            os.kill(os.getpid(), signal.SIGUSR1)
            raise ZeroDivisionError
        self.assertIsNone(signals.requested())
        self.assertEqual([signal.getsignal(number) for number in SIGNALS], before)

    def test_within_interruptible_ctrl_c_is_recorded_and_a_second_one_interrupts(self):
        before = signal.default_int_handler
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, before))
        with self.assertRaises(KeyboardInterrupt), signals.watching(), signals.interruptible(), mock.patch("os.write"):
            os.kill(os.getpid(), signal.SIGINT)
            self.assertEqual(signals.requested(), "SIGINT")
            os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual((signal.getsignal(signal.SIGINT), signals.requested()), (before, None))

    def test_outside_the_main_thread_handlers_do_not_change(self):
        before, seen = signal.getsignal(signal.SIGTERM), []

        def work():
            with signals.watching():
                seen.append(signal.getsignal(signal.SIGTERM))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(seen, [before])

    def test_stopped_is_not_an_exception_that_error_handlers_catch(self):
        self.assertFalse(issubclass(signals.Stopped, Exception))
