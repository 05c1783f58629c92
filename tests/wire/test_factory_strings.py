"""Index factory strings that people write: each is built, kept in a file, and searched as well as Python's faiss
searches that very file; or refused by the name of the part that is not taken."""

import faiss
import grpc
import numpy as np
import pytest

from server import eventually
from sealing import files_of
from voisin_v1 import VoisinV1, refused

ROWS, DIMENSION, QUERIES, K = 1_200, 32, 30, 10
#: Lists looked into, candidates kept, and rows that are scored again, as times k.
EFFORT, AGAIN = 8, 5.0
FP32 = 1
METRICS = {"L2": 1, "IP": 3}
TAKEN = """
Flat SQ8 SQ4 SQ6 SQfp16 SQbf16 SQ8_direct PQ8 PQ16x4 PQ8np PQ4x10 PQ8x4fs PQ16x4fs_64
IVF16,Flat IVF16,SQ8 IVF16,SQ4 IVF16,SQ6 IVF16,SQfp16 IVF16,PQ8 IVF16,PQ8np IVF16,PQ16x4 IVF16,PQ16x4fs
IVF16,PQ16x4fsr IVF16,PQ8x4fsr_64 IVF16,PQ8+8 IVF16,RaBitQ IVF16_HNSW8,Flat IVF16_HNSW,PQ8 IVF16_HNSW8,PQ16x4fsr
HNSW HNSW16 HNSW32,Flat HNSW16_SQ8 HNSW16,PQ8
OPQ8,PQ8 OPQ8_16,IVF16,PQ8 OPQ16_32,IVF16,PQ16x4fsr OPQ8,IVF16,PQ8x4fs,RFlat
PCA16,IVF16,Flat PCAR16,SQ8 PCAW16,Flat PCAWR16,IVF16,SQ8 L2norm,Flat L2norm,IVF16,SQ8 RR,IVF16,SQ4 RR16,Flat
ITQ,LSH ITQ16,LSH LSH LSH64r LSH32rt RQ4x6 LSQ4x4 PRQ2x3x4 PLSQ2x2x4 RQ6x4_Nqint8 RQ6x4fs_Nrq2x4 RaBitQ
Pad48,IVF16,PQ16x4fs IVF16,Flat,RFlat IVF16,PQ8,Refine(SQ8) PQ16x4fs,Refine(Flat)
IVF16,PQ16x4fsr,Refine(SQfp16) HNSW16,RFlat
""".split()
#: Some of them by inner product, which has other code in faiss.
ALSO_IP = "IVF16,Flat IVF16,PQ8 IVF16,PQ16x4fs IVF16,PQ16x4fsr IVF16_HNSW8,PQ16x4fsr OPQ16,IVF16,PQ16x4fsr RQ6x4fs".split()
REFUSED = {
    "IMI2x8,Flat": '"IMI2x8"', "IMI2x6,PQ8": '"IMI2x6"', "NSG16": '"NSG16"', "NSG16,Flat": "graphs are HNSWm",
    "IVF16_NSG8,Flat": '"IVF16_NSG8"', "IDMap,Flat": "rows have their keys", "IVF16,Flat,IDMap2": '"IDMap2"',
    "IVF4k,Flat": '"IVF4k"', "IVF16,RQ4x6": "not one of those taken", "IVF16(PQ8x4),Flat": '"IVF16(PQ8x4)"',
    "NNDescent16,Flat": '"NNDescent16"', "ZnLattice2x4_4": '"ZnLattice2x4_4"', "MinMax,SQ8": '"MinMax"',
    "IVF16": "not one of those taken", "PQ7": "no index can be made", "OPQ7,PQ8": "do not divide",
    "PCA64,SQ8": "takes some away", "IVF99999,Flat": "1 to 65536", "PQ8x24": "2 to 12", "": "0 bytes",
}


def data(seed, count):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((20, DIMENSION)) * 1.5
    return (centres[random.integers(0, 20, count)] + random.standard_normal((count, DIMENSION))).astype(np.float32)


def distances(metric, queries, rows):
    if metric == "IP":
        return -queries.astype(np.float64) @ rows.T.astype(np.float64)
    return ((queries[:, None].astype(np.float64) - rows[None]) ** 2).sum(2)


def recall(found, truth):
    edges = np.sort(truth, axis=1)[:, K - 1]
    return np.mean([(truth[i][ids] <= edges[i] + 1e-9).sum() / K for i, ids in enumerate(found)])


def set_effort(index):
    """As the server searches: through whatever wraps what is tuned."""
    while isinstance(index := faiss.downcast_index(index), (faiss.IndexPreTransform, faiss.IndexRefine)):
        index = index.index if isinstance(index, faiss.IndexPreTransform) else index.base_index
    if isinstance(index, faiss.IndexIVF):
        index.nprobe = min(EFFORT, index.nlist)
    elif isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = EFFORT


@pytest.mark.handlers("grpc")
def test_factory_strings_find_what_faiss_finds_in_the_same_file_or_are_refused(start_server):
    assert len(set(TAKEN)) >= 60
    own = start_server()
    calls = VoisinV1(own.channel())

    def create(name, text, metric):
        column = calls.message("VectorColumnInfo", name="v", element=FP32, dimension=DIMENSION,
                               metric=METRICS[metric], params={"index_factory": text})
        return calls.CreateCollection(name=name, vectors=[column])

    for text, words in REFUSED.items():
        refused(lambda: create("refused", text, "L2"), grpc.StatusCode.INVALID_ARGUMENT, words)

    cases = [(text, "L2") for text in TAKEN] + [(text, "IP") for text in ALSO_IP]
    rows, queries = data(2, ROWS), data(3, QUERIES)
    vectors = lambda some: calls.message("VectorColumn", name="v", element=FP32, dimension=DIMENSION, vectors=some.tobytes())
    for number, (text, metric) in enumerate(cases):
        create(f"c{number}", text, metric)
        ack = calls.Write(collection=f"c{number}", keys=range(ROWS), operation=1, vectors=[vectors(rows)])
        assert not ack.failures, text

    def waiting():
        stats = {case: calls.Stats(collection=f"c{number}") for number, case in enumerate(cases)}
        return [case for case, now in stats.items() if now.indexing.rows_waiting or now.indexing.rows_linking]

    eventually(lambda: not waiting(), 120.0, "an index of each")
    files = {}
    for path in files_of(own, "segment-*/0.faiss"):
        files.setdefault(path.parent.parent.name, []).append(path)
    truths = {metric: distances(metric, queries, rows) for metric in METRICS}
    faiss.omp_set_num_threads(1)
    wrong = []
    for number, (text, metric) in enumerate(cases):
        name, truth = f"c{number}", truths[metric]
        assert not calls.Stats(collection=name).unindexed, text
        params = calls.message("SearchParams", nprobe=EFFORT, ef_search=EFFORT, refine_k=AGAIN)
        reply = calls.Query(collection=name, vectors=vectors(queries), topk=K, params=params)
        ours = recall([np.array(hits.keys, dtype=np.int64) for hits in reply.results], truth)
        uuid = calls.DescribeCollection(name=name).uuid
        (path,) = files[uuid]
        index = faiss.read_index(str(path))
        assert index.ntotal == ROWS, text
        set_effort(index)
        finalists = int(AGAIN * K) + 5
        found = [[i for i in index.search(query[None], finalists)[1][0] if i >= 0] for query in queries]
        theirs = recall([np.array(sorted(ids, key=lambda i: truth[at][i])[:K], dtype=np.int64)
                         for at, ids in enumerate(found)], truth)
        if abs(ours - theirs) > 0.05:
            wrong.append((text, metric, round(ours, 3), round(theirs, 3)))
    assert not wrong, wrong
