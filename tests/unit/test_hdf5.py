"""HDF5 files that are damaged or hostile end in one sentence: the library itself hangs at some of them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from slayer import write

from toolchain import export, hdf5, lavadl
from toolchain.errors import FormatError

GRAPHS = Path(__file__).parents[1] / "graphs"
GOLDEN = Path(__file__).parents[1] / "golden"
HEADER = 16


def heap_of(content):
    """Where the global heap of a file begins, and where each of its objects does, free space last."""
    start = content.index(b"GCOL\1")
    (size,) = struct.unpack_from("<Q", content, start + 8)
    places = [start + HEADER]
    while (place := places[-1]) <= start + size - HEADER:
        index, _, _, length = struct.unpack_from("<HHIQ", content, place)
        places.append(place + (HEADER + -(-length // 8) * 8 if index else length))
    return start, places[:-1]


def damaged(content, place, value, form="<Q"):
    made = bytearray(content)
    struct.pack_into(form, made, place, value)
    return bytes(made)


def refused(content, open_=hdf5.opened):
    with pytest.raises(FormatError) as error, open_(io.BytesIO(content), "a file"):
        pass
    return str(error.value)


def strings(n=3000):
    """A file with strings enough for several heaps, some of them rewritten and longer than a heap."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("s", data=[f"string {k}" * (k % 40) for k in range(n)], dtype=h5py.string_dtype())
        file["s"][::7] = "another"
        file["t"] = "long" * 5000
        file.attrs["u"] = "attribute"
    return buffer.getvalue()


def test_sound_strings_are_read():
    content = strings()
    assert content.count(b"GCOL\1") > 10
    with hdf5.opened(io.BytesIO(content), "a file") as file:
        assert file["s"][8] == b"string 8" * 8


@pytest.mark.parametrize("path", sorted([*GRAPHS.glob("*.nir"), *GOLDEN.glob("*.net")]), ids=lambda path: path.name)
def test_files_of_others_and_of_ours_are_read(path):
    with hdf5.opened(path, str(path)) as file:
        hdf5.check_whole(file, str(path))
        assert len(file)


@pytest.mark.parametrize("size", [0, 1, 15, 1 << 31, (1 << 63), (1 << 64) - 16, (1 << 64) - 1])
def test_a_heap_of_strings_whose_objects_lead_nowhere_is_refused(size):
    content = (GRAPHS / "spikingjelly.nir").read_bytes()
    start, places = heap_of(content)
    said = f"a file: the strings in it are damaged (global heap at byte {start:,})"
    assert refused(damaged(content, places[-1] + 8, size)) == said
    assert refused(damaged(content, start + 8, size)) == said
    if size > 1 << 30:
        assert refused(damaged(content, places[0] + 8, size)) == said


def test_each_reader_refuses_strings_at_which_the_library_hangs(tmp_path):
    path = tmp_path / "a.net"
    write(path)
    with h5py.File(path, "r+") as file:
        file["layer/1/more"] = "of any length"
    ours = (GOLDEN / "dense.net").read_bytes()
    for content, read in ((path.read_bytes(), lavadl.read), (ours, lavadl.read), (ours, export.read)):
        _, places = heap_of(content)
        path.write_bytes(damaged(content, places[-1] + 8, 0))
        with pytest.raises(FormatError, match="the strings in it are damaged"):
            read(path)


def test_a_file_with_short_lengths_is_refused(tmp_path):
    path = tmp_path / "a.net"
    plist = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    plist.set_sizes(4, 4)
    h5py.h5f.create(bytes(path), fcpl=plist).close()
    with pytest.raises(FormatError, match="are not of 8 bytes"):
        lavadl.read(path)


def test_a_file_of_lava_dl_that_refers_elsewhere_or_is_too_large_is_refused(tmp_path):
    def said(change):
        path = write(tmp_path / "a.net")
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(FormatError) as error:
            lavadl.read(path)
        return str(error.value).removeprefix(f"{path}: ")

    def outside(file):
        del file["layer/3"]
        file["layer/3"] = h5py.ExternalLink("other.net", "/layer/3")

    def huge(file):
        del file["layer/3/weight"]
        file.create_dataset("layer/3/weight", shape=(1 << 15, 1 << 14), dtype="i1", chunks=(1024, 1024))

    def elsewhere(file):
        del file["layer/0/type"]
        file.create_dataset("layer/0/type", shape=(1,), dtype="S5", external=[("other", 0, 5)])

    assert said(outside) == "/layer/3 is a link to something else"
    assert said(elsewhere) == "/layer/0/type is in another file"
    assert said(huge).endswith("more than any network's")
    assert np.prod((1 << 15, 1 << 14)) < hdf5.MAX_BYTES
