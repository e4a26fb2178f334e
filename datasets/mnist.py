"""60,000 handwritten digits of 28x28 pixels for training and 10,000 for test (LeCun et al. 1998), read with torchvision."""

import torch

from datasets import base, idx


class Dataset(base.ImageDataset):
    """The images; missing files are downloaded to the dataset folder."""

    image_shape, classes = (1, 28, 28), 10
    mean, std = (0.1307,), (0.3081,)  # of the training pixels

    @staticmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        return idx.read("MNIST", train, Dataset.image_shape, Dataset.classes)


DataLoader = base.DataLoader
