"""Stages as graphs that oneDNN compiles: when, what for, and that they change no answer."""

import copy
import math
import platform

import pytest
import torch
from torch import nn

from models import graphs
from models.graphs import GraphStage, make_graphs
from models.inference import prepare_for_inference
from models.team_net import TeamNet

needs_onednn = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available(),
    reason="PyTorch has oneDNN graphs on x86 only",
)


@pytest.fixture
def stage():
    """Two convolutions, in its plain form and in the other."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1)]
    plain = nn.Sequential(*convs).eval().requires_grad_(False)
    return GraphStage(plain, copy.deepcopy(plain))


def picture(*size):
    return torch.randn(*size).to(memory_format=torch.channels_last)


@torch.inference_mode()
def call(stage, times, *sizes):
    for _ in range(times):
        for size in sizes:
            x = picture(*size)
            torch.testing.assert_close(stage(x), stage.stage(x), rtol=1e-5, atol=1e-5)


def shapes(stage):
    return [tuple(shape) for shape, *_ in stage.graphs]


@needs_onednn
def test_a_shape_gets_its_graph_when_it_has_come_often(stage):
    call(stage, graphs.OFTEN, (2, 3, 8, 8), (1, 3, 8, 8))
    assert not stage.graphs
    call(stage, 1, (2, 3, 8, 8))
    assert shapes(stage) == [(2, 3, 8, 8)]
    assert stage.graphs.popitem()[1] is not stage.fused


@needs_onednn
def test_shapes_threads_and_orders_have_graphs_of_their_own(stage):
    make_graphs(stage, 0)
    threads = torch.get_num_threads()
    try:
        call(stage, 2, (2, 3, 8, 8), (2, 3, 9, 7))
        torch.set_num_threads(threads + 1)
        call(stage, 2, (2, 3, 8, 8))
    finally:
        torch.set_num_threads(threads)
    with torch.inference_mode():
        x = torch.randn(2, 3, 8, 8)  # channels first
        torch.testing.assert_close(stage(x), stage.stage(x), rtol=1e-5, atol=1e-5)
    assert shapes(stage) == [(2, 3, 8, 8), (2, 3, 9, 7), (2, 3, 8, 8), (2, 3, 8, 8)]
    assert graphs.MOST_GRAPHS == 4
    call(stage, 2, (3, 3, 8, 8))
    assert len(stage.graphs) == 4


def test_no_graph_is_made_where_none_is_wanted_or_gradients_are(stage):
    make_graphs(stage, math.inf)
    call(stage, 3, (1, 3, 8, 8))
    make_graphs(stage, 0)
    assert stage(picture(1, 3, 8, 8).requires_grad_()).requires_grad
    with torch.inference_mode():
        assert stage(picture(0, 3, 8, 8)).shape == (0, 8, 8, 8)
    assert not stage.graphs


@needs_onednn
def test_a_graph_made_in_one_mode_serves_the_other(stage):
    """Without gradients there are two; some tensors of the one may not be used in the other."""
    make_graphs(stage, 0)
    call(stage, 2, (1, 3, 8, 8))
    with torch.no_grad():
        x = picture(1, 3, 8, 8)
        torch.testing.assert_close(stage(x), stage.stage(x), rtol=1e-5, atol=1e-5)
    assert len(stage.graphs) == 1


@needs_onednn
def test_a_copy_makes_graphs_of_its_own(stage):
    make_graphs(stage, 0)
    call(stage, 1, (1, 3, 8, 8))
    other = copy.deepcopy(stage)
    assert stage.graphs and not other.graphs and other.often == 0
    for parameter in other.stage.parameters():
        parameter.mul_(2)
    other.fused.load_state_dict(other.stage.state_dict())
    call(other, 2, (1, 3, 8, 8))
    call(stage, 2, (1, 3, 8, 8))


def no_trace(*_):
    raise RuntimeError("no oneDNN here")


def no_fusion(stage, x):
    return torch.jit.trace(lambda x: x.add(1).sub(1), x)


@pytest.mark.parametrize("traced", [no_trace, no_fusion])
def test_without_graphs_the_stage_computes_as_before_and_tries_once(stage, traced, monkeypatch):
    tried = []
    monkeypatch.setattr(graphs, "_traced", lambda *a: tried.append(a) or traced(*a))
    make_graphs(stage, 0)
    before = torch.jit.onednn_fusion_enabled()
    call(stage, 3, (1, 3, 8, 8))
    assert len(tried) == 1
    assert torch.jit.onednn_fusion_enabled() == before


@needs_onednn
def test_a_graph_with_other_answers_is_not_used(stage, monkeypatch):
    right = graphs._traced
    monkeypatch.setattr(graphs, "_traced", lambda stage, x: right(lambda x: stage(x) * 2, x))
    make_graphs(stage, 0)
    call(stage, 3, (1, 3, 8, 8))
    assert list(stage.graphs.values()) == [stage.fused]


@needs_onednn
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("arch", ["resnet18", "mobilenet_v2"])
def test_these_networks_answer_the_same_to_the_bit(arch, precision):
    torch.manual_seed(0)
    net = TeamNet(5, 2, arch, arch, is_shift=True).eval()
    clips = [torch.randn(2, 2, c, 64, 64) for c in (3, 2, 3)]
    answers = []
    for often in (0, math.inf):
        fast = prepare_for_inference(net, precision)
        make_graphs(fast, often)
        with torch.inference_mode():
            answers += [fast(*clips).fused, fast(*clips).fused]
        made = [stage.graphs for stream in fast.streams for stage in stream.stages]
        assert all(made) == (often == 0)
    assert all(torch.equal(answers[0], answer) for answer in answers)


@needs_onednn
def test_networks_that_come_and_go_leave_no_weights_behind():
    """torch.jit.trace would keep those of each, here 36 MB."""
    resource = pytest.importorskip("resource")

    def peak_mb():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    x, peaks = picture(1, 512, 8, 8), []
    for _ in range(16):
        plain = nn.Sequential(nn.Conv2d(512, 2048, 3), nn.ReLU()).requires_grad_(False)
        stage = GraphStage(plain, plain)
        make_graphs(stage, 0)
        with torch.inference_mode():
            stage(x)
        assert stage.graphs
        peaks.append(peak_mb())
    assert peaks[-1] - peaks[3] < 4 * 36
