"""Files as lava-dl's slayer exports them: float weights, a spare axis, neurons with all it knows of them."""

from __future__ import annotations

import h5py
import numpy as np

NEURON = {"iDecay": 4096, "vDecay": 128, "vThMant": 80, "refDelay": 1, "gradedSpike": False}
SHAPE = (2, 6, 6)
T = 8


def neuron(**changed):
    return {f"neuron/{key}": value for key, value in {"type": b"CUBA", **NEURON, **changed}.items()}


def chain(seed=0):
    """An input block with neurons, a convolution, a dense layer and one that sums: every kind, all of it leaky."""
    rng = np.random.default_rng(seed)

    def weight(*shape: int):
        return (2 * rng.integers(-20, 26, shape)).astype(np.float32)

    return {
        "0": {
            "type": [b"input"],
            "shape": np.array(SHAPE),
            "weight": np.float32([[76]]),
            "bias": np.float32([[-12]]),
            **neuron(),
        },
        "1": {
            "type": [b"conv"],
            "shape": np.array((4, 3, 3)),
            "inChannels": 2,
            "outChannels": 4,
            "kernelSize": (3, 3),
            "stride": (2, 2),
            "padding": (1, 1),
            "dilation": (1, 1),
            "groups": 1,
            "weight": weight(4, 2, 3, 3, 1),
            "bias": weight(4),
            **neuron(iDecay=1024, type=b"LOIHI", wgtExp=0),
        },
        "2": {"type": [b"flatten"], "shape": np.array((36,))},
        "3": {
            "type": [b"dense"],
            "shape": np.array((5,)),
            "inFeatures": 36,
            "outFeatures": 5,
            "weight": weight(5, 36),
            **neuron(vDecay=700, iDecay=2000),
        },
        "4": {"type": [b"dense"], "shape": np.array((3,)), "weight": weight(3, 5)},
    }


def write(path, layers=None, *, steps=T):
    """The file of a chain; steps None leaves out how many a sample takes."""
    with h5py.File(path, "w") as file:
        for index, fields in (layers or chain()).items():
            for key, value in fields.items():
                file[f"layer/{index}/{key}"] = value
        if steps:
            file["simulation/tSample"] = steps
    return path


def changed(at, *, without=(), **fields):
    """The chain with datasets of a layer changed, by their path with / as two underscores, or left out."""
    made = chain()
    for key in without:
        for found in [name for name in made[at] if name == key or name.startswith(f"{key}/")]:
            del made[at][found]
    made[at].update({key.replace("__", "/"): value for key, value in fields.items()})
    return made


def group(path):
    """Every dataset of the group `layer`: path -> (type, shape, bytes)."""
    found = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item.dtype.str, item.shape, item[()].tobytes()

    with h5py.File(path) as file:
        file["layer"].visititems(take)
    return found
