"""The plot of an evaluation shows each figure where it belongs."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner

from toolchain import evaluate
from toolchain.cli import commands

SVG = "{http://www.w3.org/2000/svg}"


def outcome(attack, eps, right):
    return {"attack": attack, "eps": eps, **evaluate.accuracy(np.arange(100) < right)}


def drawn(attacked, together=()):
    clean = outcome("none", 0.0, 90)
    result = {
        "model": {"path": "a<b>.pt"},
        "data": {"n": 100, "source": "digits"},
        "outcomes": [clean, *attacked],
        "together": list(together),
    }
    return ET.fromstring(evaluate.plot(result))


def test_every_figure_is_a_dot_as_far_right_as_its_eps_and_as_high_as_its_accuracy():
    root = drawn([outcome("pgd-ens", 16 / 255, 30), outcome("pgd-ens", 8 / 255, 60)])
    dots = list(root.iter(f"{SVG}circle"))
    said = [dot[0].text.partition(" (")[0] for dot in dots]
    assert said == ["none at 0/255: 90.0%", "pgd-ens at 8/255: 60.0%", "pgd-ens at 16/255: 30.0%"]
    x, y = ([float(dot.get(axis)) for dot in dots] for axis in ("cx", "cy"))
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])
    assert y[1] - y[0] == pytest.approx(y[2] - y[1])
    assert y[0] < y[1]


def test_names_at_the_same_accuracy_do_not_cover_each_other():
    root = drawn([outcome(name, 0.1, 30) for name in ("fgsm-ens", "pgd-ens", "noise")])
    heights = [float(text.get("y")) for text in root.iter(f"{SVG}text") if re.search("ens|noise", text.text)]
    assert len(heights) == 3
    assert min(abs(a - b) for a, b in itertools.pairwise(heights)) >= 12


def test_a_line_says_what_all_attacks_leave():
    both = outcome("", 0.1, 20)
    del both["attack"]
    root = drawn([outcome("fgsm-ens", 0.1, 30), outcome("pgd-ens", 0.1, 25)], together=[both])
    assert "all of these 20.0%" in [text.text for text in root.iter(f"{SVG}text")]


def test_an_evaluation_without_attacks_is_a_dot():
    root = drawn([])
    assert len(list(root.iter(f"{SVG}circle"))) == 1
    assert "none 90.0%" in [text.text for text in root.iter(f"{SVG}text")]


def test_the_command_draws_and_refuses_what_is_no_svg(tmp_path):
    said = ["evaluate", "digits-cnn", "--samples", "5", "--attack", "noise", "--no-checks", "--plot"]
    done = CliRunner().invoke(commands, [*said, str(tmp_path / "plot.svg")])
    assert done.exit_code == 0
    assert ET.parse(tmp_path / "plot.svg").getroot().tag == f"{SVG}svg"
    refused = CliRunner().invoke(commands, [*said, str(tmp_path / "plot.png")])
    assert refused.exit_code == 2
    assert "expected a name that ends in .svg, got 'plot.png'" in refused.output
