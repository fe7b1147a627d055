"""Reports with everything a page can show, and what stands on a page: its elements, its figures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import numpy as np
from hardware import conv_case, trace

from toolchain import mapping, report
from toolchain.energy import Run

VOID = {"meta", "br", "input", "link", "img", "base", "hr", "source"}


def recorded(net, samples=3, seed=0):
    """A trace of random spikes, with the counts that belong to them."""
    rng = np.random.default_rng(seed)
    spikes = tuple(rng.random((samples, net.timesteps, *shape)) < 0.3 for shape in net.shapes[:-1])
    return replace(
        trace(net, [0] * len(spikes), samples=samples),
        spikes=spikes,
        counts=tuple(spike.sum(axis=1, dtype=np.int32) for spike in spikes),
        active=np.array([spike.sum() for spike in spikes], dtype=np.int64),
    )


def outcome(attack, n_right, n=40, **more):
    return {
        "attack": attack,
        "accuracy": n_right / n,
        "n": n,
        "n_right": n_right,
        "interval95": [n_right / n - 0.1, min(1.0, n_right / n + 0.1)],
        **more,
    }


METRICS = {
    "train": {
        "sparsity": 0.0,
        "validation": {"none": outcome("none", 39), "pgd-ens": outcome("pgd-ens", 22, eps=8 / 255)},
    },
    "finetune": {
        "sparsity": 0.9,
        "validation": {"none": outcome("none", 36), "pgd-ens": outcome("pgd-ens", 20, eps=8 / 255)},
    },
}


def subject(net, chip, **facts):
    """The network on the chip, its masks those of its weights."""
    return report.Subject(
        network=net,
        mapping=mapping.place(net, chip),
        masks={layer.name: layer.weight != 0 for layer in net.chain},
        profile=chip,
        facts={"model": {"name": "by-hand", "sha256": "ab"}, **facts},
    )


def full(chip, net=None):
    """The report of a small network on a chip, with spikes, labels and what the stages measured."""
    net = net or conv_case()
    made = report.build(
        subject(net, chip),
        Run(trace=recorded(net)),
        labels=np.array([0, 1, 0]),
        stored_bytes=1234,
        metrics=METRICS,
        attacked=report.Attacked(
            attack={"name": "by hand", "statement": "Images made by hand."},
            clean=Run(trace=recorded(net)),
            adversarial=Run(trace=recorded(net, seed=1)),
            labels=np.array([0, 1, 0]),
        ),
    )
    return json.loads(json.dumps(made))


def find(made, pointer):
    """What stands at a JSON pointer."""
    node = made
    for escaped in pointer.split("/")[1:]:
        key = escaped.replace("~1", "/").replace("~0", "~")
        node = node[int(key)] if isinstance(node, list) else node[key]
    return node


@dataclass
class Element:
    tag: str
    attributes: dict
    children: list = field(default_factory=list)

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag=None):
        for child in self.children:
            if isinstance(child, Element):
                if tag in {None, child.tag}:
                    yield child
                yield from child.all(tag)

    def classed(self, name):
        return [element for element in self.all() if name in element.attributes.get("class", "").split()]

    def with_id(self, name):
        return next(element for element in self.all() if element.attributes.get("id") == name)


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag, f"{tag} ends {self.open[-1].tag}"
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def parsed(html):
    """The elements of a page, every one of which is closed where it should be."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert [element.tag for element in builder.open] == ["page"]
    return builder.open[0]


def figures(page):
    """(place in the report, exact value, text or None for a drawing) of every figure on a page."""
    for element in page.all():
        if "data-path" in element.attributes:
            drawn = "data-value" in element.attributes
            value = element.attributes["data-value" if drawn else "value"]
            yield element.attributes["data-path"], json.loads(value), None if drawn else element.text
