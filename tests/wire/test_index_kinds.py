"""Every kind of index that a column can ask for, through the wire: found as well as by brute force, and kept in a file
that faiss opens."""

import faiss
import numpy as np
import pytest

from proxima import FP32, accepted, collection, column, insert, keys, knn, pack, writing
from sealing import all_sealed, files_of
from server import eventually

ROWS = 3000
DIMENSION = 32
#: Seals every 1000 rows; sealed rows are indexed as soon as 500 wait for it.
SETTINGS = {"segment.seal_rows_max": 1000, "segment.graph_rows_min": 500}
#: The parameters of each kind, and what faiss calls the index in its file.
KINDS = {
    "HNSW_SQ8": ({"index_type": "HNSW_SQ8"}, faiss.IndexHNSWSQ),
    "IVF_FLAT": ({"index_type": "IVF_FLAT"}, faiss.IndexIVFFlat),
    "IVF_SQ8": ({"index_type": "IVF_SQ8", "nlist": "16"}, faiss.IndexIVFScalarQuantizer),
    "IVF_PQ": ({"index_type": "IVF_PQ", "nlist": "16", "m": "16", "nbits": "4"}, faiss.IndexIVFPQ),
    "factory": ({"index_factory": "PCA24,IVF16,SQ8"}, faiss.IndexPreTransform),
}


def rows_of(count, seed):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((20, DIMENSION)) * 2
    rows = centres[random.integers(0, 20, count)] + random.standard_normal((count, DIMENSION))
    return rows.astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_index_is_built_and_finds_its_rows(start_server, kind):
    params, faiss_type = KINDS[kind]
    own = start_server(settings=SETTINGS)
    wire = own.wire()
    accepted(wire.create_collection(collection("c", column("v", DIMENSION, params=params.items()))))
    rows = rows_of(ROWS, 2)
    for first in range(0, ROWS, 500):
        batch = [insert(k, pack(FP32, rows[k])) for k in range(first, first + 500)]
        accepted(wire.write(writing("c", *batch, metas=[("v", FP32, DIMENSION)])))
    all_sealed(wire, "c", documents=ROWS)
    eventually(lambda: files_of(own, "segment-*/0.faiss"), 60.0, "an index")
    all_sealed(wire, "c", documents=ROWS)

    queries = rows_of(50, 3)
    truth = [set(np.argsort(((rows - q) ** 2).sum(1))[:10]) for q in queries]
    found = [keys(wire.query(knn("c", pack(FP32, q), "v", topk=10, dimension=DIMENSION)))[0]
             for q in queries]
    recall = np.mean([len(truth[i] & set(found[i])) / 10 for i in range(50)])
    assert recall >= 0.95, f"recall {recall}"

    indexes = [faiss.read_index(str(path)) for path in files_of(own, "segment-*/0.faiss")]
    assert all(isinstance(index, faiss_type) for index in indexes)
    assert all(index.d == DIMENSION and index.ntotal > 0 for index in indexes)
