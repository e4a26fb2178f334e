"""60,000 handwritten digits of 28x28 pixels for training and 10,000 for test (LeCun et al. 1998), read by torchvision."""

import torch

from datasets import base


class Dataset(base.ImageDataset):
    """The images, downloaded to the dataset folder when they are not there."""

    image_shape, classes = (1, 28, 28), 10
    mean, std = (0.1307,), (0.3081,)  # of the training pixels

    @staticmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        dataset = base.read_with_torchvision("MNIST", train)
        return dataset.data.unsqueeze(1), dataset.targets


DataLoader = base.DataLoader
