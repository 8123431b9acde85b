from __future__ import annotations

import sys

import pytest

from onnxptq.runtimes import cpu_features, u8s8_can_saturate, u8s8_saturates
from onnxptq.runtimes.cpu import INT8_FEATURES, parse_cpuinfo, parse_sysctl

ZEN4 = """\
processor\t: 0
model name\t: AMD EPYC 9354
flags\t\t: fpu sse4_2 fma avx2 avx512f avx512bw avx512vl avx512_vnni avx512_bf16
bugs\t\t: sysret_ss_attrs avx_vnni

processor\t: 1
flags\t\t: fpu sse4_2 fma avx2 avx512f avx512bw avx512vl avx512_vnni avx512_bf16
"""
SAPPHIRE_RAPIDS = "flags\t\t: avx2 avx512f amx_bf16 avx512_vnni amx_tile amx_int8 avx_vnni\n"
ZEN3 = "flags\t\t: fpu sse4_2 fma avx avx2 vaes\n"
GRAVITON3 = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd asimddp sve i8mm bf16\nCPU part\t: 0xd40\n"
BIG_LITTLE = "processor : 0\nFeatures : fp asimd asimddp\n\nprocessor : 1\nFeatures : fp asimd asimddp i8mm\n"
APPLE_M2 = "machdep.cpu.brand_string: Apple M2\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\n"
APPLE_M1 = "machdep.cpu.brand_string: Apple M1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n"
INTEL_MAC = "machdep.cpu.features: FPU SSE4.2 AVX1.0\nmachdep.cpu.leaf7_features: BMI1 AVX2 AVX512F AVX512VNNI\n"


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (ZEN4, ("avx2", "avx512f", "avx512_vnni")),
        (SAPPHIRE_RAPIDS, ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")),
        (ZEN3, ("avx2",)),
        (GRAVITON3, ("i8mm", "dotprod")),
        ("", ()),
    ],
)
def test_the_int8_features_are_read_from_cpuinfo(text: str, features: tuple[str, ...]) -> None:
    assert parse_cpuinfo(text) == features


def test_a_feature_that_only_some_cores_have_does_not_count() -> None:
    assert parse_cpuinfo(BIG_LITTLE) == ("dotprod",)


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (APPLE_M2, ("i8mm", "dotprod")),
        (APPLE_M1, ("dotprod",)),
        (INTEL_MAC, ("avx2", "avx512f", "avx512_vnni")),
        ("", ()),
    ],
)
def test_the_int8_features_are_read_from_sysctl(text: str, features: tuple[str, ...]) -> None:
    assert parse_sysctl(text) == features


@pytest.mark.parametrize(
    ("features", "saturates"),
    [
        (("avx2",), True),
        (("avx2", "avx512f"), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("i8mm", "dotprod"), False),
        ((), None),
    ],
)
def test_x86_without_vnni_can_saturate(features: tuple[str, ...], saturates: bool | None) -> None:
    assert u8s8_can_saturate(features) is saturates


def test_the_features_of_this_machine_are_known_ones() -> None:
    assert set(cpu_features()) <= set(INT8_FEATURES)


@pytest.mark.skipif(not cpu_features(), reason=f"the CPU features are not known on {sys.platform}")
def test_onnx_runtime_really_saturates_exactly_where_the_features_say_so() -> None:
    assert u8s8_saturates() is u8s8_can_saturate(cpu_features())
