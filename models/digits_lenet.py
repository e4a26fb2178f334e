"""Fully connected networks `digits_lenet_P_Q_...` for the 8x8 digits."""

from models.mlp import FullyConnected


class Model(FullyConnected):
    """64 inputs, 10 outputs."""

    family, default_suffix = "digits_lenet", "_16"
    inputs, outputs = 64, 10
    dataset = "digits"
    students_suffix, students_queries = "(10)_64", "digits+random"
