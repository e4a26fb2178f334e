"""Fully connected networks `cifar_lenet_P_Q_...` for CIFAR-10."""

from models.mlp import FullyConnected


class Model(FullyConnected):
    """3,072 inputs, 10 outputs."""

    family, default_suffix = "cifar_lenet", "_20"
    inputs, outputs = 3072, 10
    dataset, training_steps = "cifar10", "200ep"
    students_suffix, students_queries = "(10)_80", "cifar10+random:40000"
    students_lr, students_steps = 0.005, "10000it"
