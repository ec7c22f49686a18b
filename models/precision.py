"""Which precision is fast on a machine: bf16 where its processor multiplies bf16, else fp32."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CHOICES = ("auto", *PRECISIONS)
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last on ARM
# Values of ONEDNN_MAX_CPU_ISA that keep oneDNN from these instructions.
ISA_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"}
ISA_WITHOUT_BF16 |= {"AVX512_CORE", "AVX512_CORE_VNNI"}
CPUINFO = Path("/proc/cpuinfo")


def resolve(precision: str, device: str = "cpu") -> str:
    """fp32 or bf16: the word itself, or what `auto` means on this device.

    Warns, with the times of one convolution, when bf16 is asked for where it is emulated. Raises
    ValueError for a word that is none of CHOICES.
    """
    if precision not in CHOICES:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(CHOICES)}")
    if precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if precision == "bf16" and not has_bf16(device):
        times = {name: convolution_ms(name, device) for name in PRECISIONS}
        warnings.warn(
            "this processor has no bf16 arithmetic and emulates it: one convolution takes"
            f" {times['bf16']:.3g} ms in bf16 and {times['fp32']:.3g} ms in fp32;"
            " --precision auto takes the faster",
            stacklevel=2,
        )
    return precision


def has_bf16(device: str = "cpu") -> bool:
    """Whether the device multiplies bf16 itself."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    return cpu_has_bf16(CPUINFO.read_text() if CPUINFO.is_file() else "", os.environ)


def cpu_has_bf16(cpuinfo: str, environ: Mapping[str, str]) -> bool:
    """As `has_bf16`, from the text of /proc/cpuinfo, which is empty on other systems than Linux.

    ONEDNN_MAX_CPU_ISA in `environ` may forbid instructions that the processor has.
    """
    limit = environ.get("ONEDNN_MAX_CPU_ISA") or environ.get("DNNL_MAX_CPU_ISA") or ""
    if limit.upper() in ISA_WITHOUT_BF16:
        return False
    for line in cpuinfo.splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return bool(BF16_FLAGS & set(flags.split()))
    return False


@torch.no_grad()
def convolution_ms(precision: str, device: str = "cpu") -> float:
    """Milliseconds of one small 3x3 convolution, the best of three."""
    dtype = PRECISIONS[precision]
    conv = nn.Conv2d(64, 64, 3, padding=1).to(device, dtype, memory_format=torch.channels_last)
    x = torch.zeros(2, 64, 28, 28, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        conv(x)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)
