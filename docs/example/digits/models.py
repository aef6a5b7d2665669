"""The models of this project, as it would use them anywhere: mnist_bench knows nothing of them but their names."""

import torch
from torch import nn


class Residual(nn.Module):
    """A fully connected block whose input is added to its output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.body(features)


def patches() -> nn.Module:
    """A convolution over patches of 7 x 7 pixels, then two residual blocks: (N, 1, 28, 28) to logits (N, 10)."""
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=7, stride=7),
        nn.Flatten(),
        Residual(128),
        Residual(128),
        nn.Linear(128, 10),
    )


def linear() -> nn.Module:
    """One linear layer, to see what the blocks are worth."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
