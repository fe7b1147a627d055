"""What lets newer Pythons import Lava touches one module of Lava, and only while it is imported."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from toolchain.simulate import newer_python


def made(module):
    """A dataclass that a module has made."""
    return dataclasses.dataclass(
        type("Encoder", (), {"__module__": module, "__annotations__": {"base": int}, "base": 0})
    )


@pytest.fixture
def newer(monkeypatch):
    monkeypatch.setattr(newer_python.sys, "version_info", (3, 12, 1))


def test_the_module_that_needs_it_gets_hashes(newer):
    with newer_python.hashable_defaults():
        encoder = made("lava.magma.compiler.var_model")
    assert hash(encoder()) != hash(encoder(3))
    assert encoder(3) == encoder(3)


def test_no_other_module_does(newer):
    with newer_python.hashable_defaults():
        assert made("lava.magma.compiler.utils").__hash__ is None


def test_options_reach_the_original(newer):
    with newer_python.hashable_defaults():
        frozen = dataclasses.dataclass(frozen=True)(type("A", (), {"__annotations__": {"x": int}}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen(1).x = 2


def test_nothing_stays(newer):
    original = dataclasses.dataclass

    def fail():
        with newer_python.hashable_defaults():
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert dataclasses.dataclass is original


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="about 3.10")
def test_on_3_10_nothing_is_done():
    original = dataclasses.dataclass
    with newer_python.hashable_defaults():
        assert dataclasses.dataclass is original
