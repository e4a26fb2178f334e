"""50,000 colour images of 32x32 pixels for training and 10,000 for test (Krizhevsky 2009), read by torchvision."""

import torch

from datasets import base


class Dataset(base.ImageDataset):
    """The images, downloaded to the dataset folder when they are not there; training sees random crops and mirror images of them."""

    image_shape, classes = (3, 32, 32), 10
    mean, std = base.IMAGENET_MEAN, base.IMAGENET_STD  # as in OpenLTH, so that networks trained there see what they know
    is_augmented = True

    @staticmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        dataset = base.read_with_torchvision("CIFAR10", train)
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(dataset.targets)


DataLoader = base.DataLoader
