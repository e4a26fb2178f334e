"""The work of each process of a job in training. Tests with real processes are in platforms/test."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foundations.training_hparams import TrainingHparams
from platforms.base import installed
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from testing.test_case import CpuPlatform, TestCase
from training.sharing import Parallelism, StackShard, parallelism_of
from training.test.test_train import network


@dataclass
class OneOfThree(CpuPlatform):
    """One process of a job of three, without the others."""

    rank = 1
    world_size = 3


class SharingTest(TestCase):
    def test_processes_divide_networks_or_batches_or_use_the_primary_process(self):
        expected = [
            ("mlp_4_5_2", {}, Parallelism.EXAMPLES),
            ("mlp_4_5_2", {"precision": "fp16"}, Parallelism.EXAMPLES),
            ("mlp_4_5_2", {"optimizer_name": "lbfgs"}, Parallelism.PRIMARY),
            ("students_mlp(3)_4_5_2", {}, Parallelism.NETWORKS),
            ("students_mlp(3)_4_5_2", {"optimizer_name": "levenberg_marquardt"}, Parallelism.NETWORKS),
            ("students_mlp(3)_4_5_2", {"precision": "fp16"}, Parallelism.PRIMARY),
            ("students_mlp(2)_4_5_2", {}, Parallelism.PRIMARY),
        ]
        for name, changes, parallelism in expected:
            hparams = TrainingHparams(**{"optimizer_name": "sgd", "lr": 0.1, "training_steps": "1ep"} | changes)
            with self.subTest(name=name, **changes):
                self.assertIs(parallelism_of(hparams, network(name)), Parallelism.ALL)
                with installed(OneOfThree()):
                    self.assertIs(parallelism_of(hparams, network(name)), parallelism)

    def test_a_shard_has_the_weights_and_masks_of_its_networks_in_the_stack(self):
        stack = network("students_mlp(7)_4_5_2")
        stack.fc.weight.requires_grad_(False)
        mask = Mask({name: torch.rand(stack.state_dict()[name].shape) < 0.5 for name in stack.prunable_layer_names})
        for whole in (stack, PrunedModel(network("students_mlp(7)_4_5_2"), mask)):
            with installed(OneOfThree()):
                shard = StackShard(whole)
            self.assertEqual((shard.first, shard.end, shard.networks), (2, 4, 2))
            for name, values in shard.model.state_dict().items():
                self.assertTrue(torch.equal(values, whole.state_dict()[name][2:4]))
            frozen = [[not parameter.requires_grad for parameter in model.parameters()] for model in (shard, whole)]
            self.assertEqual(*frozen)

    def test_optimizer_state_is_sharded_along_the_network_axis(self):
        with installed(OneOfThree()):
            shard = StackShard(network("students_mlp(6)_4_5_2"))
        values = torch.arange(6.0)
        group = {"lr": 0.1, "betas": (0.9, 0.99), "params": [0, 1], "damping": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
        state = shard.shard_optimizer_state(
            {"state": {0: {"step": torch.tensor(3.0), "steps": [values[:, None]], "exp_avg": values}}, "param_groups": [group]}
        )
        self.assertEqual(state["param_groups"], [group | {"damping": [3.0, 4.0]}])
        self.assertEqual(state["state"][0]["step"].item(), 3)
        self.assertEqual((state["state"][0]["exp_avg"].tolist(), state["state"][0]["steps"][0].tolist()), ([2, 3], [[2], [3]]))
