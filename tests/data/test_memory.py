"""Budgets follow the memory of the machine, or of the container."""

import os

import pytest

from keras_deepnets.data import catalogue, memory, pipelines

GIB = 1 << 30


def machine(monkeypatch, tmp_path, gib, limit=None):
    """A machine of so much memory, and what its container may take of it."""
    pages = {"SC_PHYS_PAGES": gib * GIB // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", pages.__getitem__)
    paths = [tmp_path / "max", tmp_path / "none"]
    if limit is not None:
        paths[0].write_text(f"{limit}\n")
    monkeypatch.setattr(memory, "_LIMITS", tuple(map(str, paths)))


@pytest.mark.parametrize(
    ("gib", "limit", "total"), [(16, None, 16), (16, "max", 16), (16, 4 * GIB, 4), (16, 1 << 62, 16)]
)
def test_total(monkeypatch, tmp_path, gib, limit, total):
    machine(monkeypatch, tmp_path, gib, limit)
    assert memory.total() == total * GIB


def test_a_system_that_does_not_say(monkeypatch):
    monkeypatch.setattr(memory, "_LIMITS", ())
    monkeypatch.delattr(os, "sysconf")
    assert memory.total() == 8 * GIB


def test_svhn_fits_on_16_gb(monkeypatch, tmp_path):
    size = catalogue.KNOWN["svhn_cropped"].sizes["train+extra"] * 32 * 32 * 3
    machine(monkeypatch, tmp_path, 15)  # what a machine sold as 16 GB shows
    assert size <= memory.share(8, GIB, 16 * GIB) == 15 * GIB // 8
    machine(monkeypatch, tmp_path, 4)
    assert size > memory.share(8, GIB, 16 * GIB) == GIB
    machine(monkeypatch, tmp_path, 1024)
    assert memory.share(8, GIB, 16 * GIB) == 16 * GIB


def test_the_budgets():
    assert memory.share(8, GIB, 16 * GIB) == catalogue.MEMORY_BUDGET
    assert memory.share(16, GIB // 2, 8 * GIB) == pipelines.VIEW_BUDGET
