"""Runs a network exactly, without Lava: `reference` specifies, `run` is fast."""

from toolchain.emulate.batched import Emulator, run

__all__ = ["Emulator", "run"]
