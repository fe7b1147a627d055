"""The report of a deployed network: a dict with the schema of report.json, its tables on a terminal, its HTML page."""

from toolchain.report import page
from toolchain.report.build import SCHEMA, build
from toolchain.report.scenarios import Attacked, Subject, only, with_proxies
from toolchain.report.terminal import render

__all__ = ["SCHEMA", "Attacked", "Subject", "build", "only", "page", "render", "with_proxies"]
