"""NeuroBench's figures: computed by hand, and equal to those of NeuroBench itself where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hardware import conv, conv_case, dense_case, half_zeros, network, readout, trace
from torch import nn

from toolchain import emulate, export
from toolchain.energy import Run
from toolchain.ir import Readout
from toolchain.neurobench import neurobench


def values(found):
    return {name: entry["value"] for name, entry in found.items()}


def test_a_dense_network_by_hand():
    net = dense_case(half_zeros())
    found = values(neurobench(net, Run(trace=trace(net, [3, 2]))))
    n_weights, kept = 1 + 6400 + 800, 1 + 3200 + 800
    assert found == pytest.approx(
        {
            "footprint": 4 * (n_weights + 1 + 80 + 10),
            "connection_sparsity": 1 - kept / n_weights,
            "activation_sparsity": 1 - (80 * 3 + 80 * 2) / (8 * 160),
            "effective_macs": 80 * 8,
            "effective_acs": 80 * 3 * 40 + 80 * 2 * 10,
            "dense": 8 * (80 + 6400 + 800),
        }
    )


def test_a_pools_neurons_are_activations_of_their_own():
    plain, pooled = (conv_case(pool=pool) for pool in (1, 2))
    one, four = (values(neurobench(net, Run(trace=trace(net, [1, 0])))) for net in (plain, pooled))
    assert (one["effective_acs"], four["effective_acs"]) == (800, 3200)


class Steps(nn.Module):
    """Integrate-and-fire neurons that NeuroBench knows as an activation."""

    def __init__(self, theta) -> None:
        super().__init__()
        self.theta, self.v = theta, 0.0

    def forward(self, a):
        self.v = self.v + a
        spikes = (self.v >= self.theta).float()
        self.v = self.v * (1 - spikes)
        return spikes


def twin(net):
    """A network of convolutions in torch, as the netx file writes it: pools spread into kernels."""
    modules: list[nn.Module] = []
    for layer, source, shape in net.wired():
        weight = torch.tensor(export.spread(layer, source), dtype=torch.float32)
        if isinstance(layer, Readout):
            modules.append(nn.Flatten())
            module, bias = nn.Linear(weight.shape[1], weight.shape[0]), layer.bias
        else:
            stride, padding = (tuple(layer.pool * n for n in each) for each in (layer.stride, layer.padding))
            module = nn.Conv2d(source[0], shape[0], weight.shape[2:], stride=stride, padding=padding)
            bias = layer.neuron.bias
        module.weight.data, module.bias.data = weight, torch.tensor(bias, dtype=torch.float32)
        modules.append(module)
        if not isinstance(layer, Readout):
            modules.append(Steps(float(layer.neuron.theta)))
    return nn.Sequential(*modules)


class Unrolled(nn.Module):
    """Runs a network of one step for T steps on the same messages, from rest."""

    def __init__(self, net, timesteps) -> None:
        super().__init__()
        self.net, self.timesteps = net, timesteps

    def forward(self, messages):
        for module in self.net:
            if isinstance(module, Steps):
                module.v = 0.0
        return sum(self.net(messages) for _ in range(self.timesteps))


def spiking_case(pool):
    """A small network whose layers all spike and whose weights are half zeros, the second layer pooled."""
    rng = np.random.default_rng(5)

    def weights(*shape: int):
        return rng.integers(-9, 20, shape) * (rng.random(shape) < 0.5)

    first = conv("first", weights(3, 1, 3, 3), padding=(1, 1), theta=900)
    second = conv("second", weights(4, 3, 3, 3), pool=pool, padding=(1, 1), theta=30)
    last = readout(4 * (8 // pool) ** 2)
    return network((1, 8, 8), first, second, last=last, timesteps=5)


@pytest.mark.parametrize("pool", [1, 2])
def test_the_figures_are_those_of_neurobench(pool):
    benchmarks = pytest.importorskip("neurobench.benchmarks")
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    net = spiking_case(pool)
    images = np.random.default_rng(6).integers(0, 256, (7, 1, 8, 8), dtype=np.uint8)
    seen = emulate.run(net, images)
    assert all(0 < counts.mean() < net.timesteps for counts in seen.counts)
    messages = net.input.encode(images)
    ours = values(
        neurobench(net, Run(trace=seen, messages=np.count_nonzero(messages, axis=0) * net.timesteps / len(images)))
    )

    model = TorchModel(Unrolled(twin(net), net.timesteps))
    model.add_activation_module(Steps)
    data = torch.utils.data.TensorDataset(torch.tensor(messages, dtype=torch.float32), torch.zeros(len(images)))
    loader = torch.utils.data.DataLoader(data, batch_size=len(images))
    workload = [ActivationSparsity, SynapticOperations]
    theirs = benchmarks.Benchmark(model, loader, [], [], [[Footprint, ConnectionSparsity], workload]).run(quiet=True)

    assert np.array_equal(model(torch.tensor(messages, dtype=torch.float32)).detach().numpy(), seen.logits)
    assert ours["activation_sparsity"] == pytest.approx(theirs["ActivationSparsity"])
    operations = theirs["SynapticOperations"]
    assert ours["effective_macs"] == pytest.approx(operations["Effective_MACs"])
    assert ours["effective_acs"] == pytest.approx(operations["Effective_ACs"])
    assert ours["dense"] == pytest.approx(operations["Dense"])
    if pool == 1:  # a spread kernel has more weights than the network was trained with
        assert ours["footprint"] == theirs["Footprint"]
        assert round(ours["connection_sparsity"], 4) == theirs["ConnectionSparsity"]
