"""A convolution of 10 channels, 27 x 27 after the pooling."""

from torch import nn


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 10, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=2, stride=1),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(10 * 27 * 27, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
