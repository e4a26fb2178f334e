"""Fully connected networks `mnist_lenet_P_Q_...` for the 28x28 digits."""

from models.mlp import FullyConnected


class Model(FullyConnected):
    """784 inputs, 10 outputs."""

    family, default_suffix = "mnist_lenet", "_20"
    inputs, outputs = 784, 10
    dataset = "mnist"
    students_suffix, students_queries = "(10)_80", "mnist+random:40000"
    students_lr, students_steps = 0.005, "10000it"
    deep_optimizer = None  # OpenLTH trains networks of all depths with the same optimizer
