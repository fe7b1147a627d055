"""A file that is to be read as a graph: it holds what it says itself, and no more than a network takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py

from toolchain.errors import FormatError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 1 << 32
MAX_NAMES = 1 << 17


def check_file(path: Path) -> None:
    """Raise FormatError for a file that refers to others or to itself, or whose datasets are larger than any network's.

    Raises too what h5py does where it is no such file.
    """
    n_bytes = n_names = 0
    with h5py.File(path, "r") as file:
        waiting, seen = [file["/"]], set()
        while waiting:
            group = waiting.pop()
            place = h5py.h5o.get_info(group.id).addr
            if place in seen:
                raise FormatError(path=str(path), reason=f"{group.name} is in it twice")
            seen.add(place)
            for name in group:
                n_names += 1
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise FormatError(path=str(path), reason=f"{group.name}/{name} is a link to something else")
                item = group[name]
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.is_virtual or item.external:
                        raise FormatError(path=str(path), reason=f"{item.name} is in another file")
                    n_bytes += item.nbytes
                if n_bytes > MAX_BYTES or n_names > MAX_NAMES:
                    reason = f"{n_bytes:,} bytes in {n_names:,} places, more than any network's"
                    raise FormatError(path=str(path), reason=reason)
