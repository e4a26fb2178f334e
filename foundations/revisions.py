"""Results that an earlier version of the program computed differently under the same name.

Names of runs do not contain the version of the program. A run records the number `RESULTS`, so that `runs why` can say how the results of
an older folder differ from those of the program. Older folders stay valid.
"""

from __future__ import annotations

from collections.abc import Iterable

from foundations.dataset_hparams import DatasetHparams
from foundations.hparams import Hparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams

RESULTS = 2  # one more with each change of a result under an unchanged name
ENTRY = "results"  # the name of this number in the record of a run; records before 2 lack it


def changes(bundles: Iterable[Hparams], results: int) -> list[str]:
    """How the results of a run with these hyperparameters differ from those of the program.

    Args:
        bundles: the hyperparameters of the run.
        results: the number that the run has recorded; 1 if it has recorded none.
    """
    return [reason for bundle in bundles for reason in _second(bundle)] if results < RESULTS else []


def _second(bundle: Hparams) -> list[str]:
    """The changes from 1 to 2, which made results equal to those of OpenLTH and of the published Expand-and-Cluster code."""
    changed = {}
    if isinstance(bundle, ModelHparams):
        changed["model_init: binary weights had the standard deviation with n instead of n - 1"] = bundle.model_init == "binary"
    if isinstance(bundle, DatasetHparams):
        drawn = (bundle.subsample_fraction, bundle.random_labels_fraction, bundle.unsupervised_labels)
        changed["transformation_seed: it drew other examples and labels than in OpenLTH"] = any(drawn)
        cropped = bundle.dataset_name == "imagenet" and not bundle.do_not_augment
        changed["dataset_name: random crops had areas of 0.08 to 1 and aspect ratios of 3/4 to 4/3"] = cropped
    if isinstance(bundle, TrainingHparams):
        changed["data_order_seed: it gave other orders than in OpenLTH"] = bundle.data_order_seed is not None
        changed["plateau_opt: a plateau allowed improvements of 0.01%, and training ended at a rate of lr / 10,000"] = bundle.plateau_opt
    return [reason for reason, applies in changed.items() if applies]
