"""Layers that do what torch's do in less time on a CPU: dropout by 16 random bits an element, pooling by shifted views,
tanh by the logistic function, convolutions by parts, linear layers by oneDNN.

torch draws each element of a mask of dropout by itself, which took a sixth of an eager step of the built-in cnn
(docs/log.md, 2026-11-30). The chance to drop is rounded to a multiple of 2**-16, and what is kept is
divided by the chance to keep that is then true, so that the expectation stays.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, cast

import torch
from torch import library, nn

LEVELS = 1 << 16


@library.custom_op("mnist_bench::draw", mutates_args=())
def draw(like: torch.Tensor, dropped: int) -> torch.Tensor:
    """bool in the shape and memory order of ``like``; False with the chance dropped / LEVELS."""
    mask = torch.empty_like(like, dtype=torch.bool)
    words = torch.empty(-(-mask.numel() // 4), dtype=torch.int64, device=like.device).random_(-(1 << 63), None)
    bits = words.view(torch.int16)[: mask.numel()]
    torch.ge(bits, dropped - LEVELS // 2, out=mask.as_strided((mask.numel(),), (1,)))
    return mask


@draw.register_fake
def _(like: torch.Tensor, dropped: int) -> torch.Tensor:
    return torch.empty_like(like, dtype=torch.bool)


class BitDropout(nn.Dropout):
    """As ``nn.Dropout``, not in place."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        dropped = round(self.p * LEVELS)
        if not self.training or dropped == 0:
            return input
        mask = cast(torch.Tensor, draw(input.detach(), min(dropped, LEVELS - 1)))
        return input * (mask.to(input.dtype) * (LEVELS / (LEVELS - dropped) if dropped < LEVELS else 0.0))


class ShiftedMaxPool(nn.MaxPool2d):
    """As ``nn.MaxPool2d`` with a stride of 1, unpadded; equal values share the gradient, which there the first has.

    A compiler fuses it with what is around it, which it does not with torch's own. Without one it is slower.
    """

    @staticmethod
    def replaces(pool: nn.MaxPool2d) -> bool:
        plain = (pool.stride, pool.padding, pool.dilation) in ((1, 0, 1), ((1, 1), 0, 1))
        return plain and isinstance(pool.kernel_size, int) and not (pool.ceil_mode or pool.return_indices)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        size = cast(int, self.kernel_size)
        for axis in (-1, -2):
            length = input.shape[axis] - size + 1
            input = reduce(torch.maximum, (input.narrow(axis, shift, length) for shift in range(size)))
        return input


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor) -> torch.Tensor:
        output = 2 * torch.sigmoid(2 * input) - 1
        ctx.save_for_backward(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (output,) = ctx.saved_tensors
        return cast(torch.Tensor, grads[0] * (1 - output * output))


class LogisticTanh(nn.Tanh):
    """As ``nn.Tanh`` within 2e-7 (absolute): tanh(x) = 2 / (1 + exp(-2 x)) - 1.

    A compiler makes one loop of it, of an exponential that is quicker than its tanh.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, _Tanh.apply(input))  # type: ignore[no-untyped-call]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: nn.Conv2d
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        ctx.layer = layer
        return nn.functional.conv2d(input, weight, bias, layer.stride, layer.padding, layer.dilation)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,), (input, weight), layer = grads, ctx.saved_tensors, ctx.layer
        where = layer.stride, layer.padding, layer.dilation, False, (0, 0), 1

        def gradients(order: torch.memory_format, *wanted: bool) -> Any:
            given = (one.contiguous(memory_format=order) for one in (grad, input, weight))
            return torch.ops.aten.convolution_backward(*given, [layer.out_channels], *where, wanted)

        whole, weighted, biased, _ = ctx.needs_input_grad
        _, of_weight, of_bias = gradients(torch.channels_last, False, weighted, biased)
        of_input = gradients(torch.contiguous_format, True, False, False)[0] if whole else None
        return of_input, of_weight, of_bias, None


class PartedConvolution(nn.Conv2d):
    """As ``nn.Conv2d`` of one group padded with zeros; of an image as large as the kernel, a product.

    Each gradient is taken in the memory order in which oneDNN takes it sooner (docs/log.md, 2026-11-30): that of the
    images in torch's own, that of the weights channels-last.
    """

    @staticmethod
    def replaces(layer: nn.Conv2d) -> bool:
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.shape[2:] == self.kernel_size and self.padding == (0, 0) and self.dilation == (1, 1):
            images, weight = (one.permute(0, 2, 3, 1).flatten(1) for one in (input, self.weight))
            return nn.functional.linear(images, weight, self.bias)[:, :, None, None]
        return cast(torch.Tensor, _Convolution.apply(input, self.weight, self.bias, self))  # type: ignore[no-untyped-call]


def product(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """As ``nn.functional.linear`` of two matrices in fp32, by oneDNN instead of the BLAS that torch has."""
    if torch.compiler.is_compiling():  # inductor knows the operator of constant weights alone
        return cast(torch.Tensor, opaque_product(input, weight, bias))
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")  # type: ignore[no-any-return]


@library.custom_op("mnist_bench::product", mutates_args=())
def opaque_product(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """``product``, which a compiler does not look into."""
    return product(input, weight, bias)


@opaque_product.register_fake
def _(input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return input.new_empty(input.shape[0], weight.shape[0])


def product_flops(input: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Of ``product``, by the shapes of what it is given, as torch counts those of its own."""
    return 2 * math.prod(input) * weight[0]


# For torch's counter; a torch without oneDNN has no such operator.
FLOPS = {torch.ops.mkldnn._linear_pointwise: product_flops} if hasattr(torch.ops.mkldnn, "_linear_pointwise") else {}


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        return product(input, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        (grad,), (input, weight) = grads, ctx.saved_tensors
        whole, weighted, biased = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if whole else None,
            product(grad.t(), input.t()) if weighted else None,
            grad.sum(0) if biased else None,
        )


class OneDnnLinear(nn.Linear):
    """As ``nn.Linear`` of a matrix, in fp32.

    torch leaves these products to its BLAS. On an AMD processor with AVX-512 MKL reached what AVX2 can, oneDNN twice
    that; on one without, oneDNN was the slower one (docs/log.md, 2026-11-30).
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if input.dim() != 2:
            return super().forward(input)
        return cast(torch.Tensor, _Linear.apply(input, self.weight, self.bias))  # type: ignore[no-untyped-call]


def linear_by_onednn(model: nn.Module) -> nn.Module:
    """The model with each layer that is exactly torch's linear one replaced; its parameters stay where they are."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
    return model


def replace_layers(model: nn.Module, *, compiled: bool) -> nn.Module:
    """The model with each of its layers replaced that is exactly one of torch's for which there is a faster one.

    Args:
        compiled: a compiler will see it.
    """
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, BitDropout(child.p))
            elif type(child) is nn.MaxPool2d and compiled and ShiftedMaxPool.replaces(child):
                setattr(module, name, ShiftedMaxPool(child.kernel_size, 1))
            elif type(child) is nn.Tanh and compiled:
                setattr(module, name, LogisticTanh())
            elif type(child) is nn.Conv2d and PartedConvolution.replaces(child):
                child.__class__ = PartedConvolution
    return model
