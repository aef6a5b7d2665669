"""The executions: from (model, optimizer, variant, device) to the two functions that the hot loops call.

Compiled shapes are static unless the variant says ``dynamic``: warm-up covers each one, so that nothing compiles later.
In scope ``step`` forward, loss and backward are one compiled call, the optimizer's update is another.
"""

import difflib
import importlib.util
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mnist_bench.catalogue import CAPTURING_MODES, EXECUTIONS
from mnist_bench.errors import TrialError, quoted
from mnist_bench.machine import forecast
from mnist_bench.records import CompileOptions, Variant
from mnist_bench.worker.loop import Forward, Step
from mnist_bench.worker.process import AUTOCAST


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """``step(images, labels)`` trains once and returns the mean loss, detached; ``forward(images)`` gives logits.

    Args:
        tensors: state beside that of model and optimizer.
        skipped: of these the one that counts the steps which a gradient scaler skipped.
        steps: batches that a call of ``step`` trains on; of several it returns as many losses.
        capture: records anew what ``step`` replays: where tensors or modes of modules are not those of before.
    """

    step: Step
    forward: Forward
    tensors: tuple[torch.Tensor, ...] = ()
    skipped: torch.Tensor | None = None
    steps: int = 1
    capture: Callable[[], None] | None = None


class Learning(NamedTuple):
    """From a loss to new weights, in three calls; ``tensors`` and ``skipped`` as in ``Program``."""

    backward: Callable[[torch.Tensor], object]
    update: Callable[[], object]
    zero_grad: Callable[[], object]
    tensors: tuple[torch.Tensor, ...] = ()
    skipped: torch.Tensor | None = None


def eager(model: nn.Module, optimizer: Optimizer, variant: Variant, device: torch.device) -> Program:
    """Operator by operator, as written."""
    learning = learning_of(model, optimizer, variant, device)
    return assemble(with_precision(model, variant, device), learning)


def compiled(model: nn.Module, optimizer: Optimizer, variant: Variant, device: torch.device) -> Program:
    """``torch.compile``: of the model, or (scope ``step``) of loss and optimizer too."""
    # Beyond its limit of recompilations dynamo would go on in eager, and the figure would be eager's.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    learning = learning_of(model, optimizer, variant, device)
    compile_ = compiler_of(variant.compile)
    forward = with_precision(compile_(model), variant, device)
    if variant.compile.scope == "model":
        return assemble(forward, learning)
    plain = with_precision(model, variant, device)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(plain(images), labels)

    if traced := traces_backward(model):
        torch._dynamo.config.trace_autograd_ops = True
    differentiate = compile_(differentiating(loss_of)) if traced else differentiating(compile_(loss_of))
    # Not captured: the gradients lie in the graphs' memory, which the next captured call takes for its own.
    # Not of one graph: torch itself breaks it within an optimizer's step.
    update = compiler_of(replace(variant.compile, fullgraph=False), capture=False)(lambda: optimizer.step())
    captured = inductor_captures(variant, device)

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = differentiate(images, labels)
        update()
        optimizer.zero_grad()
        return loss.clone() if captured else loss  # the next replay overwrites a graph's outputs

    return Program(step=step, forward=forward)


def differentiating(loss_of: Step) -> Step:
    """The same, with the gradients of it left at the weights."""

    def differentiate(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = loss_of(images, labels)
        loss.backward()
        return loss.detach()

    return differentiate


def traces_backward(model: nn.Module) -> bool:
    """Whether dynamo goes on through ``backward``: torch 2.10 cannot, and it loses the hooks of weights and modules."""
    return hasattr(torch._dynamo.config, "trace_autograd_ops") and not (
        any(one._backward_hooks or one._backward_pre_hooks for one in model.modules())
        or any(one._backward_hooks or one._post_accumulate_grad_hooks for one in model.parameters())
    )


def compiler_of(own: CompileOptions, *, capture: bool = True) -> Callable[..., Callable[..., Any]]:
    """``torch.compile`` with these arguments; ``capture``: with graphs, where the mode has them.

    Raises:
        TrialError: inductor has no such option.
    """
    rest = asdict(own)
    for name in ("scope", "options", "cache", "mode"):
        del rest[name]
    mode = own.mode if capture else CAPTURING_MODES.get(own.mode, own.mode)
    if not own.options:
        return partial(torch.compile, mode=mode, **rest)
    from torch._inductor import list_mode_options, list_options  # late: no other variant needs it so soon

    known = list_options()
    for name in own.options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {close[0]!r}?" if close else "; torch._inductor.list_options() names them all"
            raise TrialError(f"compile.options: inductor of torch {torch.__version__} has no {quoted(name)}{hint}")
    # torch takes a mode or options: what the mode stands for, then what is asked for beyond it.
    options = {**list_mode_options(mode, own.dynamic), **own.options}
    return partial(torch.compile, options=options if capture else {**options, "triton.cudagraphs": False}, **rest)


def assemble(forward: Forward, learning: Learning) -> Program:
    """Forward, loss, backward, update, each in its own call. Flat, since each step pays for every layer of Python."""
    backward, update, zero_grad, tensors, skipped = learning

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = cross_entropy(forward(images), labels)
        backward(loss)
        update()
        zero_grad()
        return loss.detach()

    return Program(step=step, forward=forward, tensors=tensors, skipped=skipped)


def plain_learning(optimizer: Optimizer) -> Learning:
    """The optimizer's own step."""
    return Learning(torch.Tensor.backward, optimizer.step, optimizer.zero_grad)


def learning_of(model: nn.Module, optimizer: Optimizer, variant: Variant, device: torch.device) -> Learning:
    """What the variant's precision makes of the optimizer's step; ``bf16-weights`` gives the model other weights."""
    if variant.precision == "fp16":
        return _scaled(optimizer, device)
    return _mastered(model, optimizer) if variant.precision == "bf16-weights" else plain_learning(optimizer)


def _scaled(optimizer: Optimizer, device: torch.device) -> Learning:
    """Gradients of a scaled loss, which float16 can hold; where one is not finite, the step is skipped and counted."""
    scaler = torch.amp.GradScaler(device.type)
    scaler.scale(torch.zeros((), device=device))  # it makes its tensors with the first loss
    skipped = torch.zeros((), device=device)

    def update() -> None:
        scaler.step(optimizer)
        skipped.add_(*scaler._found_inf_per_device(optimizer).values())
        scaler.update()

    state = (*scaler._check_scale_growth_tracker("scale"), skipped)
    return Learning(lambda loss: scaler.scale(loss).backward(), update, optimizer.zero_grad, state, skipped)


def _mastered(model: nn.Module, optimizer: Optimizer) -> Learning:
    """The model computes with bfloat16 copies of its weights; the optimizer keeps those that it was built on."""
    copies = {master: nn.Parameter(master.detach().bfloat16()) for master in model.parameters()}
    for module in model.modules():
        for name, master in [*module.named_parameters(recurse=False)]:
            setattr(module, name, copies[master])  # a shared one stays shared
    model.to(torch.bfloat16)  # the buffers
    masters, weights = tuple[torch.Tensor, ...](copies), tuple[torch.Tensor, ...](copies.values())

    def update() -> None:
        for master, weight in copies.items():
            master.grad = None if weight.grad is None else weight.grad.float()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(weights, masters)

    return Learning(torch.Tensor.backward, update, model.zero_grad, masters)


def with_precision(forward: Forward, variant: Variant, device: torch.device) -> Forward:
    """``forward`` in the variant's arithmetic; itself where that is float32. Logits come back as float32."""
    if variant.precision == "bf16-weights":
        return lambda images: forward(images.bfloat16()).float()
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
    return EXECUTIONS[variant.execution].captured or inductor_captures(variant, device)


def inductor_captures(variant: Variant, device: torch.device) -> bool:
    """Whether it is the compiler that records it."""
    asked = variant.compile.mode in CAPTURING_MODES or variant.compile.options.get("triton.cudagraphs", False)
    return bool(EXECUTIONS[variant.execution].compiles and asked and device.type == "cuda")


def compiled_anew() -> bool:
    """Whether the compiler did not find all that it made in its cache."""
    found = counters["inductor"]
    return bool(found["fxgraph_cache_miss"] or found["fxgraph_cache_bypass"] or not found["fxgraph_cache_hit"])


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
