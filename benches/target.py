"""The server a measurement talks to: one that runs already, or a release build started for the occasion."""

import contextlib
import os
import pathlib
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

BUILD_SECONDS_MAX = 600.0


def add_arguments(parser):
    parser.add_argument("--server", metavar="HOST:PORT", help="a running server; one is started when left out")
    parser.add_argument("--durability", choices=["process", "power"], default="power")
    parser.add_argument("--folder", type=pathlib.Path, help="data folder of the started server (default: temporary)")
    parser.add_argument("--settle", type=float, default=10.0, metavar="SECONDS",
                        help="rest without any change of segments before measuring")


@contextlib.contextmanager
def serving(arguments):
    """HOST:PORT of the server to measure."""
    if arguments.server:
        yield arguments.server
        return
    os.environ.setdefault("VOISIN_BIN", str(ROOT / "target" / "release" / "voisin"))
    from server import Server

    with tempfile.TemporaryDirectory(prefix="voisin-bench-") as temporary:
        own = Server(arguments.folder or pathlib.Path(temporary) / "data", durability=arguments.durability).start()
        try:
            yield own.grpc
        except BaseException:
            print(own.tail(), file=sys.stderr)
            raise
        finally:
            own.stop()


def wait_until_built(client, name, settle_seconds):
    """Waits until no segment is being sealed or merged, and none has changed for `settle_seconds`: the
    server also seals a segment that is not full once nobody writes to it. Returns the statistics and how
    long the building took."""
    began = changed = time.monotonic()
    pause = threading.Event()
    before = None
    while True:
        status, stats = client.stats_collection(name)
        if not status.ok():
            raise SystemExit(f"stats_collection: {status}")
        now = [(s.segment_id, s.state, s.doc_count, s.index_file_size) for s in stats.segment_stats]
        if now != before:
            before, changed = now, time.monotonic()
        is_busy = any(s.state.name != "PERSIST" for s in stats.segment_stats[:-1])
        if not is_busy and time.monotonic() - changed >= settle_seconds:
            return stats, changed - began
        if time.monotonic() - began > BUILD_SECONDS_MAX:
            raise SystemExit(f"segments still busy after {BUILD_SECONDS_MAX} s: {now}")
        pause.wait(0.2)
