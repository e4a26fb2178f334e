"""50,000 colour images of 32x32 pixels for training and 10,000 for test (Krizhevsky 2009), read with torchvision."""

import torch

from datasets import base


class Dataset(base.ImageDataset):
    """The images; missing files are downloaded to the dataset folder. Training uses random crops and mirror images."""

    image_shape, classes = (3, 32, 32), 10
    mean, std = base.IMAGENET_MEAN, base.IMAGENET_STD  # as in OpenLTH, so that networks trained there receive the same inputs
    is_augmented = True

    @staticmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, labels = base.read_with_torchvision("CIFAR10", train)
        return pixels.permute(0, 3, 1, 2).contiguous(), labels


DataLoader = base.DataLoader
