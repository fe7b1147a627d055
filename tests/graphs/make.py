"""Writes NIR graphs by other libraries' own exporters, and beside each what that library makes of some images.

Run by hand, in a virtual environment with the library and nir, and never by the tests: python make.py NAME.
Made with snnTorch 1.0.0, Norse 1.1.0 and SpikingJelly 2.0.0, nir 1.0.8, nirtorch 2.6.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nir
import numpy as np
import torch
from torch import nn

SHAPE, T, N = (1, 8, 8), 6, 8


def weighted(layer, factor):
    """The layer with weights that make its neurons spike now and then."""
    with torch.no_grad():
        layer.weight.mul_(factor)
    return layer


def snntorch():
    """Leaky neurons, then ones without a leak, for which its exporter writes an infinite tau and r."""
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    def neurons(beta, threshold, *shape: int):
        ones = torch.ones(shape)
        return snn.Leaky(beta=beta * ones, threshold=threshold * ones, init_hidden=True, reset_mechanism="zero")

    net = nn.Sequential(
        weighted(nn.Conv2d(1, 3, 3, padding=1), 2),
        neurons(0.8, 0.5, 3, 8, 8),
        nn.AvgPool2d(2),
        nn.Flatten(),
        weighted(nn.Linear(48, 6), 3),
        neurons(1.0, 0.4, 6),
        nn.Linear(6, 3),
    )
    graph = export_to_nir(net, torch.rand(1, *SHAPE), ignore_dims=[0])

    def reset():
        for layer in net:
            if isinstance(layer, snn.Leaky):
                layer.reset_mem()

    return graph, net, reset


def norse():
    """Integrators, then leaky ones; tau is written as dt over the rate, so that a step takes dt squared seconds: 1e-6."""
    from norse.torch import SequentialState
    from norse.torch.module.iaf import IAFCell, IAFParameters
    from norse.torch.module.lif_box import LIFBoxCell, LIFBoxParameters
    from norse.torch.utils.export_nir import to_nir

    ones = torch.ones(4, 1, 1)
    leaky = LIFBoxParameters(v_th=0.05 * ones, tau_mem_inv=200 * ones, v_leak=0 * ones)
    net = SequentialState(
        weighted(nn.Conv2d(1, 3, 3, padding=1), 2),
        IAFCell(IAFParameters(v_th=torch.full((3, 8, 8), 0.5))),
        weighted(nn.Conv2d(3, 4, 8), 3),
        LIFBoxCell(leaky),
    )
    graph = to_nir(net, torch.rand(SHAPE))
    graph.infer_types()
    return graph, Stateful(net), lambda: None


class Stateful:
    """A Norse network as one that remembers its state; `fresh` begins an image."""

    def __init__(self, net) -> None:
        self.net, self.state = net, None

    def __call__(self, x) -> torch.Tensor:
        out, self.state = self.net(x, self.state)
        return out


def spikingjelly():
    """Integrators, for which its exporter writes an r of 1 / dt, then leaky ones."""
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net = nn.Sequential(
        weighted(layer.Conv2d(1, 3, 3, padding=1), 2),
        neuron.IFNode(v_threshold=0.5),
        layer.AvgPool2d(2),
        layer.Flatten(),
        weighted(layer.Linear(48, 6), 3),
        neuron.LIFNode(tau=4.0, decay_input=False, v_threshold=0.4),
        layer.Linear(6, 3),
    )
    return export_to_nir(net, torch.rand(1, *SHAPE)), net, lambda: functional.reset_net(net)


class Residual(nn.Module):
    """Blocks whose shortcuts carry spikes: to a membrane as they are, through a 1x1 convolution of stride 2, and to a sum of spikes."""

    def __init__(self) -> None:
        from spikingjelly.activation_based import layer, neuron

        super().__init__()

        def conv(source, channels, kernel=3, stride=1):
            return weighted(layer.Conv2d(source, channels, kernel, stride, kernel // 2), 2)

        self.stem, self.conv1, self.conv2 = conv(1, 3), conv(3, 3), conv(3, 3)
        self.conv3, self.conv4, self.shortcut = conv(3, 4, stride=2), conv(4, 4), conv(3, 4, kernel=1, stride=2)
        self.conv5, self.conv6 = conv(4, 4), conv(4, 4)
        self.fired = nn.ModuleList([neuron.IFNode(v_threshold=0.5) for _ in range(6)])
        self.leaking = neuron.LIFNode(tau=4.0, decay_input=False, v_threshold=0.4)
        self.rest = nn.Sequential(layer.AvgPool2d(4), layer.Flatten(), layer.Linear(4, 3))

    def forward(self, x):
        """Seven layers of neurons."""
        x = self.fired[0](self.stem(x))
        x = self.leaking(self.conv2(self.fired[1](self.conv1(x))) + x)
        x = self.fired[3](self.conv4(self.fired[2](self.conv3(x))) + self.shortcut(x))
        x = self.fired[4](self.conv5(x)) + x
        return self.rest(self.fired[5](self.conv6(x)))


def spikingjelly_residual():
    """A network with skip connections, one of which passes a stride."""
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net = Residual()
    return export_to_nir(net, torch.rand(1, *SHAPE)), net, lambda: functional.reset_net(net)


LIBRARIES = {
    "snntorch": snntorch,
    "norse": norse,
    "spikingjelly": spikingjelly,
    "spikingjelly-residual": spikingjelly_residual,
}


def main(library):
    """Graph, images, and the sums over steps of the library's outputs stand beside this file."""
    torch.manual_seed(1)
    brightness = torch.linspace(0.2, 1, N).reshape(-1, 1, 1, 1)
    images = (torch.rand(N, *SHAPE).round(decimals=1) ** 2 * brightness * 255).to(torch.uint8)
    graph, net, reset = LIBRARIES[library]()
    reset()
    with torch.no_grad():
        sums = sum(net(images / 255) for _ in range(T)).flatten(1)
    here = Path(__file__).parent
    nir.write(here / f"{library}.nir", graph)
    np.savez_compressed(here / f"{library}.npz", images=images.numpy(), sums=sums.numpy())
    sys.stdout.write(f"{library}: {sums}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
