"""The processor's name and instruction sets, read from files as Linux writes them."""

import pytest

from keras_deepnets import processor

X86 = """processor\t: 0
model name\t: AMD EPYC 7R13 Processor
flags\t\t: fpu sse2 avx avx2 fma

processor\t: 1
model name\t: another
flags\t\t: avx512f avx512_bf16
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd sve bf16\n"


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_LINUX", file)
    processor._first_processor.cache_clear()
    yield file
    processor._first_processor.cache_clear()


def test_an_x86_processor(cpuinfo):
    cpuinfo.write_text(X86, encoding="utf-8")
    assert processor.name() == "AMD EPYC 7R13 Processor"
    assert processor.instructions() == {"fpu", "sse2", "avx", "avx2", "fma"}
    assert processor.instruction_sets() == ["AVX2"]
    assert not processor.has_bfloat16()


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
def test_bfloat16_instructions(cpuinfo, flag):
    cpuinfo.write_text(f"flags\t: avx2 avx512f {flag}\n", encoding="utf-8")
    assert processor.has_bfloat16()


def test_an_arm_processor(cpuinfo, monkeypatch):
    cpuinfo.write_text(ARM, encoding="utf-8")
    monkeypatch.setattr(processor.platform, "processor", lambda: "")
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    assert processor.name() == "aarch64"
    assert processor.instruction_sets() == ["NEON", "SVE"]


def test_a_system_without_the_file(cpuinfo, monkeypatch):
    monkeypatch.setattr(processor.platform, "processor", lambda: "Apple")
    assert processor.name() == "Apple"
    assert processor.instructions() == frozenset()
    assert processor.instruction_sets() == []
