"""Names of runs: which hyperparameters they depend on, and that they never change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

from extraction.desc import ExtractionDesc
from foundations.dataset_hparams import DatasetHparams
from foundations.desc import Desc, parse_display_text
from foundations.extraction_hparams import ExtractionHparams
from foundations.model_hparams import ModelHparams
from foundations.training_hparams import TrainingHparams
from testing.test_case import TestCase
from training.desc import TrainingDesc

TEACHER = "train_1f9aac2d81228685d9c62001e9758edb"

# For each hyperparameter a value that differs from the default run of digits_lenet: first those that name a run, then those that do not.
OTHER_VALUES = {
    "dataset_hparams": {
        "dataset_name": "mnist",
        "batch_size": 64,
        "teacher_name": "train_0",
        "teacher_seed": 1,
        "datagen": "digits",
        "teacher_digest": "5e1f",
        "query_budget": 100,
        "do_not_augment": True,
        "transformation_seed": 1,
        "subsample_fraction": 0.5,
        "random_labels_fraction": 0.5,
        "unsupervised_labels": "rotation",
        "blur_factor": 4,
    },
    "model_hparams": {"model_name": "digits_lenet_8", "model_init": "binary", "batchnorm_init": "fixed", "act_fun": "tanh"}
    | {"batchnorm_frozen": True, "output_frozen": True, "others_frozen": True, "others_frozen_exceptions": "fc.weight"},
    "training_hparams": {
        "optimizer_name": "adam",
        "lr": 0.2,
        "training_steps": "41ep",
        "data_order_seed": 1,
        "momentum": 0.5,
        "nesterov_momentum": 0.5,
        "adam_beta1": 0.8,
        "milestone_steps": "1ep",
        "delta": 0.1,
        "warmup_steps": "1ep",
        "weight_decay": 0.0,
        "centred": True,
        "lr_decay": "cosine",
        "plateau_opt": True,
        "patience": 1,
        "cooldown": 1,
        "precision": "float64",
        "apex_fp16": True,
        "polish_optimizer": "lbfgs",
        "polish_steps": "7it",
    },
}
UNNAMED = {
    "dataset_hparams": {
        "samples": 5437,
        "d_in": 64,
        "arrays": "inputs,targets",
        "outputs": 2,
        "link": "softmax",
        "teacher_file": "answers.csv",
        "teacher_folder": "replicate_1",
        "oracle_batch_size": 100,
    },
    "model_hparams": {},
    "training_hparams": {"further_training": "50ep", "extra_training": "10ep"},
}


def md5(*texts: str) -> str:
    return hashlib.md5(";".join(texts).encode()).hexdigest()


@dataclasses.dataclass
class Shuffled(Desc):
    z: ModelHparams
    note: str
    a: ExtractionHparams

    @staticmethod
    def name_prefix() -> str:
        return "shuffled"


def resnet_20() -> TrainingDesc:
    """The run in the manual of OpenLTH."""
    return TrainingDesc(
        dataset_hparams=DatasetHparams(dataset_name="cifar10", batch_size=128),
        model_hparams=ModelHparams(model_name="cifar_resnet_20", model_init="kaiming_normal", batchnorm_init="uniform"),
        training_hparams=TrainingHparams(
            optimizer_name="sgd",
            lr=0.1,
            training_steps="160ep",
            momentum=0.9,
            milestone_steps="80ep,120ep",
            delta=0.1,
            weight_decay=0.0001,
        ),
    )


def students() -> ExtractionDesc:
    """The default extraction of digits with its teacher and its queries."""
    desc = ExtractionDesc.default_for("students_digits_lenet")
    desc.dataset_hparams.teacher_name, desc.dataset_hparams.datagen = TEACHER, "digits+random:4000"
    return desc


def with_change(desc: TrainingDesc, bundle: str, **changes) -> TrainingDesc:
    return dataclasses.replace(desc, **{bundle: dataclasses.replace(getattr(desc, bundle), **changes)})


class TestHashname(TestCase):
    def test_a_name_is_the_md5_of_the_canonical_texts_in_the_order_of_their_names(self):
        dataset = "Hparams(batch_size=128, dataset_name='cifar10')"
        model = "Hparams(batchnorm_init='uniform', model_init='kaiming_normal', model_name='cifar_resnet_20')"
        training = (
            "Hparams(gamma=0.1, lr=0.1, milestone_steps='80ep,120ep', momentum=0.9, optimizer_name='sgd', "
            "training_steps='160ep', weight_decay=0.0001)"
        )
        self.assertEqual(resnet_20().hashname, f"train_{md5(dataset, model, training)}")

    def test_the_order_in_which_groups_are_declared_does_not_matter(self):
        desc = Shuffled(z=ModelHparams("m", "i", "b"), note="no group", a=ExtractionHparams(gamma=0.9))
        model = "Hparams(batchnorm_init='b', model_init='i', model_name='m')"
        self.assertEqual(desc.hashname, f"shuffled_{md5('Hparams(gamma=0.9)', model)}")

    def test_the_name_equals_that_of_openlth(self):
        self.assertEqual(resnet_20().hashname, "train_71bc92a970b64a76d7ab7681764b0021")

    def test_transformations_have_the_canonical_text_of_openlth(self):
        hparams = DatasetHparams("cifar10", 128, do_not_augment=True, transformation_seed=3, subsample_fraction=0.5, blur_factor=4)
        hparams.random_labels_fraction, hparams.unsupervised_labels = 0.25, "rotation"
        expected = "batch_size=128, blur_factor=4, dataset_name='cifar10', do_not_augment=True, random_labels_fraction=0.25, "
        expected += "subsample_fraction=0.5, transformation_seed=3, unsupervised_labels='rotation'"
        self.assertEqual(str(hparams), f"Hparams({expected})")

    def test_apex_fp16_has_the_canonical_text_of_openlth(self):
        training = "Hparams(apex_fp16=True, gamma=0.1, lr=0.1, milestone_steps='80ep,120ep', momentum=0.9, optimizer_name='sgd', "
        self.assertTrue(str(with_change(resnet_20(), "training_hparams", apex_fp16=True).training_hparams).startswith(training))

    def test_the_default_run_of_digits_lenet_keeps_its_name(self):
        self.assertEqual(TrainingDesc.default_for("digits_lenet_16").hashname, TEACHER)

    def test_the_name_of_a_family_means_its_default_model(self):
        self.assertEqual(TrainingDesc.default_for("digits_lenet").hashname, TEACHER)

    def test_every_hashed_hyperparameter_changes_the_name(self):
        desc = TrainingDesc.default_for("digits_lenet_16")
        for bundle, values in OTHER_VALUES.items():
            fields = {field.name for field in dataclasses.fields(getattr(desc, bundle))}
            self.assertEqual(set(values) | set(UNNAMED[bundle]), fields)
        changed = [with_change(desc, bundle, **{name: value}) for bundle in OTHER_VALUES for name, value in OTHER_VALUES[bundle].items()]
        self.assertEqual(len({desc.hashname, *(other.hashname for other in changed)}), 1 + len(changed))

    def test_unhashed_hyperparameters_do_not_change_the_name(self):
        for desc in (TrainingDesc.default_for("digits_lenet_16"), students()):
            for bundle, changes in UNNAMED.items():
                for name, value in changes.items():
                    with self.subTest(desc=desc.name_prefix(), field=name):
                        self.assertEqual(with_change(desc, bundle, **{name: value}).hashname, desc.hashname)

    def test_values_that_equal_the_defaults_do_not_change_the_name(self):
        desc = TrainingDesc.default_for("digits_lenet_16")
        self.assertEqual(with_change(desc, "training_hparams", momentum=0.0, patience=100, delta=None).hashname, desc.hashname)


class TestExtractionNames(TestCase):
    DATASET = f"Hparams(batch_size=256, datagen='digits+random:4000', dataset_name='teacher', teacher_name='{TEACHER}')"
    MODEL = "Hparams(batchnorm_init='uniform', model_init='kaiming_normal', model_name='students_digits_lenet(10)_64')"
    TRAINING = "Hparams(lr=0.02, lr_decay='cosine', optimizer_name='adam', training_steps='6000it')"

    def test_the_name_of_an_extract_run_depends_on_the_training_of_the_students_only(self):
        self.assertEqual(students().hashname, f"extract_{md5(self.DATASET, self.MODEL, self.TRAINING)}")

    def test_the_default_extraction_of_digits_keeps_its_name(self):
        self.assertEqual(students().hashname, "extract_72f7553f0d7fb16d008cb08fe07eff19")

    def test_the_name_of_a_clustering_depends_on_the_extraction_hyperparameters_only(self):
        self.assertEqual(students().clustering_hashname, f"clustering_{md5('Hparams()')}")
        changed = with_change(students(), "extraction_hparams", gamma=0.9, beta=4.0)
        self.assertEqual(changed.clustering_hashname, f"clustering_{md5('Hparams(beta=4.0, gamma=0.9)')}")

    def test_clusterings_keep_their_names(self):
        self.assertEqual(students().clustering_hashname, "clustering_7b99794732481fff503d5290ee43fb4b")
        changed = with_change(students(), "extraction_hparams", gamma=0.9)
        self.assertEqual(changed.clustering_hashname, "clustering_ede65a8e49cc54900023ed226fe265cb")

    def test_every_extraction_hyperparameter_changes_the_name_of_the_clustering_only(self):
        other = {
            "gamma": 0.9,
            "beta": 4.0,
            "linkage": "complete",
            "boruta": "digits",
            "finetune_optimizer": "adam",
            "finetune_lr": 0.5,
            "finetune_training_steps": "7it",
            "finetune_batch_size": 64,
            "answers": "decimals:4",
            "domain": "-3:3",
            "seeds_from": "derivatives",
        }
        self.assertEqual(set(other), {field.name for field in dataclasses.fields(ExtractionHparams)})
        changed = [with_change(students(), "extraction_hparams", **{name: value}) for name, value in other.items()]
        self.assertEqual(len({students().clustering_hashname, *(desc.clustering_hashname for desc in changed)}), 1 + len(other))
        self.assertEqual({desc.hashname for desc in changed}, {students().hashname})

    def test_delta_is_hashed_as_gamma_in_the_name_of_the_students(self):
        changed = with_change(students(), "training_hparams", delta=0.5)
        training = self.TRAINING.replace("(lr=", "(gamma=0.5, lr=")
        self.assertEqual(changed.hashname, f"extract_{md5(self.DATASET, self.MODEL, training)}")
        self.assertEqual(changed.clustering_hashname, students().clustering_hashname)

    def test_the_teacher_changes_the_name_of_the_students(self):
        changed = with_change(students(), "dataset_hparams", teacher_name="train_71bc92a970b64a76d7ab7681764b0021")
        self.assertNotEqual(changed.hashname, students().hashname)


class TestFolders(TestCase):
    def test_texts_of_one_step_name_one_run(self):
        names = {
            TrainingDesc(DatasetHparams("digits", 9), ModelHparams("digits_lenet_4", "binary", "uniform"), hparams).hashname
            for hparams in (
                TrainingHparams("sgd", 0.1, "40ep", milestone_steps="2ep,3ep", polish_steps="200it"),
                TrainingHparams("sgd", 0.1, "040ep", milestone_steps="3ep,2ep0it", polish_steps="0200it"),
            )
        }
        self.assertEqual(len(names), 1)

    def test_an_older_folder_is_found_by_the_text_that_named_it(self):
        desc = TrainingDesc(
            DatasetHparams("digits", 9), ModelHparams("digits_lenet_4", "binary", "uniform"), TrainingHparams("sgd", 0.1, "040ep")
        )
        texts = (
            "Hparams(batch_size=9, dataset_name='digits')",
            "Hparams(batchnorm_init='uniform', model_init='binary', model_name='digits_lenet_4')",
            "Hparams(lr=0.1, optimizer_name='sgd', training_steps='040ep')",
        )
        older = f"train_{hashlib.md5(';'.join(texts).encode()).hexdigest()}"
        os.makedirs(os.path.join(self.root, older, "seed_3"))
        self.assertEqual(desc.run_path(self.root, 3), os.path.join(self.root, older, "seed_3", "main"))
        self.assertEqual(desc.run_path(self.root, 4), os.path.join(self.root, desc.hashname, "seed_4", "main"))
        os.makedirs(os.path.join(self.root, desc.hashname, "seed_3"))
        self.assertEqual(desc.run_path(self.root, 3), os.path.join(self.root, desc.hashname, "seed_3", "main"))

    def test_the_record_has_canonical_texts(self):
        hparams = TrainingHparams("sgd", 0.1, "040ep", warmup_steps="0ep3it")
        self.assertEqual((hparams.to_dict()["training_steps"], hparams.to_dict()["warmup_steps"]), ("40ep", "3it"))
        self.assertIn("training_steps => 40ep", hparams.display)

    def test_a_run_has_a_folder_for_each_seed(self):
        self.assertEqual(resnet_20().run_path("/r", 5), os.path.join("/r", resnet_20().hashname, "seed_5", "main"))

    def test_a_run_without_a_seed_has_the_folder_seed_minus_one(self):
        self.assertEqual(resnet_20().run_path("/r"), os.path.join("/r", resnet_20().hashname, "seed_-1", "main"))

    def test_the_folder_of_a_clustering_is_inside_the_run_of_its_students(self):
        desc = students()
        self.assertEqual(desc.clustering_path("/r", 5), os.path.join(desc.run_path("/r", 5), desc.clustering_hashname))


class TestRecords(TestCase):
    def test_display_shows_all_groups_in_the_format_of_openlth(self):
        groups = {
            "Dataset": ["dataset_name => cifar10", "batch_size => 128"],
            "Model": ["model_name => cifar_resnet_20", "model_init => kaiming_normal", "batchnorm_init => uniform"],
            "Training": ["optimizer_name => sgd", "lr => 0.1", "training_steps => 160ep", "momentum => 0.9"]
            + ["milestone_steps => 80ep,120ep", "delta => 0.1", "weight_decay => 0.0001"],
        }
        shown = "\n".join("\n    * ".join([f"{name} Hyperparameters", *lines]) for name, lines in groups.items())
        self.assertEqual(resnet_20().display, shown)

    def test_the_displayed_text_can_be_parsed(self):
        groups = parse_display_text(resnet_20().display)
        self.assertEqual(list(groups), ["Dataset Hyperparameters", "Model Hyperparameters", "Training Hyperparameters"])
        for bundle in resnet_20().bundles().values():
            self.assertEqual(type(bundle).from_text(groups[bundle._name]), bundle)

    def test_the_text_of_openlth_can_be_parsed(self):
        log = "Model Hyperparameters\n    * model_name => cifar_resnet_20\n    * model_init => a => b\n    * others_frozen => True\n"
        self.assertEqual(
            parse_display_text(log),
            {"Model Hyperparameters": {"model_name": "cifar_resnet_20", "model_init": "a => b", "others_frozen": "True"}},
        )
        self.assertEqual(parse_display_text(""), {})

    def test_the_banner_has_the_title_the_hyperparameters_and_the_folder(self):
        lines = resnet_20().banner("Training a Model (Seed 1)", "/r/x").splitlines()
        self.assertEqual(lines[:2], ["=" * 82, "Training a Model (Seed 1)"])
        self.assertEqual(lines[-2:], ["Output Location: /r/x", "=" * 82])
        self.assertIn(resnet_20().display, "\n".join(lines))

    def test_the_descriptor_can_be_rebuilt_from_its_json(self):
        desc = with_change(students(), "training_hparams", further_training="1it")
        record = json.loads(desc.to_json(seed=7))
        self.assertEqual(record.pop("seed"), 7)
        kinds = {field: type(getattr(desc, field)) for field in record}
        rebuilt = {name: kinds[name].from_dict(record[name]) for name in record}
        self.assertEqual(ExtractionDesc(**rebuilt, extraction_hparams=desc.extraction_hparams), desc)
