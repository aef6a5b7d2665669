"""``torch.compile``: of the model, or (scope ``step``) of loss and optimizer too.

Shapes are static unless the variant says ``dynamic``: warm-up covers each one, so that nothing compiles later. In
scope ``step`` the call of ``backward`` itself stays outside, as torch breaks the graph there; forward, loss, their
backward graph and the optimizer's update are compiled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy

from mnist_bench.execution.program import Program, assemble, with_precision
from mnist_bench.records import Variant

# Modes that capture graphs where there are CUDA graphs, and what is left of each without that.
CAPTURING_MODES = {"reduce-overhead": None, "max-autotune": "max-autotune-no-cudagraphs"}
COMPILER = "clang++" if sys.platform == "darwin" else "g++"  # the one that torch calls where CXX names none


def build(model: nn.Module, optimizer: torch.optim.Optimizer, variant: Variant, device: torch.device) -> Program:
    # Beyond its limit of recompilations dynamo would go on in eager, and the figure would be eager's.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    options = variant.compile
    arguments: dict[str, Any] = {
        "backend": options.backend,
        "mode": options.mode,
        "fullgraph": options.fullgraph,
        "dynamic": options.dynamic,
    }

    def compile_(function: Callable[..., Any], **changes: Any) -> Callable[..., Any]:
        return torch.compile(function, **{**arguments, **changes})

    forward = with_precision(compile_(model), variant, device)
    if options.scope == "model":
        return assemble(forward, optimizer)
    plain = with_precision(model, variant, device)
    loss_of = compile_(lambda images, labels: cross_entropy(plain(images), labels))
    # Not captured: the gradients lie in the graphs' memory, which the next captured call takes for its own.
    update = compile_(lambda: optimizer.step(), mode=CAPTURING_MODES.get(str(options.mode), options.mode))
    captured = captures_graphs(variant, device)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = loss_of(images, labels)
        loss.backward()
        update()
        optimizer.zero_grad()
        return loss.detach().clone() if captured else loss.detach()  # the next replay overwrites a graph's outputs

    return Program(step=step, forward=forward)


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
    if variant.execution != "compile" or variant.compile.backend != "inductor":
        return None
    if device.type in ("cuda", "xpu") and importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton on a GPU: pip install triton"
    wanted = os.environ.get("CXX") or COMPILER
    if shutil.which(wanted) is None:
        mend = "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++"
        return f"torch.compile needs a C++ compiler ({wanted} not found): {mend}"
    return None
