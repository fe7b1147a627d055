"""An exported folder, read back: nothing in it is trusted that its manifest does not vouch for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import export as netx
from toolchain import profile as profiles
from toolchain import report, store
from toolchain.errors import FormatError

if TYPE_CHECKING:
    import numpy.typing as npt

    from toolchain.ir import Network
    from toolchain.profile import HardwareProfile

    Images = npt.NDArray[np.uint8]

SCHEMA = 1
FILES = ("network.net", "samples.npz", "run_lava.py", "mapping.json", "report.json", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """An exported folder, read back. Shapes: images uint8 (S, C, H, W), labels (S,), logits int64 (S, classes)."""

    path: Path
    deployment: netx.Deployment
    images: Images
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.int64]


def open_folder(path: Path) -> Folder:
    """Return an exported folder whose files are those of its manifest. Raises FormatError."""
    _check_manifest(path)
    deployment = netx.read(path / "network.net")
    return Folder(path=path, deployment=deployment, **_read_samples(path / "samples.npz", deployment.network))


def _read_samples(path: Path, network: Network) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "labels", "logits")}
    except Exception as error:  # noqa: BLE001  a hostile file can make numpy and zipfile raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise FormatError(path=str(path), reason=f"not the samples of an export ({what})") from None
    n_samples = len(arrays["images"]) if arrays["images"].ndim else 0
    expected = {
        "images": ("uint8", (n_samples, *network.input.shape)),
        "labels": ("int64", (n_samples,)),
        "logits": ("int64", (n_samples, len(network.readout.weight))),
    }
    for name, array in arrays.items():
        if not n_samples or (array.dtype.name, array.shape) != expected[name]:
            reason = f"not the samples of this network: {name} has type {array.dtype} and shape {array.shape}"
            raise FormatError(path=str(path), reason=reason)
    return arrays


def read_report(path: Path, *, energy: str = "all", proxy: bool = False) -> dict[str, Any]:
    """Return the report of an exported folder, with `all` energy models or one, and with another chip's coefficients or not.

    Raises FormatError.
    """
    _check_manifest(path)
    file = path / "report.json"
    try:
        made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        schema, _ = made["schema"], made["energy"]
    except (ValueError, KeyError, TypeError):
        raise FormatError(path=str(file), reason="not a report; export again") from None
    if schema != report.SCHEMA:
        reason = f"schema {schema} is not the {report.SCHEMA} this version reads; export again"
        raise FormatError(path=str(file), reason=reason)
    if proxy:
        made = report.with_proxies(made, _same_profile(path, made))
    return made if energy == "all" else report.only(made, energy)


def exported_for(path: Path) -> str:
    """Return the name or file of the profile an export was made for."""
    return str(json.loads((path / "manifest.json").read_text(encoding="utf-8"))["settings"]["profile"])


def _same_profile(path: Path, made: dict[str, Any]) -> HardwareProfile:
    """Return the profile an export was made for. Raises FormatError where it has changed."""
    profile = profiles.load(exported_for(path))
    if profile.sha256 != made["profile"]["sha256"]:
        reason = f"profile {profile.name} is not the one it was exported for; export again"
        raise FormatError(path=str(path), reason=reason)
    return profile


def write_page(folder: Path, made: dict[str, Any], file: Path) -> None:
    """`file` is the HTML page of a report of an exported folder. Raises FormatError where it would replace part of the export."""
    check_apart(folder, file)
    store.write_bytes(file, report.page.render(made).encode())


def check_apart(folder: Path, file: Path) -> None:
    """Raise FormatError where a file would replace part of an export."""
    if file.resolve().parent == folder.resolve() and file.name in {*FILES, "manifest.json"}:
        reason = "part of the export, which its manifest vouches for; take another name"
        raise FormatError(path=str(file), reason=reason)


def _check_manifest(path: Path) -> None:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        schema, hashes = manifest["schema"], manifest["files"]
        if schema != SCHEMA:
            reason = f"schema {schema} is not the {SCHEMA} this version reads; export again"
            raise FormatError(path=str(path), reason=reason)
        for name in FILES:
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != hashes[name]:
                raise FormatError(path=str(path / name), reason="not the file that was exported; export again")
    except OSError as error:
        reason = f"not an exported folder: {Path(error.filename or path).name} is missing or unreadable"
        raise FormatError(path=str(path), reason=reason) from None
    except (ValueError, KeyError, TypeError):
        raise FormatError(path=str(path / "manifest.json"), reason="not a manifest; export again") from None
