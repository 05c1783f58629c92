"""HDF5 files as h5py writes them, old and new: their numbers are those that h5py reads, or the file is refused by name."""

import h5py
import numpy as np
import pytest

from moving import done, failed, import_files
from voisin_v1 import VoisinV1

ROWS, DIMENSION = 300, 17
LATEST = {"libver": "latest"}
PAGES = {"libver": "latest", "fs_strategy": "page", "fs_page_size": 4096}
DATA = np.random.default_rng(8).standard_normal((ROWS, DIMENSION)).astype(np.float32)
WHOLE = np.random.default_rng(9).integers(-100, 100, (ROWS, DIMENSION))


def plain(data=DATA, **how):
    return lambda file: file.create_dataset("train", data=data, **how)


def of_type(kind, data=DATA):
    """A dataset of a type of HDF5, into which the library converts."""
    def make(file):
        made = h5py.h5d.create(file.id, b"train", kind(), h5py.h5s.create_simple(data.shape))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(data))
    return make


def floats(base=h5py.h5t.IEEE_F32LE, fields=None, precision=None, size=None, bias=None, norm=None, order=None):
    """A type of floats with parts of their own."""
    def kind():
        made = base.copy()
        for change, value in [(made.set_fields, fields), (made.set_precision, precision and (precision,)), (made.set_size, size and (size,)),
                              (made.set_ebias, bias and (bias,)), (made.set_norm, norm is not None and (norm,)), (made.set_order, order and (order,))]:
            if value:
                change(*value)
        return made
    return kind


def grown(**how):
    """Both dimensions may grow, and have."""
    def make(file):
        made = file.create_dataset("train", shape=(0, 3), maxshape=(None, None), chunks=(7, 4), dtype="f4", **how)
        made.resize(DATA.shape)
        made[:] = DATA
    return make


def in_parts(**how):
    """Most chunks were never written."""
    def make(file):
        made = file.create_dataset("train", shape=DATA.shape, chunks=(10, 4), dtype="f4", fillvalue=7.5, **how)
        made[100:130, 3:9] = DATA[100:130, 3:9]
        made[-1] = 2
    return make


def shrunk(file):
    grown(compression="gzip")(file)
    file["train"].resize((100, 9))


def linked(file):
    file.create_dataset("train", data=DATA)
    file["again"], file["gone"] = h5py.SoftLink("/train"), h5py.SoftLink("/nothing")
    file["elsewhere"] = h5py.ExternalLink("other.h5", "/train")


def soft_links(file):
    """More than a node of the group holds."""
    file.create_dataset("train", data=DATA)
    for number in range(40):
        file.create_dataset(f"x{number}", data=np.arange(ROWS))
        file[f"soft{number}"] = h5py.SoftLink("/train")


def committed(kind):
    def make(file):
        made = kind()
        made.commit(file.id, b"kind")
        h5py.h5d.create(file.id, b"train", made, h5py.h5s.create_simple(DATA.shape)).write(h5py.h5s.ALL, h5py.h5s.ALL, DATA)
    return make


def compact(file):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_layout(h5py.h5d.COMPACT)
    made = h5py.h5d.create(file.id, b"train", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple(DATA.shape), how)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, DATA)


def many_attributes(file):
    """So many that the header goes on elsewhere."""
    made = file.create_dataset("train", data=DATA, chunks=(100, 17), compression="gzip")
    for number in range(40):
        made.attrs[f"a{number}"] = "x" * 500


READ = {
    "gzip": ({}, plain(chunks=(100, 17), compression="gzip")),
    "gzip, latest": (LATEST, plain(chunks=(100, 17), compression="gzip")),
    "one chunk, latest": (LATEST, plain(chunks=DATA.shape, compression="gzip")),
    "shuffle and lzf, latest": (LATEST, plain(chunks=(64, 8), compression="lzf", shuffle=True)),
    "checksums, latest": (LATEST, plain(chunks=(64, 8), fletcher32=True)),
    "many chunks, latest": (LATEST, plain(chunks=(2, 3), compression="gzip")),
    "chunks without filters, latest": (LATEST, plain(chunks=(2, 3))),
    "rows may grow, latest": (LATEST, plain(chunks=(3, 5), maxshape=(None, 17), compression="gzip")),
    "columns may grow, latest": (LATEST, plain(chunks=(3, 5), maxshape=(ROWS, None), compression="lzf")),
    "both may grow": ({}, grown()), "both may grow, latest": (LATEST, grown()),
    "both may grow, gzip, latest": (LATEST, grown(compression="gzip", shuffle=True, fletcher32=True)),
    "both may grow, many chunks, latest": (LATEST, plain(chunks=(3, 2), maxshape=(None, None), compression="gzip")),
    "both may grow, 1.12": ({"libver": ("v112", "v112")}, grown(compression="gzip")),
    "shrunk, latest": (LATEST, shrunk),
    "in parts": ({}, in_parts()), "in parts, gzip, latest": (LATEST, in_parts(compression="gzip")),
    "in parts, both may grow, latest": (LATEST, in_parts(maxshape=(None, None))),
    "in parts, both may grow, gzip, latest": (LATEST, in_parts(maxshape=(None, None), compression="gzip")),
    "pages": (PAGES, plain()), "pages, gzip": (PAGES, plain(chunks=(100, 17), compression="gzip")),
    "pages, gzip, default": ({**PAGES, "libver": None}, plain(chunks=(100, 17), compression="gzip")),
    "1.10": ({"libver": ("v110", "v110")}, plain(chunks=(64, 8), compression="gzip")),
    "a block before it, latest": ({"userblock_size": 512, **LATEST}, grown(compression="gzip")),
    "a block before it, links": ({"userblock_size": 512}, linked),
    "links": ({}, linked), "links, latest": (LATEST, linked), "many links": ({}, soft_links), "many links, latest": (LATEST, soft_links),
    "compact": ({}, compact), "compact, latest": (LATEST, compact), "many attributes, latest": (LATEST, many_attributes),
    "a type by itself": ({}, committed(h5py.h5t.IEEE_F32LE.copy)),
    "another bias": ({}, of_type(floats(bias=130))), "another bias, latest": (LATEST, of_type(floats(bias=130))),
    "another bias, by itself": ({}, committed(floats(bias=130))), "another bias, other end first": ({}, of_type(floats(h5py.h5t.IEEE_F32BE, bias=120))),
    "bfloat16": ({}, of_type(floats(fields=(15, 7, 8, 0, 7), precision=16, size=2))),
    "floats of 8 bits": ({}, of_type(floats(h5py.h5t.IEEE_F16LE, fields=(7, 3, 4, 0, 3), precision=8, size=1, bias=7))),
    "the sign first": ({}, of_type(floats(fields=(0, 24, 8, 1, 23)))), "the exponent first": ({}, of_type(floats(fields=(31, 0, 8, 8, 23)))),
    "24 bits of 32": ({}, of_type(floats(fields=(23, 15, 8, 0, 15), precision=24))),
    **{f"{end}": ({}, of_type(getattr(h5py.h5t, end).copy)) for end in ("IEEE_F16LE", "IEEE_F16BE", "IEEE_F32BE", "IEEE_F64BE")},
    **{f"{end}": ({}, of_type(getattr(h5py.h5t, end).copy, np.abs(WHOLE) if "_U" in end else WHOLE))
       for end in ("STD_I8LE", "STD_U8BE", "STD_I16BE", "STD_U16LE", "STD_I32BE", "STD_U32BE", "STD_I64BE", "STD_U64LE")},
    "rounded to a step": ({}, plain(chunks=(100, 17), scaleoffset=3)),
    "whole numbers in few bits": ({}, plain(WHOLE.astype("i4"), chunks=(30, 5), scaleoffset=0)),
    "whole numbers in few bits, other end first, latest": (LATEST, plain(WHOLE.astype(">i4"), chunks=(30, 5), scaleoffset=0)),
}


@pytest.mark.parametrize("file", READ)
def test_numbers_are_those_that_h5py_reads(server, name, tmp_path, file):
    how, make = READ[file]
    with h5py.File(tmp_path / "a.h5", "w", **how) as made:
        make(made)
    with h5py.File(tmp_path / "a.h5") as made:
        expected = made["train"][()].astype(np.float32)
    done(import_files(server, name, tmp_path / "a.h5", "--vector", "train=v", "--columns", "", "--element", "FP32"))
    rows = {}
    for part in VoisinV1(server.channel()).Read(collection=name, vectors={"names": ["*"]}):
        rows.update(zip(part.keys, np.frombuffer(part.vectors[0].vectors, "<f4").reshape(len(part.keys), -1)))
    assert np.array_equal(np.stack([rows[key] for key in sorted(rows)]), expected)


def external(file):
    path = file.filename + ".raw"
    file.create_dataset("train", shape=DATA.shape, dtype="f4", external=[(path, 0, DATA.nbytes)])[:] = DATA


def virtual(file):
    file.create_dataset("part", data=DATA)
    layout = h5py.VirtualLayout(shape=DATA.shape, dtype="f4")
    layout[:] = h5py.VirtualSource(".", "part", shape=DATA.shape)
    file.create_virtual_dataset("train", layout)


def n_bit(file):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((30, 5))
    how.set_filter(5, 0)
    made = h5py.h5d.create(file.id, b"train", h5py.h5t.STD_I32LE, h5py.h5s.create_simple(WHOLE.shape), how)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, WHOLE.astype("i4"))


def whole_of(precision, offset=0):
    def kind():
        made = h5py.h5t.STD_I32LE.copy()
        made.set_precision(precision)
        made.set_offset(offset)
        return made
    return kind


FLAGS = h5py.enum_dtype({"FALSE": 1, "TRUE": 0}, basetype="i1")
REFUSED = {
    "numbers in another file": ({}, external, "other files"), "numbers in another file, latest": (LATEST, external, "other files"),
    "parts of others": ({}, virtual, "parts of other data sets"), "parts of others, latest": (LATEST, virtual, "parts of other data sets"),
    "mantissas written whole": ({}, of_type(floats(norm=h5py.h5t.NORM_NONE)), "written whole"),
    "mantissas with their highest bit": ({}, of_type(floats(norm=h5py.h5t.NORM_MSBSET)), "written whole"),
    "a VAX": ({}, of_type(floats(order=h5py.h5t.ORDER_VAX)), "VAX"),
    "long doubles": ({}, of_type(h5py.h5t.NATIVE_LDOUBLE.copy), "float of 16 bytes"),
    "an exponent beyond doubles": ({}, of_type(floats(h5py.h5t.IEEE_F64LE, bias=1000)), "which no double holds"),
    "12 bits at bit 4": ({}, of_type(whole_of(12, 4), np.abs(WHOLE).astype("i4")), "integer of 12 bits at bit 4 of 4 bytes"),
    "bits": ({}, of_type(h5py.h5t.STD_B32LE.copy, np.abs(WHOLE).astype("u4")), "bitfield"),
    "complex numbers": ({}, plain(DATA.astype(np.complex64)), "elements of type"),
    "complex numbers, latest": (LATEST, plain(DATA.astype(np.complex64)), "elements of type"),
    "structures": ({}, plain(np.zeros(9, [("a", "f4"), ("b", "i4")])), "compound"),
    "references": ({}, lambda file: file.create_dataset("train", data=np.array([file.ref], dtype=h5py.ref_dtype)), "ref"),
    "names": ({}, plain(WHOLE.astype("i1") % 3, dtype=h5py.enum_dtype({"A": 0, "B": 1, "C": 2}, basetype="i1")), "enum"),
    "truth upside down": ({}, plain((WHOLE[:, 0] > 0).astype("i1"), dtype=FLAGS), "enum"),
    "truth values as vectors": ({}, plain(WHOLE > 0), "where vectors are wanted"),
    "bytes of no kind": ({}, plain(np.zeros(5, "V4")), "opaque"),
    "lists of any length": ({}, plain(np.array([np.arange(3.0), np.arange(2.0)], object), dtype=h5py.vlen_dtype("f4")), "vlen"),
    "n-bit": ({}, n_bit, "nbit"),
    "nothing": ({}, plain(h5py.Empty("f4")), "shape []"), "one number": ({}, plain(np.float32(3)), "shape []"),
    "three dimensions": ({}, plain(np.zeros((3, 4, 5), "f4")), "shape [3, 4, 5]"),
}


@pytest.mark.parametrize("file", REFUSED)
def test_what_is_not_read_is_refused_by_name(server, name, tmp_path, file):
    how, make, word = REFUSED[file]
    with h5py.File(tmp_path / "a.h5", "w", **how) as made:
        make(made)
    ran = import_files(server, name, tmp_path / "a.h5", "--vector", "train=v", "--columns", "")
    failed(ran, ran.returncode or -1, "train", word)
