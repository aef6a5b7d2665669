"""A stand-in for a GPU: while a graph is recorded nothing is computed; a replay does the recorded work where it was.

Like CUDA it does no Python at a replay, writes to the recorded addresses, and refuses to hand out a value meanwhile.
"""

from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mnist_bench.worker.devices import Cpu


def there(value: Any) -> Any:
    """A tensor at the address that it has now, wherever it moves."""
    return value.detach() if isinstance(value, torch.Tensor) else value


def tensors(tree: Any) -> list[torch.Tensor]:
    return [one for one in tree_leaves(tree) if isinstance(one, torch.Tensor)]


class Recording(TorchDispatchMode):
    """Keeps each operator with its tensors. What it returns meanwhile has a shape, and no value."""

    def __init__(self, work: list[Any]) -> None:
        super().__init__()
        self._work = work

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operator is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        kwargs = kwargs or {}
        where = tree_map(there, (args, kwargs))
        if operator._schema.is_mutable:
            self._work.append((operator, *where, []))
            return args[0] if operator._schema.returns else None
        state = torch.get_rng_state()
        found = operator(*args, **kwargs)
        torch.set_rng_state(state)
        taken = {one.untyped_storage().data_ptr() for one in tensors(where)}
        made = [None if one.untyped_storage().data_ptr() in taken else there(one) for one in tensors(found)]
        self._work.append((operator, *where, made))  # of views nothing is made
        for one in made:
            if one is not None and one.is_floating_point():
                one.fill_(torch.nan)
        return found


class Graph:
    def __init__(self, log: list[str]) -> None:
        self.work: list[Any] = []
        self._log = log

    def replay(self) -> None:
        self._log.append("replay")
        with torch.no_grad():
            for operator, args, kwargs, made in self.work:
                found = operator(*args, **kwargs)
                for old, new in zip(made, tensors(found), strict=False):  # what is written in place is not made
                    if old is not None:
                        old.copy_(new)


class Stream:
    def __init__(self, log: list[str], name: str = "aside") -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")


class Gpu(Cpu):
    """``log``: what was asked of ``torch.cuda``, in order."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self.module, self.log = self, list[str]()
        self._main = Stream(self.log, "main")

    def device(self, device: torch.device) -> Any:
        return nullcontext()

    def current_stream(self) -> Stream:
        return self._main

    def Stream(self) -> Stream:  # noqa: N802 - as torch has it
        return Stream(self.log)

    def CUDAGraph(self) -> Graph:  # noqa: N802 - as torch has it
        return Graph(self.log)

    @contextmanager
    def stream(self, stream: Stream) -> Any:
        self.log.append(f"on {stream.name}")
        yield

    @contextmanager
    def graph(self, graph: Graph) -> Any:
        self.log.append("record")
        with Recording(graph.work):
            yield
