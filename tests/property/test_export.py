"""What is packed is read back, what netx is given computes the same, and a damaged file is an error with one sentence."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from networks import Case, cases, deployed, refusal, seeded
from traces import differences

from toolchain.emulate import reference
from toolchain.errors import FormatError, UnsupportedError
from toolchain.export import Deployment, pack, read, spread
from toolchain.ir import Conv, Network

LAW = settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


def plain(value):
    """Return the value with arrays as (type, shape, entries), so that == compares all of it."""
    match value:
        case np.ndarray():
            return str(value.dtype), value.shape, value.tolist()
        case dict():
            return {key: plain(entry) for key, entry in value.items()}
        case tuple() | list():
            return type(value), [plain(entry) for entry in value]
        case _ if dataclasses.is_dataclass(value):
            return type(value), {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return type(value), value


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("export") / "network.net"


@LAW
@given(case=cases())
def test_reading_gives_back_what_was_packed(path, case: Case):
    assume(refusal(case.network) is None)
    deployment = deployed(case.network)
    packed = pack(deployment)
    path.write_bytes(packed)
    again = read(path)
    assert plain(again) == plain(deployment)
    assert pack(again) == packed


@LAW
@given(case=cases())
def test_a_network_is_refused_exactly_where_netx_would_change_it(case: Case):
    try:
        pack(deployed(case.network))
        said = None
    except UnsupportedError as error:
        said = str(error)
    assert said == refusal(case.network)


def unpooled(network: Network) -> Network:
    """Return the network that the file spells out: kernels spread, no pools."""
    layers = []
    for layer, source, _ in network.wired():
        q = layer.pool
        changes = {"weight": spread(layer, source), "pool": 1}
        if isinstance(layer, Conv) and q > 1:
            changes["stride"] = (q * layer.stride[0], q * layer.stride[1])
            changes["padding"] = (q * layer.padding[0], q * layer.padding[1])
            changes["dilation"] = (1, 1)
        layers.append(replace(layer, **changes))
    return Network(input=network.input, layers=tuple(layers[:-1]), readout=layers[-1], timesteps=network.timesteps)


@LAW
@given(case=cases())
def test_spread_kernels_compute_what_pools_do(case: Case):
    expected = reference.run(case.network, case.images, record=True)
    assert differences(expected, reference.run(unpooled(case.network), case.images, record=True)) == []


def test_the_networks_of_these_laws_have_pools_before_convolutions_and_dense_layers():
    pooled = [layer for seed in range(80) for layer in seeded(seed).network.chain if layer.pool > 1]
    assert len([layer for layer in pooled if isinstance(layer, Conv)]) > 15
    assert len([layer for layer in pooled if not isinstance(layer, Conv)]) > 10


def test_a_file_cut_short_anywhere_is_refused(path):
    packed = pack(deployed(seeded(171).network))
    for length in np.linspace(0, len(packed) - 1, 60, dtype=int):
        path.write_bytes(packed[:length])
        with pytest.raises(FormatError) as error:
            read(path)
        assert_one_sentence(error.value, path)


def test_damaged_bytes_give_a_deployment_or_one_error(path):
    packed = pack(deployed(seeded(171).network))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(FLIPS):
        damaged = np.frombuffer(packed, dtype=np.uint8).copy()
        damaged[rng.integers(0, len(packed), rng.integers(1, 30))] = rng.integers(0, 256)
        path.write_bytes(damaged.tobytes())
        try:
            assert isinstance(read(path), Deployment)
        except FormatError as error:
            refused += 1
            assert_one_sentence(error, path)
    assert refused > FLIPS / 4


FLIPS = 150


def assert_one_sentence(error: FormatError, path):
    reasons = "not a netx file written by rsnn-deploy export (", "the strings in it are damaged ("
    assert str(error).startswith(tuple(f"{path}: {reason}" for reason in reasons))
    assert "\n" not in str(error)
