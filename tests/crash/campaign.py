"""kill -9 at random moments under mixed load, again and again, with a check of every row after each restart.

    python tests/crash/campaign.py --cycles 200 --rows 100000
"""

import argparse
import collections
import json
import pathlib
import random
import sys
import tempfile
import threading
import time

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import proxima  # noqa: E402
from journal import ABSENT, Found, Journal, Verdict, fingerprint  # noqa: E402
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
    state = proxima.pack(proxima.FP32, [mark, version, key % 4096] + [0] * (DIMENSION - 3))
    spread = random.Random(key * 1_000_003 + version)
    picture = proxima.pack(proxima.FP32, [spread.random() for _ in range(DIMENSION)])
    values = [version, key, f"{key}:{version}" + "." * (version % 50)]
    return (state, picture), values


def declaration():
    return proxima.collection(
        NAME, proxima.column("state", DIMENSION, params={"metric_type": "InnerProduct"}),
        proxima.column("picture", DIMENSION), forward_names=FORWARD_NAMES)


def request(rows):
    return proxima.writing(NAME, *rows, metas=METAS, forward_names=FORWARD_NAMES)


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
                rows.append(proxima.delete(key))
                continue
            version = self.journal.next_version(key)
            vectors, values = document(key, version)
            make = proxima.update if is_there else proxima.insert
            changes[key] = version
            rows.append(make(key, *vectors, values=values))
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


def every_row(server):
    """All rows the server has, by one exact inner-product query; keys met twice come apart."""
    call = server.channel().unary_unary("/proxima.be.proto.ProximaService/query")
    message = proxima.knn(
        NAME, EVERY_ROW, "state", topk=1_000_000, dimension=DIMENSION, is_linear=True).SerializeToString()
    rows, repeated = {}, []
    for row in parse_rows(call(message, timeout=120)):
        if row.key in rows:
            repeated.append(row.key)
        rows[row.key] = row
    return rows, repeated


def parse_rows(raw):
    """The documents of a query answer with one result, read by hand: the pure Python protobuf runtime
    takes longer over 100,000 rows than the server over a restart."""
    view = memoryview(raw)
    for field, body in fields(view, 0, len(view)):
        if field == 1:
            for status_field, value in fields(view, *body):
                if status_field == 1 and value:
                    raise AssertionError(f"the query for every row was refused: {bytes(raw[:200])}")
        elif field == 4:
            for result_field, span in fields(view, *body):
                if result_field == 1:
                    yield parse_document(view, span)


def parse_document(view, span):
    key, score, values = 0, 0.0, {}
    for field, value in fields(view, *span):
        if field == 1:
            key = value
        elif field == 2:
            score = value
        elif field == 3:
            name = None
            for pair_field, inner in fields(view, *value):
                if pair_field == 1:
                    name = bytes(view[inner[0]:inner[1]])
                else:
                    values[name] = next((v for _, v in fields(view, *inner)), None)
    return Found(key, score, values.get(b"version"), values.get(b"key_again"))


def fields(view, at, end):
    """(field number, value) of each protobuf field: numbers as they are, lengths as (start, end)."""
    import struct

    while at < end:
        tag, at = varint(view, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(view, at)
        elif kind == 2:
            length, at = varint(view, at)
            value, at = (at, at + length), at + length
        elif kind == 5:
            value, at = struct.unpack_from("<f", view, at)[0], at + 4
        elif kind == 1:
            value, at = struct.unpack_from("<d", view, at)[0], at + 8
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def varint(view, at):
    value = view[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    shift = 7
    while True:
        byte = view[at]
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
                batch = {key: 1 for key in mine[start:start + 1000]}
                writer.journal.begin(batch)
                rows = []
                for key in batch:
                    vectors, values = document(key, 1)
                    rows.append(proxima.insert(key, *vectors, values=values))
                proxima.accepted(wire.write(request(rows)))
                writer.journal.acknowledge()

    def cycle(self):
        """Load, kill, restart, check. Returns the verdict."""
        acks_before = sum(w.journal.acks for w in self.writers)
        threads = [threading.Thread(target=w.run, args=(self.server.wire(),)) for w in self.writers]
        for thread in threads:
            thread.start()
        # The moment of the kill is the experiment; nothing waits for a state of the server here.
        threading.Event().wait(self.random.uniform(*self.load_seconds))
        self.server.kill_now()
        for thread in threads:
            thread.join()
        self.server.kill()
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
        found, verdict.repeated = every_row(self.server)
        self.check_by_key(found, verdict)
        self.check_graph(found, verdict)
        for writer in self.writers:
            mine = {key: row for key, row in found.items() if writer.owns(key)}
            writer.journal.judge(mine, verdict)
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
                if values["version"] != ("int64_value", found[key].version):
                    verdict.half.append((key, values))
                elif not values["text"][1].startswith(f"{key}:{found[key].version}"):
                    verdict.half.append((key, values))

    def check_graph(self, found, verdict):
        """A graph query returns only rows that exist, in the version that exists."""
        wire = self.server.wire()
        for key in self.random.sample(sorted(found), min(5, len(found))):
            (_, picture), _ = document(key, found[key].version)
            answer = proxima.accepted(wire.query(
                proxima.knn(NAME, picture, "picture", topk=20, dimension=DIMENSION)))
            for hit in answer.results[0].documents:
                row = found.get(hit.primary_key)
                if row is None or proxima.forwards(hit)["version"] != ("int64_value", row.version):
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
