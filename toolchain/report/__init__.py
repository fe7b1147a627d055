"""The report of a deployed network: a dict with the schema of report.json, and its tables on a terminal."""

from toolchain.report.build import SCHEMA, build
from toolchain.report.terminal import render

__all__ = ["SCHEMA", "build", "render"]
