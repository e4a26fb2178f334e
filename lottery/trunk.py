"""The trunk: the levels of a lottery ticket experiment, which branches start from."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from datasets import registry as datasets
from datasets.base import DataLoader
from foundations import paths
from foundations.errors import ConfigError
from foundations.step import Step
from lottery.desc import PRETRAIN, LotteryDesc
from models import registry as models
from models.base import Model
from platforms.platform import get_platform
from pruning import registry as pruning
from pruning.mask import Mask
from pruning.pruned_model import PrunedModel
from training import batches, run_records
from training import job as training_job
from training.desc import TrainingDesc
from training.job import JobArgs
from training.plan import StandardPlan
from training.train import standard_train

Shape = tuple[int, int]  # values per example, and outputs that a model needs


@dataclass(frozen=True)
class Trunk:
    """One experiment with its seed and its data.

    Attributes:
        desc: its hyperparameters, in canonical form.
        job: the settings of this run.
        shape: the shape of its dataset.
        pretrain_shape: the shape of the dataset of pretraining; None without pretraining.
        seed: the seed of all random streams.
        loaders: the loaders of the training set and the test set.
        start: the step of training at which levels start.
    """

    desc: LotteryDesc
    job: JobArgs
    shape: Shape
    pretrain_shape: Shape | None
    seed: int
    loaders: tuple[DataLoader, DataLoader]
    start: Step

    @staticmethod
    def open(desc: LotteryDesc, job: JobArgs, shape: Shape, pretrain_shape: Shape | None = None) -> Trunk:
        """Chooses the seed and loads the data.

        Raises:
            ConfigError: levels would start at the end of training or later, or a batch is too small for the model.
        """
        seed = run_records.resolve_seed(desc.run_path(get_platform().root, job.global_seed), job.global_seed)
        loaders = datasets.get_both(desc.dataset_hparams, desc.training_hparams, seed)
        trunk = Trunk(desc, job, shape, pretrain_shape, seed, loaders, desc.start_step(len(loaders[0])))
        trunk._check_batches()
        return trunk

    def _check_batches(self) -> None:
        """Raises a ConfigError if a batch of training or of pretraining is too small for the model."""
        desc, pretraining = self.desc, self.desc.pretrain_desc
        batches.check(desc.model_hparams, self.shape[1], desc.training_hparams, self.loaders[0], self.start)
        if pretraining and self.pretrain_shape and not run_records.is_finished(self.location(PRETRAIN)):
            loader, _ = self._pretrain_loaders(pretraining)
            batches.check(desc.model_hparams, self.pretrain_shape[1], pretraining.training_hparams, loader)

    def location(self, level: int | str) -> str:
        """The folder of a level."""
        return self.desc.run_path(get_platform().root, self.job.global_seed, level)

    @property
    def plan(self) -> StandardPlan:
        """The plan for training a level: its start, its output and the identity of the run."""
        return StandardPlan(
            start=self.start,
            verbose=not self.job.quiet,
            epoch_lines=False,
            evaluate_only_at_end=self.job.evaluate_only_at_end,
            identity=training_job.identity(self.desc, self.seed, self.job),
        )

    def train(self, levels: int) -> None:
        """Trains all levels that are not trained yet."""
        run_records.record(self.desc, self.location(0), self.seed, self.shape)
        trained = None
        for level in range(levels + 1):
            trained = self._train_level(level, levels, trained)

    def _train_level(self, level: int, levels: int, previous: PrunedModel | None) -> PrunedModel:
        """Trains a level, or loads its trained weights; `previous` is the trained network of the previous level."""
        mask = self._mask(level, previous)
        if previous is None or pruning.get(self.desc.pruning_hparams).rewinds:
            model = PrunedModel(self.rewound(), mask)
        else:
            model = PrunedModel(copy.deepcopy(previous.model), mask)
        if not self.job.quiet and not run_records.is_finished(self.location(level)):
            print(f"Level {level} of {levels}: {mask.unpruned:,} of {mask.total:,} weights ({mask.density:.2%})", flush=True)
        standard_train(self.desc.training_hparams, model, self.loaders, self.location(level), self.plan)
        return model

    def _mask(self, level: int, previous: PrunedModel | None) -> Mask:
        """The mask of a level. It is computed once, and read from its file afterwards."""
        if not Mask.exists(self.location(level)):
            get_platform().on_primary(lambda: self._pruned(previous).save(self.location(level)))
        return self.read_mask(level)

    def read_mask(self, level: int) -> Mask:
        """The mask in the file of a level.

        Raises:
            ConfigError: the file is missing or damaged, or does not fit the model.
        """
        mask = Mask.load(self.location(level))
        try:
            mask.check_fits(self.outline())
        except ConfigError as error:
            raise ConfigError(f"{paths.mask(self.location(level))} does not fit the model: {error}; move it away") from None
        return mask

    def _pruned(self, previous: PrunedModel | None) -> Mask:
        """The mask after pruning the previous level; a mask of ones for level 0."""
        if previous is None:
            return Mask.ones_like(self.outline())
        strategy = pruning.get(self.desc.pruning_hparams)
        scored = self.rewound().to(get_platform().torch_device) if strategy.scores_initial_weights else previous.model
        return strategy.prune(self.desc.pruning_hparams, scored, previous.mask, FirstEpoch(self.loaders[0]), self.seed)

    def outline(self) -> Model:
        """The network on the meta device, without memory for weights."""
        return models.meta_model(self.desc.model_hparams, self.shape[1])

    def new(self, seed: int) -> Model:
        """The network with newly initialised weights."""
        return models.get(self.desc.model_hparams, self.shape[1], seed)

    def rewound(self) -> Model:
        """The whole network with the weights that levels are rewound to: the weights at the start of level 0."""
        model = self.new(self.seed)
        if models.exists(self.location(0), self.start):
            models.load_weights(paths.model(self.location(0), self.start), model)
        elif self.desc.pretrain_desc is not None:
            assert self.pretrain_shape is not None
            self._pretrain(model, self.desc.pretrain_desc, self.pretrain_shape[1])
        return model

    def _pretrain_loaders(self, desc: TrainingDesc) -> tuple[DataLoader, DataLoader]:
        """The loaders of the training set and the test set of pretraining; those of training if the data are the same."""
        same = desc.dataset_hparams, desc.training_hparams.stored_precision, desc.training_hparams.data_order_seed
        own = self.desc.training_hparams
        if same == (self.desc.dataset_hparams, own.stored_precision, own.data_order_seed):
            return self.loaders
        return datasets.get_both(desc.dataset_hparams, desc.training_hparams, self.seed)

    def _pretrain(self, model: Model, desc: TrainingDesc, outputs: int) -> None:
        """Loads the weights at the end of pretraining into a model; an output layer for other classes is not changed."""
        pretrained = models.get(desc.model_hparams, outputs, self.seed)
        loaders = self._pretrain_loaders(desc)
        end = Step.from_str(desc.training_hparams.training_steps, len(loaders[0]))
        hparams = self.desc.training_hparams if self.desc.rewinds_to_training else desc.training_hparams
        if not self.job.quiet:
            print(f"Pretraining: {desc.training_hparams.training_steps} on {desc.dataset_hparams.dataset_name}", flush=True)
        standard_train(hparams, pretrained, loaders, self.location(PRETRAIN), dataclasses.replace(self.plan, start=None, end=end))
        state = pretrained.state_dict()
        if not all(values.isfinite().all() for values in state.values()):
            raise ConfigError(
                f"{self.location(PRETRAIN)}: the weights at the end of pretraining are not finite; use a smaller learning rate"
            )
        if outputs != self.shape[1]:
            initial = model.state_dict()
            state |= {name: initial[name] for name in model.output_layer_names}
        model.to(next(iter(state.values())).dtype).load_state_dict(state)


class FirstEpoch:
    """An iterable over the batches of a loader's first epoch, in shuffled order: a dataset may be sorted by class."""

    def __init__(self, loader: DataLoader):
        self.loader = loader

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self.loader.epoch(0)
