"""Makes the golden files: small networks run once by stock Lava, with what came out.

    python tests/golden/make.py    # Python 3.10 with Lava; every network of NETWORKS

NAME.net is the deployed network, NAME.npz the images and what stock Lava made of them. The files are the truth that the
tests hold the package to; making them again is only needed when a file format changes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from networks import corners, deployed, driven, fed, seeded  # noqa: E402

from toolchain import export, simulate  # noqa: E402

NETWORKS = {
    "pools": seeded(32),
    "pools-groups-and-leaks": seeded(171),
    "groups-and-leaks": seeded(165),
    "dense": seeded(202),
    "wraps": seeded(94),
    "decays": corners()["decays whose last bit decides"],
    "biases": driven(seeded(6), divisor=3),
    "past-32-bits": corners()["a current past 32 bits, by its leak"],
}


def main() -> None:
    """Write every golden file."""
    with simulate.Session() as lava, tempfile.TemporaryDirectory() as folder:
        for name, case in NETWORKS.items():
            packed = export.pack(deployed(case.network))
            path = Path(folder) / f"{name}.net"
            path.write_bytes(packed)
            trace = lava.run(
                path, fed(case.network, case.images), timesteps=case.network.timesteps, kernels="stock", record=True
            )
            spikes = {f"spikes{index}": np.packbits(layer, axis=None) for index, layer in enumerate(trace.spikes)}
            (HERE / f"{name}.net").write_bytes(packed)
            np.savez_compressed(HERE / f"{name}.npz", images=case.images, logits=trace.logits, **spikes)
            rates = ", ".join(f"{layer.mean():.2f}" for layer in trace.spikes)
            sys.stdout.write(f"{name}: rates {rates}\n")


if __name__ == "__main__":
    main()
