"""The report of a deployed network: a dict with the schema of report.json, its tables on a terminal, its HTML page."""

from toolchain.report import page
from toolchain.report.build import SCHEMA, build
from toolchain.report.terminal import render

__all__ = ["SCHEMA", "build", "page", "render"]
