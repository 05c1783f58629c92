"""What the tests of `voisin import` and `voisin export` share: running them, and reading rows back."""

import asyncio
import contextlib
import json
import subprocess
import threading

import numpy as np

from proxima import FP32, accepted, forwards, knn, named
from server import binary, environment, run_voisin

ROWS_MAX = 1_000_000


def import_files(server, name, *args, **how):
    """Runs an import to its end."""
    return run_voisin("import", *args, "--collection", name, "--server", server.grpc, **how)


def export_file(server, name, out, *args, **how):
    """Runs an export to its end."""
    return run_voisin("export", "--collection", name, "--out", out, "--server", server.grpc, *args, **how)


def begin_import(server, name, *args):
    """Begins an import in a process of its own."""
    command = [binary(), "import", *map(str, args), "--collection", name, "--server", server.grpc]
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment({}))


def done(ran):
    """Asserts that a command succeeded, and gives its words."""
    assert ran.returncode == 0, f"{ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def failed(ran, code, *words):
    """Asserts the exit code of a command that failed, and words that it says."""
    assert ran.returncode == code, f"{ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    for word in words:
        assert word in ran.stderr, f"{word!r} is not in\n{ran.stderr}"
    assert "panicked" not in ran.stderr, ran.stderr
    return ran.stderr


def all_rows(server, name, column, probe, data_type=FP32):
    """All rows by key: the exact score from a probe vector, and the forward values with their kinds."""
    request = knn(
        name, np.asarray(probe, np.float32).tobytes(), column_name=column, topk=ROWS_MAX, batch_count=1,
        dimension=len(probe), data_type=data_type, is_linear=True)
    answer = accepted(server.wire().query(request))
    documents = answer.results[0].documents
    rows = {d.primary_key: (d.score, forwards(d)) for d in documents}
    assert len(rows) == len(documents)
    return rows


def description(server, name):
    """The columns of a collection, as it is described."""
    config = accepted(server.wire().describe_collection(named(name))).collection.config
    vectors = {
        c.column_name: (c.data_type, c.dimension, {p.key: p.value for p in c.extra_params})
        for c in config.index_column_params}
    return vectors, list(config.forward_column_names)


def squares(vectors, probe):
    """Squared distances, as the server scores them."""
    return ((np.asarray(vectors, np.float64) - np.asarray(probe, np.float64)) ** 2).sum(axis=1)


def state_of(path):
    """How far an import is, by the file that it keeps beside the first file."""
    try:
        return json.loads((path.parent / (path.name + ".voisin-import")).read_text())["standing"]
    except (OSError, ValueError):
        return {"acknowledged": 0, "is_finished": False}


@contextlib.contextmanager
def far_away(address, seconds):
    """The address of a server that is as many seconds away, in each direction."""
    host, port = address.rsplit(":", 1)
    ready, way = threading.Event(), {}

    async def carry(reader, writer):
        while data := await reader.read(65_536):
            way["loop"].call_later(seconds, writer.write, data)
        way["loop"].call_later(seconds, writer.close)

    async def meet(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(OSError):
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    async def stand():
        between = await asyncio.start_server(meet, "127.0.0.1", 0)
        way.update(loop=asyncio.get_running_loop(), stop=asyncio.Event(), port=between.sockets[0].getsockname()[1])
        ready.set()
        await way["stop"].wait()
        between.close()

    thread = threading.Thread(target=lambda: asyncio.run(stand()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield f"127.0.0.1:{way['port']}"
    finally:
        way["loop"].call_soon_threadsafe(way["stop"].set)
        thread.join(10)
