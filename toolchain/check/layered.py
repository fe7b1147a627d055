"""The resources of a chip whose cores run a layer each: every layer needs a core of its own that is large enough.

Entries, for c source channels, kernel kx x ky and f features on a map fx x fy: kernels take c 2^(ceil log2(kx ky) + ceil log2 f),
neurons f 2^(ceil log2 fy + ceil log2 fx). A dense layer is a convolution as large as its map.
Source: sinabs, SynSense's public compiler source, constants of the Speck2f.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from toolchain.check.rules import Finding
from toolchain.ir import Conv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.profile import LayerProfile


_RESOURCES = {
    "L01": ("kernel memory", "entries"),
    "L02": ("neuron memory", "entries"),
    "L03": ("biases", "entries"),
    "L04": ("kernel", "taps"),
    "L05": ("strides it cannot take", "strides"),
    "L06": ("pools it cannot take", "pools"),
}


def findings(network: Network, profile: LayerProfile) -> Iterator[Finding]:
    """What each layer uses of the largest core there is, and how many layers find a core of their own."""
    limits = profile.layers
    kernels, neurons = limits.kernel_entries.value, limits.neuron_entries.value
    hosts = []
    for layer, source, shape in network.wired():
        kernel, used = _kernel(layer, source), _entries(layer, source, shape)
        hosts.append([used[0] <= kernels[core] and used[1] <= neurons[core] for core in range(len(kernels))])
        narrower = f"Give {layer.name} fewer channels."
        yield _finding("L01", layer, used[0], max(kernels), narrower)
        yield _finding("L02", layer, used[1], max(neurons), narrower)
        yield _finding("L03", layer, shape[0], limits.bias_entries.value, narrower)
        smaller = f"Put pools before {layer.name}, or use smaller kernels."
        yield _finding("L04", layer, max(kernel), limits.kernel_max.value, smaller)
        strides = set(layer.stride) if isinstance(layer, Conv) else {1}
        others = len(strides - set(limits.strides.value))
        yield _finding("L05", layer, others, 0, f"Use {_or(limits.strides.value)}.")
        others = int(layer.pool not in limits.pools.value)
        yield _finding("L06", layer, others, 0, f"Use {_or(limits.pools.value)}.")
    n_hosted = int(np.sum(maximum_bipartite_matching(csr_matrix(np.array(hosts)), perm_type="column") >= 0))
    remedy = f"{len(hosts) - n_hosted} of the layers find no core that is large enough and free; use fewer or narrower layers."
    exceeded = n_hosted < len(hosts)
    yield Finding(
        rule="L07",
        resource="cores",
        layer="network",
        core=None,
        used=len(hosts),
        limit=n_hosted if exceeded else len(kernels),
        unit="cores",
        remedy=remedy if exceeded else "",
    )


def _kernel(layer: AnyLayer, source: Shape) -> tuple[int, int]:
    if isinstance(layer, Conv):
        return layer.weight.shape[2], layer.weight.shape[3]
    return source[1] // layer.pool, source[2] // layer.pool


def _entries(layer: AnyLayer, source: Shape, shape: Shape) -> tuple[int, int]:
    """Entries of kernels and of neurons."""
    features, height, width = shape
    kernels = source[0] << (_log2(math.prod(_kernel(layer, source))) + _log2(features))
    return kernels, features << (_log2(height) + _log2(width))


def _log2(n: int) -> int:
    """The least exponent of 2 with which n items can be addressed."""
    return (n - 1).bit_length()


def _or(values: tuple[int, ...]) -> str:
    return " or ".join(map(str, values))


def _finding(rule: str, layer: AnyLayer, used: int, limit: int, remedy: str) -> Finding:
    resource, unit = _RESOURCES[rule]
    return Finding(
        rule=rule,
        resource=resource,
        layer=layer.name,
        core=None,
        used=used,
        limit=limit,
        unit=unit,
        remedy=remedy if used > limit else "",
    )
