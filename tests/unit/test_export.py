"""The netx file: what stands where, in which type and axis order, and what is refused on the way in and on the way out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from networks import deployed

from toolchain.errors import FormatError, UnsupportedError
from toolchain.export import Deployment, pack, read
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout


def network() -> Network:
    """Maps that are not square, a pool, groups, dilation, theta and bias that differ in every entry."""
    rng = np.random.default_rng(0)

    def weight(*shape: int):
        return rng.integers(-99, 100, shape)

    first = Conv(
        name="first",
        weight=weight(4, 1, 3, 2),
        neuron=Neuron(theta=np.array([9_000, 8_000, 70_000, 131_072]), bias=np.arange(4 * 4 * 6).reshape(4, 4, 6) - 40),
        padding=(1, 1),
        stride=(1, 1),
        dilation=(1, 2),
        groups=2,
    )
    second = Conv(
        name="a second",
        weight=weight(3, 4, 2, 1),
        neuron=Neuron(theta=np.array(77), bias=np.array([-1, 2, -3]), i_decay=3_000, v_decay=200),
        pool=2,
        stride=(1, 2),
        padding=(1, 0),
        dilation=(2, 1),
        weight_bits=8,
    )
    third = Dense(name="third", weight=weight(5, 12), neuron=Neuron(theta=np.arange(1, 6), bias=np.arange(5) - 2))
    readout = Readout(name="classes", weight=weight(2, 5), bias=np.array([32_767, -7]))
    network_input = Input(shape=(2, 4, 6), offset=np.array([255, 3]))
    return Network(input=network_input, layers=(first, second, third), readout=readout, timesteps=3)


@pytest.fixture
def deployment() -> Deployment:
    return deployed(network())


@pytest.fixture(scope="module")
def packed() -> bytes:
    return pack(deployed(network()))


@pytest.fixture
def path(tmp_path, packed):
    file = tmp_path / "network.net"
    file.write_bytes(packed)
    return file


def contents(group):
    """Return every dataset below the group: path -> (type, shape)."""
    found = {}
    group.visititems(
        lambda name, item: (
            found.update({name: (str(item.dtype), item.shape)}) if isinstance(item, h5py.Dataset) else None
        )
    )
    return found


def test_the_layer_group_holds_what_netx_reads_and_nothing_else(path):
    neuron = {"neuron/type": ("|S4", (1,)), "neuron/iDecay": ("int64", ()), "neuron/vDecay": ("int64", ())}
    geometry = dict.fromkeys(("stride", "padding", "dilation"), ("int64", (2,))) | {"groups": ("int64", ())}
    expected = {
        "0": {"type": ("|S5", (1,)), "shape": ("int64", (3,))},
        "1": {
            "type": ("|S4", (1,)),
            "shape": ("int64", (3,)),
            "weight": ("int16", (4, 1, 3, 2)),
            "bias": ("int32", (6, 4, 4)),
            "neuron/vThMant": ("int32", (4,)),
            **geometry,
            **neuron,
        },
        "2": {
            "type": ("|S4", (1,)),
            "shape": ("int64", (3,)),
            "weight": ("int16", (3, 4, 6, 2)),
            "bias": ("int32", (3,)),
            "neuron/vThMant": ("int32", ()),
            **geometry,
            **neuron,
        },
        "3": {"type": ("|S7", (1,)), "shape": ("int64", (1,))},
        "4": {
            "type": ("|S5", (1,)),
            "shape": ("int64", (1,)),
            "weight": ("int16", (5, 12)),
            "bias": ("int32", (5,)),
            "neuron/vThMant": ("int32", (5,)),
            **neuron,
        },
        "5": {
            "type": ("|S5", (1,)),
            "shape": ("int64", (1,)),
            "weight": ("int16", (2, 5)),
            "bias": ("int32", (2,)),
            "neuron/vThMant": ("int32", ()),
            **neuron,
        },
    }
    with h5py.File(path) as file:
        assert set(file) == {"layer", "mapping", "meta"}
        assert set(file["layer"]) == set(expected)
        for index, entries in expected.items():
            assert contents(file["layer"][index]) == entries


def test_types_are_bytes_in_the_order_of_the_chain(path):
    with h5py.File(path) as file:
        kinds = [file[f"layer/{index}/type"][0] for index in range(6)]
    assert kinds == [b"input", b"conv", b"conv", b"flatten", b"dense", b"dense"]


def test_shapes_are_channels_height_width(path):
    with h5py.File(path) as file:
        shapes = [file[f"layer/{index}/shape"][()].tolist() for index in range(6)]
    assert shapes == [[2, 4, 6], [4, 4, 6], [3, 2, 2], [12], [5], [2]]


def test_a_conv_kernel_keeps_the_axes_of_pytorch(path):
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["layer/1/weight"][()], network().layers[0].weight)


def test_a_bias_map_is_width_height_channels(path):
    with h5py.File(path) as file:
        stored = file["layer/1/bias"][()]
    for channel, y, x in np.ndindex(4, 4, 6):
        assert stored[x, y, channel] == channel * 24 + y * 6 + x - 40


def test_the_threshold_of_a_channel_is_theta_minus_one(path):
    with h5py.File(path) as file:
        assert file["layer/1/neuron/vThMant"][()].tolist() == [8_999, 7_999, 69_999, 131_071]
        assert file["layer/2/neuron/vThMant"][()] == 76
        assert file["layer/5/neuron/vThMant"][()] == 131_071


def test_decays_are_stored_as_netx_counts_them(path):
    with h5py.File(path) as file:
        decays = [
            (int(file[f"layer/{index}/neuron/{name}"][()])) for index in (1, 2, 5) for name in ("iDecay", "vDecay")
        ]
    assert decays == [4_096, 0, 3_000, 200, 4_096, 0]


def test_the_geometry_of_a_layer_without_a_pool_is_its_own(path):
    with h5py.File(path) as file:
        layer = file["layer/1"]
        assert {name: layer[name][()].tolist() for name in ("stride", "padding", "dilation", "groups")} == {
            "stride": [1, 1],
            "padding": [1, 1],
            "dilation": [1, 2],
            "groups": 2,
        }


def test_a_pool_is_spread_into_the_kernel_stride_and_padding_with_its_dilation_written_out(path):
    with h5py.File(path) as file:
        layer = file["layer/2"]
        assert {name: layer[name][()].tolist() for name in ("stride", "padding", "dilation", "groups")} == {
            "stride": [2, 4],
            "padding": [2, 0],
            "dilation": [1, 1],
            "groups": 1,
        }
        # Rows of a 2 x 1 kernel, dilated by 2: its first, a zero, its second, each twice; columns twice.
        weight = network().layers[1].weight
        for row, source in enumerate([0, 0, None, None, 1, 1]):
            for column in (0, 1):
                expected = np.zeros((3, 4)) if source is None else weight[:, :, source, 0]
                np.testing.assert_array_equal(layer["weight"][:, :, row, column], expected)


def test_meta_says_how_to_code_the_input_and_read_the_output(path):
    with h5py.File(path) as file:
        meta = json.loads(bytes(file["meta/json"][()]))
    assert meta["schema"] == 1
    assert meta["timesteps"] == 3
    assert meta["input"]["shape"] == [2, 4, 6]
    assert meta["input"]["offset"] == [255, 3]
    assert meta["input"]["bits"] == 9
    assert meta["facts"] == {"accuracy": 0.5, "data": ["digits", None]}
    assert [(layer["name"], layer["kind"], layer["pool"]) for layer in meta["layers"]] == [
        ("first", "conv", 1),
        ("a second", "conv", 2),
        ("third", "dense", 1),
        ("classes", "readout", 1),
    ]


def test_a_core_keeps_its_layer_whatever_the_order_of_the_names(path, deployment):
    cores = read(path).mapping.cores
    assert [core.layer for core in cores] == ["first", "a second", "third", "classes"]
    assert cores == deployment.mapping.cores


def test_a_mask_keeps_synapses_that_rounded_to_zero(tmp_path, deployment):
    network = deployment.network
    zeroed = np.array(network.readout.weight)
    zeroed[1, 2] = 0
    masks = {**deployment.masks, "classes": np.ones((2, 5), dtype=bool)}
    layer = replace(network.readout, weight=zeroed)
    changed = Network(input=network.input, layers=network.layers, readout=layer, timesteps=3)
    (tmp_path / "network.net").write_bytes(pack(replace(deployment, network=changed, masks=masks)))
    again = read(tmp_path / "network.net")
    assert again.network.readout.weight[1, 2] == 0
    assert again.masks["classes"].all()


def test_packing_twice_gives_the_same_bytes(deployment):
    assert pack(deployment) == pack(deployed(network()))


@pytest.mark.parametrize(("seed", "zone"), [("0", "UTC"), ("7", "Asia/Tokyo")])
def test_another_process_packs_the_same_bytes(path, seed, zone):
    script = (
        "import pathlib, sys; from toolchain.export import pack, read\n"
        "sys.stdout.buffer.write(pack(read(pathlib.Path(sys.argv[1]))))"
    )
    environment = {"PYTHONHASHSEED": seed, "TZ": zone, "OMP_NUM_THREADS": "1"}
    packed = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=environment, capture_output=True, check=True
    ).stdout
    assert packed == path.read_bytes()


def chain(layers, shape=(1, 4, 4)) -> Network:
    source = shape
    for layer in layers:
        source = layer.output_shape(source)
    columns = int(np.prod(source))
    readout = Readout(name="logits", weight=np.ones((1, columns), dtype=int), bias=np.array([0]))
    return Network(
        input=Input(shape=shape, offset=np.zeros(shape[0], dtype=int)), layers=layers, readout=readout, timesteps=1
    )


def conv(name="conv", weight=None, **settings) -> Conv:
    weight = np.ones((1, 1, 1, 1), dtype=int) if weight is None else weight
    return Conv(
        name=name, weight=weight, neuron=Neuron(theta=np.array(1), bias=np.zeros(len(weight), dtype=int)), **settings
    )


def dense(weight, name="dense") -> Dense:
    return Dense(name=name, weight=weight, neuron=Neuron(theta=np.array(1), bias=np.zeros(len(weight), dtype=int)))


@pytest.mark.parametrize("least", [0, -1, -2, -4, -8, -16, -32, -64, -128])
def test_a_dense_matrix_that_netx_changes_is_refused(least):
    weight = np.zeros((2, 16), dtype=int)
    weight[1, 3] = least
    with pytest.raises(UnsupportedError) as error:
        pack(deployed(chain([dense(weight)])))
    assert str(error.value) == (
        f"dense: netx computes a dense matrix without positive entries wrongly when its least entry is {least}. "
        "Use other weight bits, or train the layer so that it keeps a positive weight"
    )


@pytest.mark.parametrize("entries", [(-3, 0), (-127, -1), (-128, 1), (-1, 127), (0, 1)])
def test_a_dense_matrix_that_netx_keeps_is_packed(entries):
    weight = np.resize(np.array(entries), (2, 16))
    assert pack(deployed(chain([dense(weight)]))).startswith(b"\x89HDF")


def test_a_convolution_after_a_dense_layer_is_refused():
    with pytest.raises(UnsupportedError) as error:
        pack(deployed(chain([dense(np.ones((1, 16), dtype=int)), conv()])))
    assert str(error.value) == "conv: netx takes no convolution after a dense layer. Use a dense layer in its place"


@pytest.mark.parametrize(
    ("layers", "side", "said"),
    [
        ([conv(stride=(128, 1))], 4, "stride is 128"),
        ([conv(padding=(0, 128))], 4, "padding is 128"),
        ([conv(weight=np.ones((1, 1, 2, 1), dtype=int), dilation=(128, 1))], 130, "dilation is 128"),
        ([conv(weight=np.ones((1, 1, 1, 128), dtype=int))], 128, "kernel is 128"),
        ([conv("before"), conv(pool=64, padding=(2, 0))], 64, "padding is 128"),
        ([conv("before"), conv(weight=np.ones((1, 1, 2, 2), dtype=int), pool=64)], 128, "kernel is 128"),
    ],
)
def test_geometry_past_the_8_bits_of_lava_is_refused(layers, side, said):
    with pytest.raises(UnsupportedError) as error:
        pack(deployed(chain(layers, shape=(1, side, side))))
    assert str(error.value) == f"conv: its {said} in netx, where Lava allows 127. Use a smaller pool, kernel or image"


def test_geometry_of_127_is_packed():
    assert pack(deployed(chain([conv(stride=(127, 127), padding=(127, 0))]))).startswith(b"\x89HDF")


# Hostile files: each is one FormatError with one sentence.


def refusal(path) -> str:
    """Return why the file is refused, without the words that all refusals share."""
    with pytest.raises(FormatError) as error:
        read(path)
    start, end = f"{path}: not a netx file written by rsnn-deploy export (", ")"
    said = str(error.value)
    assert said.startswith(start)
    assert said.endswith(end)
    assert "\n" not in said
    return said[len(start) : -len(end)]


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FormatError) as error:
        read(tmp_path / "network.net")
    assert str(error.value) == f"{tmp_path / 'network.net'}: no such file; make it with `rsnn-deploy export`"


def test_another_schema_says_what_to_do(path):
    edit_json(path, "meta/json", schema=2)
    with pytest.raises(FormatError) as error:
        read(path)
    assert str(error.value) == f"{path}: schema 2 of network.net is not the 1 this version reads; export again"


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" + bytes(100)])
def test_what_is_not_hdf5_is_refused(tmp_path, content):
    path = tmp_path / "network.net"
    path.write_bytes(content)
    assert refusal(path).startswith("OSError: ")


def test_a_folder_is_refused(tmp_path):
    assert refusal(tmp_path).startswith(("OSError: ", "IsADirectoryError: "))


@pytest.mark.parametrize(
    "name",
    [
        *("meta", "meta/json", "meta/masks", "meta/masks/third", "mapping", "mapping/json", "mapping/cores", "layer"),
        *("layer/0", "layer/1", "layer/1/type", "layer/1/weight", "layer/1/bias", "layer/1/stride", "layer/1/groups"),
        *(
            "layer/1/neuron",
            "layer/1/neuron/type",
            "layer/1/neuron/vThMant",
            "layer/1/neuron/iDecay",
            "layer/3",
            "layer/5",
        ),
    ],
)
def test_a_file_without_one_of_its_parts_is_refused(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
    assert refusal(path).startswith(("KeyError: ", "ValueError: "))


def put(path, name, value, **settings):
    """Replace a dataset."""
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, data=value, **settings)


def edit_json(path, name, **changes):
    with h5py.File(path) as file:
        content = json.loads(bytes(file[name][()]))
    put(path, name, np.frombuffer(json.dumps({**content, **changes}).encode(), dtype=np.uint8))


@pytest.mark.parametrize(
    "name",
    ["layer/1/weight", "layer/1/bias", "layer/4/weight", "layer/1/neuron/vThMant", "layer/0/shape", "mapping/cores"],
)
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.bool_, np.complex64])
def test_numbers_that_are_not_integers_are_refused(path, name, kind):
    with h5py.File(path) as file:
        value = file[name][()].astype(kind)
    put(path, name, value)
    assert refusal(path).startswith(f"ValueError: {name} has type {value.dtype} and ")


def test_objects_are_refused_unread(path):
    put(path, "layer/1/weight", np.array(["text"], dtype=object), dtype=h5py.string_dtype())
    assert refusal(path) == "ValueError: layer/1/weight has type object and 8 bytes"


@pytest.mark.parametrize("name", ["meta/json", "layer/1/weight", "meta/masks/first", "mapping/cores"])
def test_a_dataset_that_declares_terabytes_is_refused_unread(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, shape=(1 << 20, 1 << 20), dtype="int8", chunks=(1 << 10, 1 << 10))
    assert path.stat().st_size < 1 << 20
    assert refusal(path) == f"ValueError: {name} has type int8 and 1,099,511,627,776 bytes"


def test_a_dataset_kept_in_another_file_is_refused(path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(48))
    with h5py.File(path, "r+") as file:
        del file["layer/1/weight"]
        file.create_dataset("layer/1/weight", shape=(4, 1, 3, 2), dtype="int16", external=[(str(secret), 0, 48)])
    assert refusal(path) == "ValueError: layer/1/weight is not a dataset of this file"


def test_a_virtual_dataset_is_refused(path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["weight"] = np.ones((4, 1, 3, 2), dtype=np.int16)
    with h5py.File(path, "r+") as file:
        del file["layer/1/weight"]
        layout = h5py.VirtualLayout(shape=(4, 1, 3, 2), dtype="int16")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "weight", shape=(4, 1, 3, 2))
        file.create_virtual_dataset("layer/1/weight", layout)
    assert refusal(path) == "ValueError: layer/1/weight is not a dataset of this file"


@pytest.mark.parametrize("name", ["layer", "layer/1", "layer/1/weight", "meta/json"])
def test_a_link_to_another_file_is_refused(path, tmp_path, name, deployment):
    (tmp_path / "other.net").write_bytes(pack(deployment))
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other.net", f"/{name}")
    assert refusal(path).startswith("ValueError: ")


def test_a_link_that_leads_nowhere_is_refused(path):
    with h5py.File(path, "r+") as file:
        del file["layer/1/weight"]
        file["layer/1/weight"] = h5py.SoftLink("/nowhere")
    assert refusal(path).startswith("KeyError: ")


@pytest.mark.parametrize(
    "name", ["layer/4/delay", "layer/1/weight_rec", "layer/0/neuron/type", "layer/2/neuron/refDelay"]
)
def test_parts_that_netx_would_read_and_the_network_lacks_are_refused(path, name):
    with h5py.File(path, "r+") as file:
        file[name] = np.array([1])
    assert refusal(path).startswith(f"ValueError: {name.rsplit('/', 1)[0].removesuffix('/neuron')}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("layer/0/shape", np.array([2, 6, 4])),
        ("layer/1/shape", np.array([4, 6, 4])),
        ("layer/1/dilation", np.array([2, 1])),
        ("layer/2/dilation", np.array([2, 1])),
        ("layer/2/stride", np.array([3, 4])),
        ("layer/2/padding", np.array([3, 0])),
        ("layer/3/shape", np.array([13])),
        ("layer/3/type", np.array([b"average"])),
        ("layer/4/shape", np.array([6])),
        ("layer/5/neuron/vThMant", np.array(0, dtype=np.int32)),
        ("layer/5/neuron/iDecay", np.array(4_000)),
        ("layer/1/neuron/type", np.array([b"SDNN"])),
        ("layer/1/groups", np.array([2])),
    ],
)
def test_a_layer_that_netx_would_run_otherwise_than_meta_says_is_refused(path, name, value):
    put(path, name, value)
    assert refusal(path) == f"ValueError: {name} is not what meta describes"


def test_a_kernel_that_is_not_the_spread_of_its_pool_is_refused(path):
    with h5py.File(path, "r+") as file:
        file["layer/2/weight"][1, 2, 5, 1] += 1
    assert refusal(path) == "ValueError: layer/2/weight is not what meta describes"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("layer/1/neuron/vThMant", 131_072, "ConfigError: neuron.theta: expected 1 to 131072, got 8000 to 131073"),
        ("layer/1/neuron/vThMant", -1, "ConfigError: neuron.theta: expected 1 to 131072, got 0 to 131072"),
        ("layer/1/bias", 40_000, "ConfigError: neuron.bias: expected -32767 to 32767, got -39 to 40000"),
        ("layer/1/weight", 200, "ConfigError: first.weight: expected -128 to 127, got -99 to 200"),
        ("layer/2/neuron/iDecay", 0, "ConfigError: neuron: i_decay: expected 1 to 4096, got 0"),
        ("layer/2/neuron/vDecay", 4_096, "ConfigError: neuron: v_decay: expected 0 to 4095, got 4096"),
    ],
)
def test_numbers_out_of_range_are_refused(path, name, change, said):
    with h5py.File(path, "r+") as file:
        array = file[name][()]
        changed = np.array(array)
        changed.reshape(-1)[0] = change
        file[name][()] = changed
    assert refusal(path) == said


@pytest.mark.parametrize(
    "content", [b"", b"{", b"NaN", b"[]", b'"text"', b"\xff\xfe", b"[" * 5_000, b"1" * 5_000], ids=range(8)
)
def test_meta_that_is_not_a_json_object_is_refused(path, content):
    put(path, "meta/json", np.frombuffer(content, dtype=np.uint8))
    refusal(path)


@pytest.mark.parametrize("key", ["schema", "timesteps", "input", "layers", "facts"])
def test_meta_without_one_of_its_keys_is_refused(path, key):
    with h5py.File(path) as file:
        content = json.loads(bytes(file["meta/json"][()]))
    del content[key]
    put(path, "meta/json", np.frombuffer(json.dumps(content).encode(), dtype=np.uint8))
    assert refusal(path) == f"KeyError: '{key}'"


BAD = [float("nan"), float("inf"), 2.5, -1, 0, "3", None, [], {}, True, 10**30]


@pytest.mark.parametrize("value", [value for value in BAD if value != 10**30], ids=repr)
def test_nonsense_for_timesteps_is_refused(path, value):
    edit_json(path, "meta/json", timesteps=value)
    assert refusal(path) == f"ConfigError: network: timesteps: expected a positive integer, got {value!r}"


@pytest.mark.parametrize("field", ["shape", "offset", "bits"])
@pytest.mark.parametrize("value", [value for value in BAD if value != 10**30], ids=repr)
def test_nonsense_for_the_input_is_refused(path, field, value):
    with h5py.File(path) as file:
        facts = json.loads(bytes(file["meta/json"][()]))["input"]
    edit_json(path, "meta/json", input={**facts, field: value})
    refusal(path)


@pytest.mark.parametrize("field", ["name", "kind", "pool", "weight_bits", "dilation"])
@pytest.mark.parametrize("value", BAD, ids=repr)
def test_nonsense_for_a_layer_is_refused(path, field, value):
    with h5py.File(path) as file:
        layers = json.loads(bytes(file["meta/json"][()]))["layers"]
    layers[1][field] = value
    edit_json(path, "meta/json", layers=layers)
    if (field, value) != ("name", "3"):
        refusal(path)


@pytest.mark.parametrize("layers", [[], [{}], None, "abc", [None] * 4])
def test_a_wrong_list_of_layers_is_refused(path, layers):
    edit_json(path, "meta/json", layers=layers)
    refusal(path)


@pytest.mark.parametrize("facts", [None, [], 3, "text"])
def test_facts_that_are_no_object_are_refused(path, facts):
    edit_json(path, "meta/json", facts=facts)
    assert refusal(path) == "TypeError: meta has no facts"


def test_a_mask_of_another_size_is_refused(path):
    put(path, "meta/masks/third", np.full(3, 255, dtype=np.uint8))
    assert refusal(path) == "ValueError: the mask of third has 3 bytes for 60 weights"


def test_a_weight_outside_its_mask_is_refused(path):
    put(path, "meta/masks/third", np.zeros(8, dtype=np.uint8))
    assert refusal(path) == "ValueError: third has weights outside its mask"


@pytest.mark.parametrize("change", [{"tiles": {}}, {"formats": {}}, {"tiles": 3}, {"formats": None}, {"more": 1}])
def test_a_mapping_of_other_layers_is_refused(path, change):
    edit_json(path, "mapping/json", **change)
    refusal(path)


@pytest.mark.parametrize("layer", [-1, 4, 1 << 40])
def test_a_core_of_no_layer_is_refused(path, layer):
    with h5py.File(path, "r+") as file:
        column = file["mapping/cores"].attrs["columns"].split(",").index("layer")
        file["mapping/cores"][0, column] = layer
    assert refusal(path) == f"ValueError: mapping/cores has a core of layer {layer} of 4"


@pytest.mark.parametrize("columns", ["", "index", 3, b"index"])
def test_a_table_of_cores_without_its_columns_is_refused(path, columns):
    with h5py.File(path, "r+") as file:
        file["mapping/cores"].attrs["columns"] = columns
    refusal(path)


def test_a_mapping_without_cores_is_refused(path):
    put(path, "mapping/cores", np.zeros((0, 18), dtype=np.int64))
    assert refusal(path) == "ValueError: mapping/cores has type int64 and shape (0, 18)"


def test_the_error_of_a_constructor_is_one_line(path):
    with h5py.File(path, "r+") as file:
        file["layer/2/neuron/iDecay"][()] = 0
        file["layer/2/neuron/vDecay"][()] = 9_999
    assert refusal(path) == (
        "ConfigError: neuron: 2 faults i_decay: expected 1 to 4096, got 0 v_decay: expected 0 to 4095, got 9999"
    )
