"""Stages computed by graphs that oneDNN compiles, for the shapes that come often. On a CPU only.

PyTorch prepares each convolution anew in each call, which takes longer than the arithmetic of one
small picture. In a graph it is prepared once. A graph is of one shape, and its making takes as long
as some ten to a hundred calls save.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import torch
from torch import nn

OFTEN = 16  # calls of a shape before it gets a graph
MOST_GRAPHS = 4  # of a stage: each keeps a copy of the weights, in an order of its own
LARGEST_ERROR = 0.1  # of the largest value: bfloat16 may round elsewhere, a wrong graph is farther

_compiling = threading.Lock()


class GraphStage(nn.Module):
    """`stage`, computed by a graph where one is worth making, else by `fused`.

    stage: of plain convolutions, in eval mode, whose weights `fused` shares. A graph and `fused`
    give equal results for ResNets and MobileNetV2. For others bfloat16 is rounded at other places,
    and float32 in its last digits. A copy makes graphs of its own.
    """

    def __init__(self, stage: nn.Module, fused: nn.Module):
        super().__init__()
        self.stage, self.fused = stage, fused
        self.often: float = OFTEN
        self._forget()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() or not len(x):
            return self.fused(x)
        kind = (x.shape, x.stride(), x.dtype, torch.get_num_threads())
        compute = self.graphs.get(kind) or self._learn(kind, x)
        return compute(x)

    def __getstate__(self) -> dict:
        return {k: v for k, v in super().__getstate__().items() if k not in ("graphs", "calls")}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self._forget()

    def _forget(self) -> None:
        self.graphs: dict[tuple, Callable] = {}
        self.calls: Counter = Counter()

    def _learn(self, kind: tuple, x: torch.Tensor) -> Callable:
        """What computes x, from now on if this was the time to make a graph."""
        self.calls[kind] += 1
        if self.calls[kind] <= self.often or len(self.graphs) >= MOST_GRAPHS:
            return self.fused
        with _compiling:
            self.graphs[kind] = compile_graph(self.stage, x, self.fused(x.clone())) or self.fused
        return self.graphs[kind]


def make_graphs(model: nn.Module, often: float) -> None:
    """Let shapes have graphs after this many calls: 0 at once, infinity never."""
    for module in model.modules():
        if isinstance(module, GraphStage):
            module.often = often


def compile_graph(stage: nn.Module, x: torch.Tensor, expected: torch.Tensor) -> Callable | None:
    """A function of tensors like x; None where oneDNN has none, or gets not what is expected."""
    try:
        with _onednn_fusion():
            graph = _traced(stage, x)
            graph(x)  # looks at the shapes
            found = graph(x)  # compiles
            if "oneDNNFusion" not in str(torch.jit.last_executed_optimized_graph()):
                return None
    except (AttributeError, TypeError, RuntimeError):  # no TorchScript, another one, or no oneDNN
        return None
    error = (found.float() - expected.float()).abs().max()
    return graph if error <= LARGEST_ERROR * expected.float().abs().max() else None


def _traced(stage: nn.Module, x: torch.Tensor) -> Callable:
    """As torch.jit.trace, which would keep the weights for ever, and takes three times as long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # a graph is of one shape
        graph, *_ = torch._C._create_graph_by_tracing(
            lambda x: stage(x), (x,), lambda value: "", True, False, None, []
        )
    return torch._C.CompilationUnit().create_function("stage", graph)


@contextlib.contextmanager
def _onednn_fusion() -> Iterator[None]:
    before = torch.jit.onednn_fusion_enabled()
    torch.jit.enable_onednn_fusion(True)
    try:
        yield
    finally:
        torch.jit.enable_onednn_fusion(before)
