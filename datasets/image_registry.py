"""Every dataset of images that is held in memory. A new one is a module with the classes Dataset and DataLoader, and a line here."""

from __future__ import annotations

from datasets import cifar10, digits, fashion_mnist, mnist

registered_images = {
    "digits": digits,
    "mnist": mnist,
    "fashion_mnist": fashion_mnist,
    "cifar10": cifar10,
}
