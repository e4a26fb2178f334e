"""Further queries during an extraction: in the coordinates of the session, and not beyond what the teacher answers."""

import dataclasses

import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.live import fresh
from extraction.preparation.scaling import Scaling
from extraction.test.known_networks import AskedTeacher, network, queries, session_of
from foundations.errors import ConfigError
from testing.test_case import TestCase

TEACHER = network("mlp_4_3_2")
SCALE = torch.tensor([1, 100, 0.01, 5.0]).double()


@dataclasses.dataclass(frozen=True)
class Answering(AskedTeacher):
    """A teacher that answers so many queries, rounded to float32, and then fails."""

    count: int = 1000
    fails: bool = False
    phases: list[str] = dataclasses.field(default_factory=list)

    def ask(self, queries):
        if self.fails:
            raise ConfigError("the quota is spent")
        with torch.no_grad():
            return 50 * TEACHER(queries / SCALE) + 7

    def ask_for(self, phase, queries):
        self.phases.append(phase)
        asked = queries[: self.count].float()
        return asked, self.ask(asked.double())


class TestFresh(TestCase):
    def session(self, **teacher):
        asking = Answering("", 4, 2, **teacher)
        x = queries(200) * SCALE
        own = Loaders(*(DataLoader(Dataset(part, Answering("", 4, 2).ask(part)), 32, 1, torch.float64) for part in (x[:150], x[150:])))
        scaling = Scaling.of(own.train)
        session = session_of("students_mlp(2)_4_6_2", scaling.apply(own), self.root)
        return dataclasses.replace(session, scaling=scaling, own=own, teacher=asking)

    def test_queries_and_answers_are_in_the_coordinates_of_the_session(self):
        session = self.session()
        inside, answers = session.ask(session.queries[:20], "more")
        torch.testing.assert_close(inside, session.queries[:20], atol=1e-5, rtol=1e-5)  # as rounded
        torch.testing.assert_close(answers, session.answers[:20], atol=1e-4, rtol=1e-4)
        own = session.unscaled
        torch.testing.assert_close(own.ask(own.queries[:20], "more")[1], own.answers[:20], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(answers, session.scaling.outputs.apply(session.teacher.ask(own.ask(own.queries[:20], "x")[0])))

    def test_a_teacher_that_answers_no_more_gives_what_it_can(self):
        self.assertEqual([len(part) for part in self.session(count=5).ask(queries(20), "more")], [5, 5])
        nobody = dataclasses.replace(self.session(), teacher=None)
        self.assertEqual([part.shape for part in nobody.ask(queries(20), "more")], [(0, 4), (0, 2)])

    def test_the_certificate_has_more_held_out_queries_inside_the_region_of_the_others(self):
        session = self.session()
        checked = fresh.with_checked_queries(session)
        for before, after in ((session.loaders, checked.loaders), (session.own, checked.own)):
            self.assertTrue(torch.equal(before.train.examples, after.train.examples))
            self.assertTrue(torch.equal(after.test.examples[:50], before.test.examples))
            self.assertEqual(len(after.test.examples), 50 + fresh.CHECKED)
            added = after.test.examples[50:]
            self.assertTrue(((added > before.train.examples.amin(0)) & (added < before.train.examples.amax(0))).all())
        torch.testing.assert_close(checked.own.test.labels, session.teacher.ask(checked.own.test.examples))
        again = fresh.with_checked_queries(session)
        self.assertEqual(session.teacher.phases, 2 * ["certificate"])  # once each time
        self.assertTrue(torch.equal(checked.own.test.examples, again.own.test.examples))

    def test_a_teacher_that_fails_then_leaves_the_certificate_as_it_is(self):
        session = self.session(fails=True)
        self.assertIs(fresh.with_checked_queries(session), session)
