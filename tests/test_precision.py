"""--precision auto: chosen by what the processor says it can do, recorded, and kept on resume."""

import argparse
import copy
import json

import pytest
import torch

import train_team_ce
from models import precision
from training.on_cpu import DepthwiseConv2d, prepare_for_training
from training.resolve import resolve_precision
from training.run_folder import RunFolder

AVX2 = "processor : 0\nmodel name : A CPU\nflags : fpu sse2 avx avx2 fma\n"


def with_flags(*flags):
    return AVX2.replace("fma", " ".join(("fma", *flags)))


@pytest.mark.parametrize(
    "cpuinfo, isa, expected",
    [
        (AVX2, None, False),
        (with_flags("avx512f", "avx512_vnni"), None, False),
        (with_flags("avx512f", "avx512_bf16"), None, True),
        (with_flags("amx_bf16", "amx_tile"), None, True),
        ("processor : 0\nFeatures : fp asimd bf16 i8mm\n", None, True),
        ("processor : 0\nFeatures : fp asimd\n", None, False),
        ("model name : bf16 amx_bf16\nflags : avx2\n", None, False),
        ("", None, False),  # no Linux
        (with_flags("avx512_bf16"), "AVX2", False),
        (with_flags("avx512_bf16"), "avx512_core", False),
        (with_flags("avx512_bf16"), "AVX512_CORE_BF16", True),
        (with_flags("avx512_bf16"), "ALL", True),
        (AVX2, "AVX512_CORE_AMX", False),  # a limit gives nothing
    ],
)
def test_bf16_of_a_processor(cpuinfo, isa, expected):
    environ = {} if isa is None else {"ONEDNN_MAX_CPU_ISA": isa}
    assert precision.cpu_has_bf16(cpuinfo, environ) is expected


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """A function that puts this text in the place of the machine's own flags."""
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    return (tmp_path / "cpuinfo").write_text


def test_words_are_resolved_and_bf16_without_arithmetic_warns(processor, recwarn):
    processor(with_flags("avx512_bf16"))
    assert [precision.resolve(word) for word in precision.CHOICES] == ["bf16", "fp32", "bf16"]
    processor(AVX2)
    assert [precision.resolve(word) for word in ("auto", "fp32")] == ["fp32", "fp32"]
    assert not recwarn
    with pytest.warns(UserWarning, match=r"takes [\d.e+]+ ms in bf16 and [\d.e+]+ ms in fp32"):
        assert precision.resolve("bf16") == "bf16"
    with pytest.raises(ValueError, match="unknown precision 'fp16': choose one of auto, fp32"):
        precision.resolve("fp16")


def run_folder(path, word):
    args = argparse.Namespace(precision=word, resume=True, overwrite=False)
    resolve_precision(args)
    resolve_precision(args)  # does nothing
    return RunFolder(path, vars(args), {"precision": "fp32"})


def test_a_run_is_not_resumed_in_another_precision(processor, tmp_path, capsys):
    processor(with_flags("amx_bf16"))
    folder = run_folder(tmp_path, "auto")
    folder.start()
    folder.release()
    assert "--precision auto: bf16 on this CPU" in capsys.readouterr().out
    recorded = json.loads((tmp_path / "args.json").read_text())
    assert recorded["precision"] == "bf16" and recorded["precision_asked"] == "auto"
    run_folder(tmp_path, "auto").check()
    run_folder(tmp_path, "bf16").check()  # the same under its own name
    processor(AVX2)
    words = "--precision: was bf16, now fp32; --precision auto is fp32 on this machine"
    with pytest.raises(ValueError, match=words):
        run_folder(tmp_path, "auto").check()
    with pytest.warns(UserWarning, match="emulates"):
        run_folder(tmp_path, "bf16").check()


@pytest.mark.usefixtures("tiny_resnets")
@pytest.mark.parametrize("flags, expected", [((), "fp32"), (("avx512_bf16",), "bf16")])
def test_scripts_record_what_auto_is(processor, frozen_toy, tmp_path, flags, expected, capsys):
    processor(with_flags(*flags))
    options, backbone = frozen_toy
    options = [*options, "--checkpoint_dir", str(tmp_path), "--pretrained", str(backbone)]
    options += ["--precision", "auto", "--epochs", "1", "--views", "1"]
    parser = train_team_ce.get_args_parser()
    train_team_ce.main(parser.parse_args(options), parser)
    run = tmp_path / "toy/team_ce/split1_seed1"
    recorded = json.loads((run / "args.json").read_text())
    assert (recorded["precision"], recorded["precision_asked"]) == (expected, "auto")
    assert json.loads((run / "result.json").read_text())["precision"] == expected
    banks = [json.loads(file.read_text()) for file in tmp_path.rglob("about.json")]
    assert {bank["identity"]["precision"] for bank in banks} == {expected}


def test_depthwise_convolutions_learn_in_float32():
    """Under bf16 their gradients are those of float32, as good as the bf16 input allows; where
    nothing learns, they are nn.Conv2d. Other convolutions stay."""
    torch.manual_seed(0)
    plain = torch.nn.Sequential(
        torch.nn.Conv2d(8, 8, 3, groups=8, stride=2, padding=1), torch.nn.Conv2d(8, 4, 1)
    )
    ours = prepare_for_training(copy.deepcopy(plain), torch.device("cpu"))
    assert [type(module) for module in ours] == [DepthwiseConv2d, torch.nn.Conv2d]
    assert ours.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(4, 8, 9, 9).bfloat16()
    exact, fast = (x.to(dtype).requires_grad_() for dtype in (torch.float32, torch.bfloat16))
    plain[0](exact).square().sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        output = ours[0](fast)
        with torch.no_grad():
            assert torch.equal(ours(x), plain(x))
    assert output.dtype == torch.bfloat16
    output.float().square().sum().backward()
    assert torch.allclose(fast.grad.float(), exact.grad, rtol=0.02, atol=0.02)
    weights = zip(ours[0].parameters(), plain[0].parameters())
    assert all(torch.allclose(a.grad, b.grad, rtol=0.02, atol=0.5) for a, b in weights)


def test_depthwise_convolutions_are_left_alone_on_cuda():
    net = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, groups=8))
    assert type(prepare_for_training(net, torch.device("cuda"))[0]) is torch.nn.Conv2d
