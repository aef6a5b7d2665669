"""Benchmark of MNIST models over devices, batch sizes and execution variants, with figures that can be trusted."""

__version__ = "0.1.0"
