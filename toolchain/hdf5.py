"""HDF5 files of strangers: refused before the HDF5 library would loop for ever, follow them elsewhere, or ask for more memory than there is."""

from __future__ import annotations

import io
import mmap
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 3 << 30
"""Of all that a file holds, when read"""
MAX_NAMES = 1 << 17
_HEAP = b"GCOL\1"
_HEADER = 16
"""Bytes before what a heap holds, and before each of its objects."""


@contextmanager
def opened(source: Path | io.BytesIO, name: str) -> Iterator[h5py.File]:
    """The file is open for reading, and its strings can be read. Raises FormatError, or what h5py does where it is no such file."""
    with h5py.File(source, "r") as file:
        if file.id.get_create_plist().get_sizes() != (8, 8):
            raise FormatError(path=name, reason="its addresses or lengths are not of 8 bytes, as h5py writes them")
        if isinstance(source, io.BytesIO):
            _check_heaps(source.getvalue(), name)
        else:
            with Path(source).open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                _check_heaps(content, name)
        yield file


def _check_heaps(content: mmap.mmap | bytes, name: str) -> None:
    """Raise FormatError where an object of a global heap, which holds strings of any length, does not end behind where it began and within the heap.

    At some of these HDF5 2.0 never ends. Source: HDF5 file format specification, version 3.0, III.E.
    """
    at = content.find(_HEAP)
    while at >= 0:
        place, end = at + _HEADER, at
        if place <= len(content):
            end += struct.unpack_from("<Q", content, at + 8)[0]
        sound = place <= end <= len(content)
        while sound and end - place >= _HEADER:
            index, _, _, size = struct.unpack_from("<HHIQ", content, place)
            taken = size if index == 0 else _HEADER + -(-size // 8) * 8  # object 0 is free space, its header included
            sound = _HEADER <= taken <= end - place
            place += taken
        if not sound:
            raise FormatError(path=name, reason=f"the strings in it are damaged (global heap at byte {at:,})")
        at = content.find(_HEAP, at + 1)


def bytes_when_read(dataset: h5py.Dataset) -> int:
    """What its numbers take as float64 or int64, or as they are where that is more."""
    return int(max(dataset.nbytes, 8 * (dataset.size or 0)))


def check_whole(file: h5py.File, name: str) -> None:
    """Raise FormatError for a file that refers to others or to itself, or whose datasets are larger than any network's."""
    n_bytes = n_names = 0
    waiting, seen = [file["/"]], set()
    while waiting:
        group = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:
            raise FormatError(path=name, reason=f"{group.name} is in it twice")
        seen.add(place)
        for key in group:
            n_names += 1
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise FormatError(path=name, reason=f"{group.name}/{key} is a link to something else")
            item = group[key]
            if isinstance(item, h5py.Group):
                waiting.append(item)
            elif isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    raise FormatError(path=name, reason=f"{item.name} is in another file")
                n_bytes += bytes_when_read(item)
            if n_bytes > MAX_BYTES or n_names > MAX_NAMES:
                reason = f"{n_bytes:,} bytes in {n_names:,} places, more than any network's"
                raise FormatError(path=name, reason=reason)
