"""kill -9 at random moments under mixed load, again and again, with a check of every row after each restart.

    python tests/crash/campaign.py --cycles 200 --rows 100000
"""

import argparse
import collections
import json
import pathlib
import random
import signal
import struct
import sys
import tempfile
import threading
import time

import grpc
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import proxima  # noqa: E402
from journal import ABSENT, Journal, Verdict, fingerprint  # noqa: E402
from server import Server, run_voisin  # noqa: E402

NAME = "journalled"
DIMENSION = 8
#: Small enough that seals, graphs, merges and new log files happen between two kills.
SETTINGS = {
    "segment.seal_rows_max": 200,
    "segment.graph_rows_min": 100,
    "segment.deleted_share_max": 0.1,
    "segment.segments_max": 12,
    "storage.log_file_bytes": 65_536,
}
METAS = [("state", proxima.FP32, DIMENSION), ("picture", proxima.FP32, DIMENSION)]
FORWARD_NAMES = ["version", "key_again", "text"]
EVERY_ROW = proxima.pack(proxima.FP32, [1] + [0] * (DIMENSION - 1))


def document(key, version):
    """The vectors and forward values of one version of a row."""
    mark = fingerprint(key, version)
    state = struct.pack("<8f", mark, version, key % 4096, 0, 0, 0, 0, 0)
    picture = struct.pack("<8f", *((mark * factor % 8191) / 8191 for factor in (1, 3, 7, 13, 29, 61, 127, 251)))
    values = [version, key, f"{key}:{version}" + "." * (version % 50)]
    return (state, picture), values


def declaration():
    return proxima.collection(
        NAME, proxima.column("state", DIMENSION, params={"metric_type": "InnerProduct"}),
        proxima.column("picture", DIMENSION), forward_names=FORWARD_NAMES)


def request(rows):
    """A write of (operation, key, version) rows, built in place: copying messages is what costs here."""
    message = proxima.writing(NAME, metas=METAS, forward_names=FORWARD_NAMES)
    for operation, key, version in rows:
        row = message.rows.add(primary_key=key, operation_type=operation)
        if operation == proxima.DELETE:
            continue
        vectors, (number, again, text) = document(key, version)
        for vector in vectors:
            row.index_column_values.values.add(bytes_value=vector)
        forwards = row.forward_column_values.values
        forwards.add(int64_value=number)
        forwards.add(int64_value=again)
        forwards.add(string_value=text)
    return message


class Writer:
    """One thread's load: random inserts, updates and deletes of its own keys, in batches."""

    def __init__(self, number, writers, key_space, seed):
        self.number, self.writers, self.key_space = number, writers, key_space
        self.random = random.Random(f"{seed}/{number}")
        self.journal = Journal()
        self.fault = None

    def owns(self, key):
        return key % self.writers == self.number

    def some_changes(self):
        """A batch of changes to distinct keys, each valid in the acknowledged state."""
        changes, rows = {}, []
        size = self.random.choice([1, 1, 2, 5, 20, 60])
        for _ in range(size):
            key = self.random.randrange(self.key_space // self.writers) * self.writers + self.number
            if key in changes:
                continue
            is_there = key in self.journal.acknowledged
            if is_there and self.random.random() < 0.4:
                changes[key] = ABSENT
                rows.append((proxima.DELETE, key, ABSENT))
            else:
                changes[key] = self.journal.next_version(key)
                rows.append((proxima.UPDATE if is_there else proxima.INSERT, key, changes[key]))
        return changes, rows

    def run(self, wire):
        """Writes until the connection breaks."""
        try:
            while True:
                changes, rows = self.some_changes()
                message = request(rows)
                self.journal.begin(changes)
                status = wire.write(message)
                if status.code != 0:
                    raise AssertionError(f"a valid write was answered with {status.code} {status.reason}")
                self.journal.acknowledge()
        except (grpc.RpcError, ValueError) as error:
            # ValueError: the channel was closed under the call.
            if isinstance(error, grpc.RpcError) and error.code() not in (
                    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN,
                    grpc.StatusCode.INTERNAL):
                self.fault = error
        except BaseException as error:  # noqa: BLE001 - reported by the thread that joins
            self.fault = error


# ----- reading everything back -----


class Rows:
    """Every row the server has: keys, scores and versions, read by one exact inner-product query."""

    def __init__(self, server):
        call = server.channel().unary_unary("/proxima.be.proto.ProximaService/query")
        message = proxima.knn(
            NAME, EVERY_ROW, "state", topk=1_000_000, dimension=DIMENSION, is_linear=True).SerializeToString()
        self.keys, self.scores, self.versions = parse_rows(call(message, timeout=120))
        self.version_of = dict(zip(self.keys, self.versions))

    def halves(self):
        """Keys whose vector and version come from two different writes."""
        keys, versions = np.array(self.keys, np.int64), np.array(self.versions, np.int64)
        is_half = np.array(self.scores, np.float64) != -fingerprint(keys, versions)
        return [(int(k), int(v)) for k, v in zip(keys[is_half], versions[is_half])]

    def repeated(self):
        """Keys that were returned more than once."""
        return [key for key, times in collections.Counter(self.keys).items() if times > 1]


def parse_rows(raw):
    """Keys, scores and versions of a query answer with one result, read by hand: the pure Python
    protobuf runtime takes longer over 100,000 rows than the server over its restart."""
    keys, scores, versions = [], [], []
    status, results = split(raw, 0, len(raw), (1, 4))
    for start, end in status:
        # Field 1 is the code, absent when 0.
        assert raw[start] != 0x08, f"the query for every row was refused: {raw[start:end]!r}"
    ((at, end),) = results
    unpack_float = struct.Struct("<f").unpack_from
    while at < end:
        assert raw[at] == 0x0A, "a document"
        length, at = varint(raw, at + 1)
        next_document = at + length
        key, score, version = 0, 0.0, -1
        if raw[at] == 0x08:
            key, at = varint(raw, at + 1)
        if raw[at] == 0x15:
            (score,), at = unpack_float(raw, at + 1), at + 5
        # The first forward value is the version: {1: name, 2: {5: int64}}.
        if at < next_document and raw[at + 2:at + 11] == FIRST_FORWARD and raw[at + 13] == 0x28:
            version, _ = varint(raw, at + 14)
        keys.append(key)
        scores.append(score)
        versions.append(version)
        at = next_document
    return keys, scores, versions


#: How the pair of the first forward column begins, behind its own tag and length.
FIRST_FORWARD = b"\x0a\x07version"


def split(raw, at, end, wanted):
    """The (start, end) of each length-delimited field of the wanted numbers, one list per number."""
    found = {number: [] for number in wanted}
    while at < end:
        tag, at = varint(raw, at)
        if tag & 7 == 0:
            _, at = varint(raw, at)
            continue
        assert tag & 7 == 2, f"wire type {tag & 7}"
        length, at = varint(raw, at)
        found.get(tag >> 3, []).append((at, at + length))
        at += length
    return [found[number] for number in wanted]


def varint(raw, at):
    value = raw[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


# ----- the campaign -----


class Campaign:
    """One data folder that lives through many kills."""

    def __init__(self, folder, seed, rows, durability="power", writers=3, settings=None, load_seconds=(0.05, 1.0)):
        self.server = Server(folder, settings={**SETTINGS, **(settings or {})}, durability=durability)
        self.random = random.Random(seed)
        self.load_seconds = load_seconds
        key_space = max(2 * rows, 300)
        self.writers = [Writer(n, writers, key_space, seed) for n in range(writers)]
        self.rows = rows
        self.totals = collections.Counter()
        self.restart_seconds = []

    def prepare(self):
        """Creates the collection and its base load."""
        self.server.start()
        wire = self.server.wire()
        proxima.accepted(wire.create_collection(declaration()))
        for writer in self.writers:
            mine = [key for key in range(self.rows) if writer.owns(key)]
            for start in range(0, len(mine), 1000):
                batch = mine[start:start + 1000]
                writer.journal.begin(dict.fromkeys(batch, 1))
                proxima.accepted(wire.write(request((proxima.INSERT, key, 1) for key in batch)))
                writer.journal.acknowledge()

    def cycle(self):
        """Load, kill, restart, check. Returns the verdict."""
        acks_before = sum(w.journal.acks for w in self.writers)
        threads = [threading.Thread(target=w.run, args=(self.server.wire(),)) for w in self.writers]
        for thread in threads:
            thread.start()
        # The moment of the kill is the experiment; nothing waits for a state of the server here.
        threading.Event().wait(self.random.uniform(*self.load_seconds))
        self.server.signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
        self.server.end()
        for writer in self.writers:
            if writer.fault is not None:
                raise writer.fault
        self.server.start()
        self.restart_seconds.append(self.server.ready_seconds)
        verdict = self.check()
        self.totals["cycles"] += 1
        self.totals["acks"] += sum(w.journal.acks for w in self.writers) - acks_before
        return verdict

    def check(self):
        """Compares every row of the server with the journals, by query and, in samples, by key."""
        verdict = Verdict()
        rows = Rows(self.server)
        verdict.half += rows.halves()
        verdict.repeated += rows.repeated()
        found = rows.version_of
        self.check_by_key(found, verdict)
        self.check_graph(found, verdict)
        for writer in self.writers:
            writer.journal.judge({k: v for k, v in found.items() if writer.owns(k)}, verdict)
        self.totals.update(verdict.counts())
        self.totals["applied_in_flight"] += verdict.applied_in_flight
        self.totals["dropped_in_flight"] += verdict.dropped_in_flight
        self.totals["split_requests"] += verdict.split_requests
        return verdict

    def check_by_key(self, found, verdict):
        """get_document_by_key must tell the same as the query, for present and absent keys."""
        wire = self.server.wire()
        interesting = {key for w in self.writers for key in w.journal.in_flight}
        known = [key for w in self.writers for key in w.journal.last_version]
        interesting.update(self.random.sample(known, min(100, len(known))))
        for key in interesting:
            document_found = proxima.stored(wire, NAME, key)
            if (document_found is None) != (key not in found):
                verdict.half.append((key, "get and query disagree"))
            elif document_found is not None:
                values = proxima.forwards(document_found)
                version, again, text = document(key, found[key])[1]
                expected = {"version": ("int64_value", version), "key_again": ("int64_value", again),
                            "text": ("string_value", text)}
                if values != expected:
                    verdict.half.append((key, values))

    def check_graph(self, found, verdict):
        """A graph query returns only rows that exist, in the version that exists."""
        wire = self.server.wire()
        for key in self.random.sample(list(found), min(5, len(found))):
            (_, picture), _ = document(key, found[key])
            answer = proxima.accepted(wire.query(
                proxima.knn(NAME, picture, "picture", topk=20, dimension=DIMENSION)))
            for hit in answer.results[0].documents:
                version = found.get(hit.primary_key)
                if version is None or proxima.forwards(hit)["version"] != ("int64_value", version):
                    verdict.undone.append((hit.primary_key, "found by the graph only"))
                elif hit.primary_key == key and hit.score != 0.0:
                    verdict.half.append((key, hit.score))

    def finish(self):
        """Stops gracefully, verifies the folder offline, and sums up."""
        rows = sum(len(w.journal.acknowledged) for w in self.writers)
        code = self.server.stop()
        verified = run_voisin("verify", self.server.data, timeout=600)
        times = sorted(self.restart_seconds) or [0.0]
        return {
            **self.totals, "rows_at_end": rows, "stop_exit_code": code, "verify_exit_code": verified.returncode,
            "restart_seconds_p50": round(times[len(times) // 2], 3), "restart_seconds_max": round(times[-1], 3),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--rows", type=int, default=100_000, help="rows written before the first kill")
    parser.add_argument("--seed", type=int, default=None, help="repeats a campaign (the timing still varies)")
    parser.add_argument("--durability", choices=["process", "power"], default="power")
    parser.add_argument("--folder", type=pathlib.Path, default=None, help="data folder; kept when given")
    parser.add_argument("--seal-rows", type=int, default=2_000, help="segment.seal_rows_max")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**32)
    print(f"seed {seed}", flush=True)
    # Ended from outside, the campaign still ends the server it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    settings = {"segment.seal_rows_max": arguments.seal_rows, "segment.segments_max": 128,
                "storage.log_file_bytes": 4 << 20}
    with tempfile.TemporaryDirectory(prefix="voisin-kill9-") as temporary:
        folder = arguments.folder or pathlib.Path(temporary) / "data"
        campaign = Campaign(folder, seed, arguments.rows, arguments.durability, settings=settings)
        began = time.monotonic()
        try:
            campaign.prepare()
            print(f"base load of {arguments.rows} rows took {time.monotonic() - began:.1f} s", flush=True)
            for number in range(1, arguments.cycles + 1):
                verdict = campaign.cycle()
                if number % 10 == 0 or not verdict.is_clean:
                    print(f"cycle {number}: {dict(campaign.totals)} restart {campaign.restart_seconds[-1]:.2f} s",
                          flush=True)
                if not verdict.is_clean:
                    print(f"first faults: {verdict}"[:4000], flush=True)
                    print(campaign.server.tail(), flush=True)
                    break
            summary = campaign.finish()
        finally:
            campaign.server.kill()
    print(json.dumps({"seed": seed, "seconds": round(time.monotonic() - began, 1), **summary}))
    clean = not any(summary.get(k) for k in ("lost", "undone", "half", "foreign", "repeated"))
    return 0 if clean and summary["verify_exit_code"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
