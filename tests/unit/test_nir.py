"""NIR graphs: other libraries' spike here as there, ours come back as they were, and what cannot be had is named."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from networks import deployed
from torch import nn
from toy import N_CLASSES, SHAPE, net

from toolchain import emulate, export, nirfile, quantize
from toolchain.errors import ConfigError, FormatError, UnsupportedError
from toolchain.quantize import Limits
from toolchain.spiking import IF, neurons

nir = pytest.importorskip("nir")

GRAPHS = Path(__file__).parents[1] / "graphs"
STEPS = {"snntorch": 1e-4, "norse": 1e-6, "spikingjelly": 1e-4, "spikingjelly-residual": 1e-4}
T = 6


def read(nodes, shape=SHAPE, **settings):
    """What a graph of nodes, one after the other by name, is read as; edges may be given."""
    names = list(nodes)
    edges = settings.pop("edges", list(itertools.pairwise(names)))
    graph = nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nir"
        nir.write(path, graph)
        return nirfile.read(path, shape, **{"timesteps": T, "dt": 1e-4, **settings})


def lif(n=6, **changed):
    given = {"tau": 4e-4, "r": 4.0, "v_leak": 0.0, "v_threshold": 0.4, "v_reset": 0.0, **changed}
    return nir.LIF(**{name: np.full(n, value) if np.ndim(value) == 0 else value for name, value in given.items()})


def integrator(n=6, **changed):
    given = {"r": 1.0, "v_threshold": 0.4, "v_reset": 0.0, **changed}
    return nir.IF(**{name: np.full(n, value) if np.ndim(value) == 0 else value for name, value in given.items()})


def conv(padding=(1, 1), **changed):
    rng = np.random.default_rng(0)
    given = {
        "input_shape": (8, 8),
        "weight": rng.normal(0, 0.6, (3, 1, 3, 3)),
        "stride": (1, 1),
        "dilation": (1, 1),
        "groups": 1,
        "bias": np.full(3, 0.05),
    }
    return nir.Conv2d(**{**given, "padding": padding, **changed})


def affine(out, columns, seed=1):
    rng = np.random.default_rng(seed)
    return nir.Affine(weight=rng.normal(0, 0.5, (out, columns)), bias=rng.normal(0, 0.1, out))


def pooled(kind, size=2):
    return kind(kernel_size=np.array((size, size)), stride=np.array((size, size)), padding=np.array((0, 0)))


def flatten(start=0):
    return nir.Flatten(input_type={"input": np.array((3, 4, 4))}, start_dim=start)


def nodes(**changed):
    """A chain with a node of every kind that is read; nodes may be replaced."""
    made = {
        "input": nir.Input(input_type=np.array(SHAPE)),
        "conv": conv(),
        "neurons": integrator((3, 8, 8)),
        "pool": pooled(nir.AvgPool2d),
        "flatten": flatten(),
        "hidden": affine(6, 48),
        "leaky": lif(),
        "last": affine(N_CLASSES, 6),
        "output": nir.Output(output_type=np.array((N_CLASSES,))),
    }
    return {**made, **changed}


def images(n=10):
    return np.random.default_rng(1).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def logits(found, x=None):
    """The sums over steps of what the float network gives."""
    with torch.no_grad():
        made = found.adopted.net
        return made.timesteps * made(torch.from_numpy(images() if x is None else x) / 255)


@pytest.mark.parametrize("library", STEPS)
def test_a_graph_of_another_library_gives_what_that_library_gives(library):
    """The graphs are by the libraries' own exporters, the sums by the libraries; see graphs/make.py."""
    found = nirfile.read(GRAPHS / f"{library}.nir", SHAPE, timesteps=T, dt=STEPS[library])
    recorded = np.load(GRAPHS / f"{library}.npz")
    torch.testing.assert_close(logits(found, recorded["images"]), torch.from_numpy(recorded["sums"]), rtol=0, atol=1e-5)
    assert len(np.unique(recorded["sums"], axis=0)) > 3
    leaks = [layer.leak for layer in neurons(found.adopted.net)]
    assert any(leaks)
    assert not all(leaks)


def test_what_a_graph_leaves_open_is_said():
    resets = "Neurons are taken to be reset to 0, as NIR's are; a graph does not tell that they were trained with soft resets, snnTorch's default."
    assert read(nodes()).notes == (
        "A step takes 0.0001 seconds; neurons of the graph are read by forward Euler.",
        "The graph is taken to see pixels of [0, 1], the same image at each step.",
        resets,
    )
    assert read(nodes(leaky=integrator()), mean=(0.25,), std=(0.5,)).notes == (
        "Neurons integrate what they are given at each step, whatever its length.",
        "The graph is taken to see pixels of [0, 1] less [0.25], over [0.5], the same image at each step.",
        resets,
    )


def test_sums_over_pools_are_means_times_their_size():
    grown = affine(6, 48)
    grown.weight = grown.weight * 4
    assert torch.equal(
        logits(read(nodes(pool=pooled(nir.SumPool2d)))), logits(read(nodes(pool=pooled(nir.AvgPool2d), hidden=grown)))
    )


def test_thresholds_of_channels_are_scales_of_their_weights():
    thresholds = np.array([0.2, 0.4, 0.8])
    one = affine(3, 48)
    other = nir.Affine(weight=one.weight / thresholds[:, None], bias=one.bias / thresholds)
    last = affine(N_CLASSES, 3)
    apart = read(nodes(hidden=one, leaky=integrator(3, v_threshold=thresholds), last=last))
    assert torch.equal(
        logits(apart), logits(read(nodes(hidden=other, leaky=integrator(3, v_threshold=1.0), last=last)))
    )


def test_r_scales_what_neurons_take():
    doubled = affine(6, 48)
    doubled.weight, doubled.bias = doubled.weight * 2, doubled.bias * 2
    one, other = read(nodes(leaky=lif(r=8.0))), read(nodes(hidden=doubled))
    torch.testing.assert_close(logits(one), logits(other))
    assert not torch.equal(logits(one), logits(read(nodes())))


def test_thresholds_below_the_least_of_ours_are_not_raised():
    small = affine(6, 48)
    small.weight, small.bias = small.weight / 100, small.bias / 100
    tiny = read(nodes(hidden=small, leaky=lif(v_threshold=0.004)))
    torch.testing.assert_close(logits(tiny), logits(read(nodes())))


def test_a_neuron_spikes_above_its_threshold_not_at_it():
    """Two steps of a half reach a threshold of 1, and three exceed it."""

    def counted(v_threshold):
        hidden = nir.Linear(weight=np.full((1, 64), 0.5) * (np.arange(64) == 0))
        chain = {"hidden": hidden, "neurons": integrator(1, v_threshold=v_threshold)}
        white = np.zeros((1, *SHAPE), dtype=np.uint8)
        white[0, 0, 0, 0] = 255
        found = read(chain)
        limits = Limits(weight_bits=8, bias_max=4095, theta_max=131_072)
        made = quantize.quantize(found.adopted.net, timesteps=T, masks={}, images=white, run=emulate.run, limits=limits)
        return float(logits(found, white)), int(emulate.run(made.network, white).counts[0].sum())

    assert counted(1.0) == (2, 2)
    assert counted(0.99) == (3, 3)


def test_a_flat_graph_takes_the_pixels_in_their_order():
    weights = affine(6, 64)
    chain = {"input": nir.Input(input_type=np.array((64,))), "hidden": weights, "leaky": lif(), "last": affine(3, 6)}
    found = read(chain)
    x = torch.from_numpy(images()).flatten(1).double() / 255
    drive = found.adopted.net.body.hidden(x.float())
    torch.testing.assert_close(
        drive.double(), x @ torch.from_numpy(weights.weight).T + torch.from_numpy(weights.bias), rtol=1e-5, atol=1e-5
    )
    assert [type(layer) for layer in found.adopted.net.body] == [nn.Flatten, nn.Linear, IF, nn.Linear]


def test_a_graph_inside_a_graph_stands_in_its_place_under_dotted_names():
    inner = nir.NIRGraph(
        nodes={"input": nir.Input(input_type=np.array((48,))), "weights": affine(6, 48), "neurons": lif()},
        edges=[("input", "weights"), ("weights", "neurons")],
        type_check=False,
    )
    chain = nodes()
    del chain["hidden"]
    found = read({**chain, "leaky": inner})
    assert [name for name, _ in found.adopted.net.body.named_children()][4:] == [
        "leaky.weights",
        "leaky.neurons",
        "last",
    ]
    assert torch.equal(logits(found), logits(read(nodes())))


def test_spikes_of_more_neurons_than_there_are_classes_are_not_counted():
    with pytest.raises(UnsupportedError) as error:
        read({"conv": conv((40, 40)), "neurons": integrator(1)})
    reason = "its 22,188 neurons are the last, and spikes of 4,096 can be counted; end with a Linear layer"
    assert str(error.value) == f"neurons: {reason}"


def test_padding_by_name_is_what_it_is_in_torch():
    assert torch.equal(logits(read(nodes(conv=conv("same")))), logits(read(nodes())))
    valid = {"conv": conv("valid"), "neurons": integrator((3, 6, 6)), "hidden": affine(6, 27)}
    assert logits(read(nodes(**valid))).shape == (10, N_CLASSES)


LAST = "only IF and LIF can be deployed"
REFUSED = {
    "soft reset": ({"leaky": lif(v_reset=-0.1)}, "leaky: LIF: v_reset is -0.1; only a reset to 0 can be deployed"),
    "leak to": ({"leaky": lif(v_leak=0.1)}, "leaky: LIF: v_leak is 0.1; only a leak to 0 can be deployed"),
    "leaks": (
        {"leaky": lif(tau=np.linspace(1, 2, 6))},
        "leaky: LIF: tau differs among its neurons; only one a layer can be deployed",
    ),
    "short": (
        {"leaky": lif(tau=1e-5)},
        "leaky: LIF: its tau of 1e-05 is shorter than a step of 0.0001 seconds; see --dt",
    ),
    "half infinite": ({"leaky": lif(tau=np.inf)}, "leaky: LIF: tau is inf and r 4"),
    "no threshold": ({"leaky": lif(v_threshold=0.0)}, "leaky: LIF: its thresholds and r are not all finite and greater than 0"),
    "no number": ({"leaky": lif(r=np.nan)}, "leaky: LIF: its r is not of numbers"),
    "own thresholds": (
        {"neurons": integrator((3, 8, 8), v_threshold=np.random.default_rng(0).uniform(1, 2, (3, 8, 8)))},
        "neurons: IF: thresholds or r differ within a channel; only one a channel can be deployed",
    ),
    "synapses": (
        {"leaky": nir.CubaLIF(*(np.ones(6) for _ in range(5)))},
        f"leaky: CubaLIF: its synapses leak; {LAST}",
    ),
    "no spikes": (
        {"leaky": nir.LI(*(np.ones(6) for _ in range(3)))},
        f"leaky: LI: it leaks and does not spike; end with a linear layer, whose sums are read; {LAST}",
    ),
    "delay": (
        {"flatten": nir.Delay(delay=np.ones(3))},
        "flatten: Delay cannot be deployed; nodes are Conv2d, Affine, Linear, IF, LIF, AvgPool2d, SumPool2d and Flatten",
    ),
    "no weights": (
        {"pool": integrator((3, 8, 8))},
        "pool: no weights lead to it; spiking neurons are deployed only behind a Conv2d or Affine",
    ),
    "flatten in part": ({"flatten": flatten(2)}, "flatten: it flattens dimensions 2 to -1; only all of them can be"),
    "other images": (
        {"input": nir.Input(input_type=np.array((8, 8, 3)))},
        "input: it takes (8, 8, 3), where the images are (1, 8, 8)",
    ),
    "fractional stride": ({"conv": conv(stride=np.array((1.5, 1.5)))}, "conv: its stride is [1.5, 1.5]; expected one whole number, or two"),
    "many sides": (
        {"pool": nir.AvgPool2d(*(np.ones((9, 9), dtype=int) for _ in range(3)))},
        "pool: its kernel_size is 81 values; expected one whole number, or two",
    ),
    "many groups": ({"conv": conv(groups=np.array((1, 1)))}, "conv: its groups is [1, 1]; expected a whole number"),
    "even kernel": (
        {"conv": conv("same", weight=np.ones((3, 1, 2, 2)))},
        "conv: its padding is 'same' for a kernel of (2, 2); give numbers",
    ),
    "great padding": ({"conv": conv((5000, 5000))}, "conv: it gives 300,360,108 values, where 33,554,432 are the most"),
    "great threshold": ({"leaky": lif(v_threshold=1e300)}, "leaky: LIF: its thresholds and r are not all finite and greater than 0"),
    "no outputs": ({"hidden": nir.Linear(weight=np.zeros((0, 48)))}, "hidden: its weight is not of finite numbers"),
    "no match": (
        {"hidden": affine(6, 47)},
        "hidden: it does not take the (48,) it is given; it takes 47 values",
    ),
    "infinite": ({"hidden": nir.Linear(weight=np.full((6, 48), np.inf))}, "hidden: its weight is not of finite numbers"),
    "many matrices": ({"hidden": nir.Linear(weight=np.ones((2, 6, 48)))}, "hidden: its weight has shape (2, 6, 48); only matrices can be deployed"),
    "biases": ({"conv": conv(bias=np.ones(2))}, "conv: its bias has shape (2,) for 3 channels"),
    "a name of torch's": ({"training": pooled(nir.AvgPool2d, 1)}, "training: a layer cannot have this name"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_had_is_refused_by_its_node(name):
    changed, sentence = REFUSED[name]
    chain = nodes()
    if "training" in changed:
        chain = dict([*list(chain.items())[:3], *changed.items(), *list(chain.items())[3:]])
    with pytest.raises(UnsupportedError) as error:
        read({**chain, **changed})
    assert str(error.value) == sentence


def test_graphs_that_no_layers_can_be_are_refused_by_a_node():
    def refused(*edges: str):
        made = {name: integrator() for name in "abc"}
        with pytest.raises(UnsupportedError) as error:
            read(made, edges=[tuple(edge) for edge in edges])
        return str(error.value)

    assert refused("ab", "ac") == "b: no edges leave it, nor c; a network has one output"
    assert refused("ab", "bb", "bc") == "b: it is in a circle or behind one; layers of a network have none"
    assert refused("ab") == "c: no edges lead to it, nor to a; a network has one input"
    assert refused("ac", "bc") == "b: no edges lead to it, nor to a; a network has one input"
    assert refused("ab", "ba") == "a: it is in a circle or behind one; layers of a network have none"
    assert refused("ab", "bx") == "b: it is joined to x, and one of them is no node of the graph"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"timesteps": None},
            "timesteps: the graph does not say how many steps an image takes; say it with --timesteps",
        ),
        (
            {"dt": None},
            "dt: say how many seconds a step takes, --dt 1e-4 for instance, for tau is 0.0004 in leaky and the graph does not tell",
        ),
        ({"timesteps": 0}, "timesteps: expected 1 to 65,536, got 0"),
        ({"timesteps": 65_537}, "timesteps: expected 1 to 65,536, got 65,537"),
        ({"dt": -1e-4}, "dt: expected seconds, more than 0, got -0.0001"),
        ({"mean": (0.1, 0.2)}, "mean and std: expected 1 numbers each, one a channel, got 2 and 1"),
        ({"std": (0.0,)}, "mean and std: expected finite numbers, and a std greater than 0, got [0.0] and [0.0]"),
    ],
)
def test_what_a_graph_does_not_say_is_asked_for(settings, sentence):
    with pytest.raises(ConfigError) as error:
        read(nodes(), **settings)
    assert str(error.value) == sentence


def test_an_integrator_of_r_1_needs_no_step_and_another_does():
    assert read(nodes(leaky=integrator()), dt=None).notes[0].endswith("whatever its length.")
    with pytest.raises(ConfigError, match="for r is 10000 in leaky and the graph does not tell"):
        read(nodes(leaky=integrator(r=1e4)), dt=None)


@pytest.mark.parametrize("content", [b"", b"not HDF5", None])
def test_what_is_no_graph_is_a_format_error(tmp_path, content):
    path = tmp_path / "a.nir"
    if content is None:
        h5py.File(path, "w").close()
    else:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"not a NIR graph \("):
        nirfile.read(path, SHAPE, timesteps=T)


def test_without_the_library_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    with pytest.raises(ConfigError) as error:
        nirfile.write(net(mode="snn"), {}, b"")
    assert (
        str(error.value) == 'NIR graphs: reading and writing them takes the library nir: pip install "rsnn-deploy[nir]"'
    )


@pytest.fixture(scope="module")
def ours():
    """A network with batch norms, pools and one leak, and its integers."""
    made = net(mode="snn", timesteps=T)
    neurons(made)[1].leak = 0.25
    limits = Limits(weight_bits=8, bias_max=4095, theta_max=131_072)
    return made, quantize.quantize(made, timesteps=T, masks={}, images=images(), run=emulate.run, limits=limits).network


def test_a_graph_of_ours_comes_back_with_the_same_spikes_and_integers(ours, tmp_path):
    made, network = ours
    path = tmp_path / "a.nir"
    path.write_bytes(nirfile.write(made, {}, export.pack(deployed(network))))
    found = nirfile.read(path, SHAPE)
    assert found.notes == ()
    assert found.adopted.net.timesteps == T
    x = images()
    for mine, theirs in zip(quantize.float_spikes(made, x), quantize.float_spikes(found.adopted.net, x), strict=True):
        assert np.array_equal(mine, theirs)
        assert mine.any()
    again = export.unpack(found.integers, "a.nir").network
    one, other = (emulate.run(integers, x, record=True) for integers in (network, again))
    assert np.array_equal(one.logits, other.logits)
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(one.spikes, other.spikes, strict=True))


def test_a_graph_of_ours_passes_the_type_check_of_nir_and_is_the_same_each_time(ours, tmp_path):
    made, _ = ours
    path = tmp_path / "a.nir"
    path.write_bytes(nirfile.write(made, {}, b"integers"))
    graph = nir.read(path)
    assert [type(node).__name__ for node in graph.nodes.values()] == [
        "IF", "LIF", "Conv2d", "Conv2d", "Flatten", "Input", "Output", "AvgPool2d", "AvgPool2d", "Affine",
    ]  # fmt: skip
    assert path.read_bytes() == nirfile.write(made, {}, b"integers")


def test_pruned_synapses_are_zeros_of_a_graph(tmp_path):
    made = net(mode="snn")
    mask = np.random.default_rng(0).random((4, 1, 3, 3)) < 0.5
    path = tmp_path / "a.nir"
    path.write_bytes(nirfile.write(made, {"conv1": mask}, b""))
    weight = nir.read(path).nodes["conv1"].weight
    assert np.array_equal(weight != 0, mask)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"schema": 9}, "schema 9 is not the 1 this version reads; export again"),
        ({"dt": "soon"}, "not what rsnn-deploy writes beside a graph (could not convert string to float: 'soon'); export again"),
        ({"timesteps": 1.5}, "not what rsnn-deploy writes beside a graph ('float' object cannot be interpreted as an integer); export again"),
    ],
)  # fmt: skip
def test_what_is_not_ours_beside_a_graph_is_a_format_error(ours, tmp_path, changed, reason):
    path = tmp_path / "a.nir"
    path.write_bytes(nirfile.write(ours[0], {}, b""))
    with h5py.File(path, "r+") as file:
        at = "node/metadata/rsnn_deploy/json"
        said = {**json.loads(file[at][()]), **changed}
        del file[at]
        file[at] = json.dumps(said)
    with pytest.raises(FormatError) as error:
        nirfile.read(path, SHAPE)
    assert str(error.value) == f"{path}: {reason}"
