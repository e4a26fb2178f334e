"""Questions about what answers leave open: the network that gives the first answers becomes the teacher, within the domain."""

import dataclasses

import torch

from datasets.base import DataLoader, Loaders
from datasets.teacher_dataset import Dataset
from extraction.certification.determination import open_combinations
from extraction.fitting import Fit
from extraction.live import ascent, asking
from extraction.live.asking import CORNERS, NEIGHBOURS, OPEN_WEIGHTS
from extraction.live.box import Box
from extraction.network import Layers
from extraction.preparation.rows import Rows
from extraction.test.known_networks import AskedTeacher, session_of
from testing.test_case import TestCase


@dataclasses.dataclass(frozen=True)
class Network(AskedTeacher):
    """A teacher with known layers that answers so many queries."""

    layers: Layers = Layers((), "relu")
    budget: int = 10_000
    phases: list[str] = dataclasses.field(default_factory=list)

    @property
    def is_askable(self):
        return len(self.phases) < self.budget

    def ask(self, queries):
        return self.layers.pre_activations(queries)

    def ask_for(self, phase, queries):
        queries = queries[: max(0, self.budget - len(self.phases))]
        self.phases.extend([phase] * len(queries))
        return queries, self.ask(queries)


def in_box(count: int, inputs: int, seed: int = 0) -> torch.Tensor:
    """Queries between -1 and 1."""
    return 2 * torch.rand(count, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def drawn(*sizes: int, seed: int = 0) -> Layers:
    """A relu network whose neurons switch near the origin."""
    generator = torch.Generator().manual_seed(seed)
    vectors = [
        torch.randn(width, inputs + 1, generator=generator, dtype=torch.float64) for inputs, width in zip(sizes, sizes[1:], strict=False)
    ]
    for each in vectors:
        each[:, -1] *= 0.3
    return Layers(tuple(vectors), "relu")


def last_switching_at(layers: Layers, x: torch.Tensor, place: int) -> Layers:
    """The layers whose last hidden neuron is active for so many of the queries, or from a multiple of the largest sum on if negative."""
    first, *rest = (each.clone() for each in layers.vectors)
    sums = (x @ first[-1, :-1]).sort(descending=True).values
    reach = first[-1, :-1].abs().sum()
    first[-1, -1] = -(sums[place - 1] + sums[place]) / 2 if place else -1.5 * reach
    return layers.replace(first, *rest)


def without_last(layers: Layers) -> Layers:
    """The layers without the last neuron of the first hidden layer."""
    first, second, *rest = layers.vectors
    return layers.replace(first[:-1], torch.cat([second[:, :-2], second[:, -1:]], 1), *rest)


class TestAsking(TestCase):
    def session(self, teacher: Network, x: torch.Tensor, domain: str | None = None):
        own = Loaders(*(DataLoader(Dataset(part, teacher.ask(part)), 64, 1, torch.float64) for part in (x[:-40], x[-40:])))
        sizes = "_".join(map(str, teacher.layers.sizes))
        session = dataclasses.replace(session_of(f"students_mlp(2)_{sizes}", own, self.root, "relu"), teacher=teacher)
        session.desc.extraction_hparams.domain = domain
        numbers = torch.arange(len(x))
        rows = Rows(own, (numbers[:-40], numbers[-40:]))
        return session.of_file(rows, rows)

    def asked(self, session, layers: Layers):
        return asking.about_open(session, self.candidate(session, layers), f"{self.root}/asked")

    def candidate(self, session, layers: Layers):
        network, model_hparams = layers.to_network(session.students_hparams)
        return [], Fit(model_hparams, network, network, self.root)

    def assert_is(self, state, teacher: Network, bound: float):
        x = bound * in_box(400, teacher.layers.sizes[0], 5)
        with torch.no_grad():
            torch.testing.assert_close(state.network(x), teacher.ask(x), atol=1e-8, rtol=1e-8)
        self.assertEqual(list(state.network.sizes), teacher.layers.sizes)

    def test_a_neuron_that_three_queries_show_is_found_around_them(self):
        x = in_box(400, 5)
        teacher = Network("", 5, 2, layers=last_switching_at(drawn(5, 8, 2), x[:360], 3))
        state = self.asked(self.session(teacher, x), without_last(teacher.layers))
        self.assert_is(state, teacher, 1.0)
        self.assertIn(NEIGHBOURS, state.counts)
        self.assertEqual(sum(state.counts.values()), len(teacher.phases))

    def test_a_neuron_that_no_query_activates_is_open_but_for_its_scale(self):
        x = in_box(300, 5)
        teacher = Network("", 5, 2, layers=last_switching_at(drawn(5, 8, 2), x[:260], 0))
        session = self.session(teacher, x)
        network, _ = teacher.layers.to_network(session.students_hparams)
        combinations = open_combinations(network, session.symmetry, session.loaders.train)
        self.assertEqual(len(combinations), 7)
        self.assertTrue(combinations.isfinite().all())
        names = "neuron 7 of hidden layer 1, number 0 of the outputs, number 1 of the outputs"
        self.assertEqual(asking._neurons(combinations, teacher.layers), names)

    def test_a_neuron_that_no_query_of_the_box_shows_is_found_in_a_wider_domain_only(self):
        x = in_box(300, 3)
        teacher = Network("", 3, 2, layers=last_switching_at(drawn(3, 4, 2), x[:260], 0))
        session = self.session(teacher, x)
        state = self.asked(session, without_last(teacher.layers))
        self.assertIs(state.session, session)
        self.assertEqual(state.counts, {CORNERS: 8})
        self.assertIn("--domain LOW:HIGH", " ".join(state.remarks))
        self.assert_is(self.asked(self.session(teacher, x, "-4:4"), without_last(teacher.layers)), teacher, 4.0)

    def never_together(self) -> tuple[Network, torch.Tensor, Layers]:
        """A teacher, queries at which no two chosen neurons are active together, and layers that give the same answers to these."""
        layers = drawn(6, 8, 8, 2, seed=3)
        x = in_box(900, 6)
        below, above = layers.replace(layers.vectors[0]).pre_activations(x) > 0, layers.replace(*layers.vectors[:2]).pre_activations(x) > 0
        together = (below[:, :, None] & above[:, None]).sum(0)
        together[(below.sum(0) < 50)] = together[:, above.sum(0) < 50] = 0
        lower, upper = divmod(int(torch.where(together > 0, together, len(x)).argmin()), 8)
        x = x[~(below[:, lower] & above[:, upper])]
        first, second, last = (each.clone() for each in layers.vectors)
        second[upper, lower] -= 1.0
        return Network("", 6, 2, layers=layers), x, layers.replace(first, second, last)

    def test_a_weight_between_neurons_that_are_never_active_together_is_asked_where_they_are(self):
        teacher, x, start = self.never_together()
        session = self.session(teacher, x)
        network, _ = start.to_network(session.students_hparams)
        self.assertEqual(len(open_combinations(network, session.symmetry, session.loaders.train)), 1)
        state = self.asked(session, start)
        self.assert_is(state, teacher, 1.0)
        self.assertGreater(state.counts[OPEN_WEIGHTS], 0)
        self.assertEqual(len(open_combinations(state.network, session.symmetry, state.session.loaders.train, state.session.asked)), 0)
        again = self.asked(self.session(dataclasses.replace(teacher, phases=[]), x), start)
        self.assertTrue(torch.equal(again.session.queries, state.session.queries))

    def test_queries_that_tell_what_a_part_of_them_leaves_open_are_not_asked_again(self):
        x = in_box(3000, 5)
        teacher = Network("", 5, 2, layers=last_switching_at(drawn(5, 8, 2), x[:2960], 30))
        session = self.session(teacher, x)
        network, _ = teacher.layers.to_network(session.students_hparams)
        self.assertGreater(len(open_combinations(network, session.symmetry, session.loaders.train)), 0)
        state, combinations = asking._examined(asking.Asked(session, self.candidate(session, teacher.layers)))
        session = state.session
        self.assertEqual(len(combinations), 0)
        self.assertEqual(len(open_combinations(network, session.symmetry, session.loaders.train, session.asked)), 0)
        active = teacher.layers.replace(teacher.layers.vectors[0]).pre_activations(session.queries)[:, -1] > 0
        self.assertTrue(active[-session.asked :].all())
        self.assertEqual(sorted(session.queries.tolist()), sorted(x[:2960].tolist()))
        torch.testing.assert_close(teacher.ask(session.queries), session.answers)
        self.assertEqual(teacher.phases, [])

    def test_ascents_reach_inputs_where_one_neuron_is_active_alone_which_no_query_does(self):
        layers, x = drawn(8, 8, 4, 2, seed=2), in_box(200, 8)
        session = self.session(Network("", 8, 2, layers=layers), x)
        reached = ascent.extremes(session, layers, 1, Box.of(session), torch.Generator().manual_seed(0))
        first = layers.replace(layers.vectors[0])

        def alone(queries: torch.Tensor) -> set[int]:
            active = first.activations(queries) > 0
            return set(active[active.sum(1) == 1].nonzero()[:, 1].tolist())

        self.assertEqual(alone(x), {7})
        self.assertEqual(alone(reached), set(range(8)))
        self.assertLessEqual(float(reached.abs().max()), 1.0)

    def test_ascents_have_a_gradient_far_from_the_kinks(self):
        sums = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4], dtype=torch.float64, requires_grad=True)
        values = ascent._smooth(drawn(2, 2, 2), 0.1)(sums)
        (slopes,) = torch.autograd.grad(values.sum(), sums)
        torch.testing.assert_close(values.detach(), sums.detach().clamp_min(0), atol=0.07, rtol=1e-6)
        torch.testing.assert_close(slopes, torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0], dtype=torch.float64), atol=1e-4, rtol=0)

    def test_a_teacher_that_answers_no_more_leaves_open_weights_which_are_named(self):
        teacher, x, start = self.never_together()
        session = self.session(dataclasses.replace(teacher, budget=0), x)
        state = self.asked(session, start)
        self.assertIs(state.session, session)
        self.assertEqual(state.counts, {})
        self.assertIn(
            "a combination of weights stays open, of neuron 7 of hidden layer 2: the budget of queries is spent", state.remarks[0]
        )
        self.assertEqual(self.asked(dataclasses.replace(session, teacher=None), start).counts, {})
