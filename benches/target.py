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


def wait_until_built(client, name):
    """Waits until no segment is being sealed or merged, and returns the statistics and the seconds it took."""
    began = time.monotonic()
    pause = threading.Event()
    while True:
        status, stats = client.stats_collection(name)
        if not status.ok():
            raise SystemExit(f"stats_collection: {status}")
        busy = [s for s in stats.segment_stats[:-1] if s.state.name != "PERSIST"]
        if not busy:
            return stats, time.monotonic() - began
        if time.monotonic() - began > BUILD_SECONDS_MAX:
            raise SystemExit(f"segments still busy after {BUILD_SECONDS_MAX} s: {busy}")
        pause.wait(0.2)
