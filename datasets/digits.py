"""1,797 handwritten digits of 8x8 pixels (Alpaydin & Kaynak 1998, the test part of the UCI set), read with scikit-learn."""

import numpy as np
import torch

from datasets import base

TRAIN_EXAMPLES = 1437


class Dataset(base.ImageDataset):
    """A fixed split of 1,437 images for training and 360 for test."""

    image_shape, classes = (1, 8, 8), 10
    mean, std, max_value = (4.886 / 16,), (6.014 / 16,), 16  # of the training pixels

    @staticmethod
    def read(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        order = np.random.RandomState(0).permutation(len(images))
        chosen = order[:TRAIN_EXAMPLES] if train else order[TRAIN_EXAMPLES:]
        return torch.from_numpy(images[chosen]).byte().view(-1, 1, 8, 8), torch.from_numpy(labels[chosen])


DataLoader = base.DataLoader
