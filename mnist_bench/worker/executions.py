"""The executions: from (model, optimizer, variant, device) to the two functions that the hot loops call.

Compiled shapes are static unless the variant says ``dynamic``: warm-up covers each one, so that nothing compiles later.
In scope ``step`` the call of ``backward`` itself stays outside, as torch breaks the graph there; forward, loss, their
backward graph and the optimizer's update are compiled.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mnist_bench.catalogue import EXECUTIONS
from mnist_bench.machine import forecast
from mnist_bench.records import Variant
from mnist_bench.worker.loop import Forward, Step
from mnist_bench.worker.process import AUTOCAST

# Modes that capture graphs where there are CUDA graphs, and what is left of each without that.
CAPTURING_MODES: dict[str, str | None] = {"reduce-overhead": None, "max-autotune": "max-autotune-no-cudagraphs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """``step(images, labels)`` trains once and returns the mean loss, detached; ``forward(images)`` gives logits."""

    step: Step
    forward: Forward


def eager(model: nn.Module, optimizer: Optimizer, variant: Variant, device: torch.device) -> Program:
    """Operator by operator, as written."""
    return assemble(with_precision(model, variant, device), optimizer)


def compiled(model: nn.Module, optimizer: Optimizer, variant: Variant, device: torch.device) -> Program:
    """``torch.compile``: of the model, or (scope ``step``) of loss and optimizer too."""
    # Beyond its limit of recompilations dynamo would go on in eager, and the figure would be eager's.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    arguments = asdict(variant.compile)
    scope, mode = arguments.pop("scope"), variant.compile.mode
    compile_: Callable[..., Callable[..., Any]] = partial(torch.compile, **arguments)
    forward = with_precision(compile_(model), variant, device)
    if scope == "model":
        return assemble(forward, optimizer)
    plain = with_precision(model, variant, device)
    loss_of = compile_(lambda images, labels: cross_entropy(plain(images), labels))
    # Not captured: the gradients lie in the graphs' memory, which the next captured call takes for its own.
    update = compile_(lambda: optimizer.step(), mode=CAPTURING_MODES.get(mode, mode))
    captured = captures_graphs(variant, device)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = loss_of(images, labels)
        loss.backward()
        update()
        optimizer.zero_grad()
        return loss.detach().clone() if captured else loss.detach()  # the next replay overwrites a graph's outputs

    return Program(step=step, forward=forward)


def assemble(forward: Forward, optimizer: Optimizer) -> Program:
    """Forward, loss, backward, update, each in its own call. Flat, since each step pays for every layer of Python."""
    update, zero_grad = optimizer.step, optimizer.zero_grad

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(forward(images), labels)
        loss.backward()
        update()
        zero_grad()
        return loss.detach()

    return Program(step=step, forward=forward)


def with_precision(forward: Forward, variant: Variant, device: torch.device) -> Forward:
    """``forward`` under the variant's autocast; itself where there is none. Logits come back as float32."""
    dtype = AUTOCAST.get(variant.precision)
    if dtype is None:
        return forward

    def autocast(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype):
            logits = forward(images)
        return logits.float()

    return autocast


def captures_graphs(variant: Variant, device: torch.device) -> bool:
    """Whether the device's work is recorded once and replayed, at fixed addresses (CUDA graphs)."""
    return variant.execution == "compile" and variant.compile.mode in CAPTURING_MODES and device.type == "cuda"


def graphs_compiled() -> int:
    """How many graphs this process has compiled; a rise inside a timed span is a recompilation."""
    return int(counters["stats"]["unique_graphs"])


def is_compile_error(error: BaseException) -> bool:
    """Whether ``error`` or what it came from was raised by the compiler rather than by the model."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__module__.startswith(("torch._dynamo", "torch._inductor", "torch._functorch", "triton")):
            return True
        cause = cause.__cause__
    return False


def missing_compiler(variant: Variant, device: torch.device) -> str | None:
    """Why nothing can be compiled here, and what to install; None where it can."""
    compiles = EXECUTIONS[variant.execution].compiles and variant.compile.backend == "inductor"
    if compiles and device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton on a GPU: pip install triton"
    found = forecast.compiler_problem(variant, forecast.this_host())
    return found and ": ".join(found)
