#!/usr/bin/env python3
"""Queries per second over gRPC beside stock faiss in this process: same rows, same queries, same recall.

    python benches/qps.py [--rows 100000 --dimension 128 --seconds 10]

Client processes send requests that were serialised beforehand and look at the answers' bytes no further
than their length, so that the server is measured and not Python's protobuf. Both sides use the smallest
ef_search that reaches --recall-min. Prints a table, then the same figures as JSON.
"""

import argparse
import json
import multiprocessing
import random
import sys
import time

import target
from vectors import Clustered, nearest, recall

import grpc
import numpy as np
from pyproximabe import Client, CollectionConfig, DataType, IndexColumnParam, WriteRequest
from pyproximabe.core.types import proxima_be_pb2 as be

COLUMN, K, M, EF_CONSTRUCTION = "v", 10, 16, 200
EF_STEPS = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
QUERY = "/proxima.be.proto.ProximaService/query"


def serialised(name, queries, ef_search):
    """One request per query vector, ready to send."""
    requests = []
    for query in queries:
        request = be.QueryRequest(collection_name=name)
        param = request.knn_param
        param.column_name, param.topk, param.batch_count = COLUMN, K, 1
        param.dimension, param.data_type = len(query), DataType.VECTOR_FP32.value
        param.features = query.tobytes()
        param.extra_params.add(key="ef_search", value=str(ef_search))
        requests.append(request.SerializeToString())
    return requests


def server_recall(address, name, queries, exact, ef_search):
    call = grpc.insecure_channel(address).unary_unary(QUERY, response_deserializer=be.QueryResponse.FromString)
    found = []
    for message in serialised(name, queries, ef_search):
        answer = call(message, timeout=60)
        if answer.status.code != 0:
            raise SystemExit(f"query: {answer.status.code} {answer.status.reason}")
        found.append([d.primary_key for d in answer.results[0].documents])
    return recall(found, exact)


def smallest_ef(reach, minimum):
    """The first step whose recall is enough, with that recall."""
    for ef_search in EF_STEPS:
        reached = reach(ef_search)
        if reached >= minimum:
            return ef_search, reached
    raise SystemExit(f"recall {reached:.4f} at ef_search {ef_search}, below {minimum}")


def client_process(address, requests, barrier, seconds, results):
    """One closed loop: the next request goes out when the last answer is in."""
    call = grpc.insecure_channel(address).unary_unary(QUERY)
    smallest = min(len(call(message, timeout=60)) for message in requests[:20])
    latencies = []
    barrier.wait()
    began = time.perf_counter()
    end = began + seconds
    number = 0
    while True:
        sent = time.perf_counter()
        if sent >= end:
            break
        answer = call(requests[number % len(requests)], timeout=60)
        latencies.append(time.perf_counter() - sent)
        # A refusal is a short answer: it has no documents.
        if len(answer) < smallest // 2:
            raise SystemExit(f"an answer of {len(answer)} bytes: {answer!r}")
        number += 1
    results.put((latencies, time.perf_counter() - began))


def measure_server(address, requests, clients, seconds):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(clients), context.Queue()
    processes = []
    for n in range(clients):
        shuffled = list(requests)
        random.Random(n).shuffle(shuffled)
        processes.append(
            context.Process(target=client_process, args=(address, shuffled, barrier, seconds, results), daemon=True))
    for process in processes:
        process.start()
    answers = [results.get(timeout=seconds + 120) for _ in processes]
    for process in processes:
        process.join(60)
        if process.exitcode != 0:
            raise SystemExit(f"a client process ended with {process.exitcode}")
    latencies = [latency for one, _ in answers for latency in one]
    return figures(latencies, sum(len(one) / elapsed for one, elapsed in answers))


def figures(latencies, qps):
    p50, p99 = np.percentile(latencies, [50, 99]) * 1000
    return {"qps": round(qps, 1), "p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def build_faiss(rows):
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], M)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    began = time.monotonic()
    index.add(rows)
    build_seconds = time.monotonic() - began
    faiss.omp_set_num_threads(1)
    return index, build_seconds


def faiss_recall(index, queries, exact, ef_search):
    index.hnsw.efSearch = ef_search
    return recall(index.search(queries, K)[1], exact)


def measure_faiss(index, queries, ef_search, seconds):
    """One thread, one query a call, in this process."""
    index.hnsw.efSearch = ef_search
    latencies = []
    began = time.perf_counter()
    number = 0
    while (sent := time.perf_counter()) < began + seconds:
        at = number % len(queries)
        index.search(queries[at:at + 1], K)
        latencies.append(time.perf_counter() - sent)
        number += 1
    return figures(latencies, len(latencies) / (time.perf_counter() - began))


def load(client, name, rows):
    params = {"max_neighbor_count": str(M), "ef_construction": str(EF_CONSTRUCTION)}
    column = IndexColumnParam(COLUMN, rows.shape[1], extra_params=params)
    status = client.create_collection(CollectionConfig(name, [column]))
    if not status.ok():
        raise SystemExit(f"create_collection: {status}")
    meta = WriteRequest.RowMeta([WriteRequest.IndexColumnMeta(COLUMN, DataType.VECTOR_FP32, rows.shape[1])])
    for start in range(0, len(rows), 1000):
        status = client.write(WriteRequest(name, [
            WriteRequest.Row(key, WriteRequest.OperationType.INSERT, [rows[key].tobytes()])
            for key in range(start, min(start + 1000, len(rows)))], meta))
        if not status.ok():
            raise SystemExit(f"write: {status}")


def run(address, arguments):
    source = Clustered(arguments.dimension, arguments.seed)
    rows, queries = source.draw(arguments.rows), source.draw(arguments.queries)
    exact = nearest(rows, queries, K)
    host, port = address.rsplit(":", 1)
    client = Client(host, int(port), timeout=120)
    name = f"qps_{random.randrange(2**32):08x}"
    print(f"{arguments.rows} x {arguments.dimension} rows, seed {arguments.seed}; loading ...", flush=True)
    load(client, name, rows)
    stats, build_seconds = target.wait_until_built(client, name, arguments.settle)
    print(f"loaded, {stats.total_segment_count} segments, built {build_seconds:.1f} s after; stock faiss ...",
          flush=True)
    index, faiss_build_seconds = build_faiss(rows)
    faiss_ef, faiss_reached = smallest_ef(
        lambda ef: faiss_recall(index, queries, exact, ef), arguments.recall_min)
    in_process = measure_faiss(index, queries, faiss_ef, arguments.seconds)
    server_ef, server_reached = smallest_ef(
        lambda ef: server_recall(address, name, queries, exact, ef), arguments.recall_min)
    requests = serialised(name, queries, server_ef)
    over_grpc = {}
    for clients in arguments.clients:
        over_grpc[clients] = measure_server(address, requests, clients, arguments.seconds)
        over_grpc[clients]["ratio_to_faiss"] = round(over_grpc[clients]["qps"] / in_process["qps"], 3)
    # A second reading of faiss, after the server's: the machine may have changed its pace meanwhile.
    again = measure_faiss(index, queries, faiss_ef, arguments.seconds)
    if not arguments.keep:
        client.drop_collection(name)
    return {
        "rows": arguments.rows, "dimension": arguments.dimension, "seed": arguments.seed,
        "segments": stats.total_segment_count, "build_seconds_after_load": round(build_seconds, 1),
        "faiss": {"recall_at_10": round(faiss_reached, 4), "ef_search": faiss_ef,
                  "build_seconds": round(faiss_build_seconds, 1), **in_process, "qps_again": again["qps"]},
        "server": {"recall_at_10": round(server_reached, 4), "ef_search": server_ef, "clients": over_grpc},
    }


def table(summary):
    lines = [f"{'':24} {'recall@10':>9} {'ef':>4} {'QPS':>9} {'p50 ms':>8} {'p99 ms':>8} {'to faiss':>8}"]
    faiss, server = summary["faiss"], summary["server"]
    shape = "{:24} {:9.4f} {:4} {:9.1f} {:8.3f} {:8.3f} {:8.2f}"
    lines.append(shape.format("faiss, 1 thread", faiss["recall_at_10"], faiss["ef_search"], faiss["qps"],
                              faiss["p50_ms"], faiss["p99_ms"], 1.0))
    for clients, row in server["clients"].items():
        lines.append(shape.format(f"gRPC, {clients} client(s)", server["recall_at_10"], server["ef_search"], row["qps"],
                                  row["p50_ms"], row["p99_ms"], row["ratio_to_faiss"]))
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target.add_arguments(parser)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--recall-min", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--keep", action="store_true", help="leave the collection on the server")
    arguments = parser.parse_args()
    with target.serving(arguments) as address:
        summary = run(address, arguments)
    print(table(summary))
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
