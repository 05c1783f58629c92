"""A voisin process under test: start, stop, kill, restart, and the clients that talk to it.

Nothing here sleeps: a start waits for the server's own ready line, a stop for the process's end, both
with a bound. Only processes started here are ever signalled, by their own id.
"""

import atexit
import collections
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

import grpc
import requests
import urllib.parse
from google.protobuf import json_format
from pyproximabe import AsyncClient, Client
from pyproximabe.core.handlers import HttpHandler
from pyproximabe.core.types import ProximaBeException, common_pb2, proxima_be_pb2 as be, proxima_be_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 60.0
#: The ways a stock client can speak to the server.
HANDLERS = ("grpc", "http")
#: What a call raises that got no answer. ValueError: the channel was closed under it.
NO_ANSWER = (grpc.RpcError, requests.RequestException, ProximaBeException, ValueError)


def binary():
    """The program under test: VOISIN_BIN, or the debug build of this checkout."""
    return os.environ.get("VOISIN_BIN", str(ROOT / "target" / "debug" / "voisin"))


def environment(settings):
    """The caller's environment without its own voisin settings, plus `settings` (dotted names)."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("VOISIN__")}
    for key, value in settings.items():
        env["VOISIN__" + key.upper().replace(".", "__")] = str(value)
    return env


class StartFailed(AssertionError):
    """The process ended, or stayed silent, before it was ready."""


class Wire:
    """The calls without the SDK in between: a message in, a message out, never without a deadline."""

    def __init__(self, channel):
        self._stub = proxima_be_pb2_grpc.ProximaServiceStub(channel)

    def __getattr__(self, rpc):
        call = getattr(self._stub, rpc)
        return lambda request: call(request, timeout=CALL_SECONDS_MAX)

    def with_detail(self, rpc, request):
        """The answer, and the full words that a refusal carries beside it."""
        answer, call = getattr(self._stub, rpc).with_call(request, timeout=CALL_SECONDS_MAX)
        metadata = dict([*call.initial_metadata(), *call.trailing_metadata()])
        return answer, urllib.parse.unquote(metadata.get("voisin-detail", ""))


class HttpWire:
    """The same calls over HTTP, as the stock client's HTTP handler sends them and reads what comes back:
    its routes, its form of JSON, and the strict parser that fails on anything unknown.
    """

    def __init__(self, host, port):
        self._base = f"http://{host}:{port}"
        # A session serves one thread.
        self._own = threading.local()

    def _send(self, method, path, body=None):
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
        text = None if body is None else json_format.MessageToJson(body)
        answer = self._own.session.request(
            method=method, url=self._base + path, data=text, timeout=CALL_SECONDS_MAX)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/json"
        return answer

    def _call(self, rpc, request):
        name = getattr(request, "collection_name", "")
        collection = HttpHandler._MANAGE_COLLECTION_URL + name
        send, answer = {
            "get_version": (("GET", HttpHandler._VERSION_URL), be.GetVersionResponse),
            "create_collection": (("POST", collection, request), common_pb2.Status),
            "drop_collection": (("DELETE", collection), common_pb2.Status),
            "describe_collection": (("GET", collection), be.DescribeCollectionResponse),
            "stats_collection": (("GET", HttpHandler._STATS_COLLECTION_URL % name), be.StatsCollectionResponse),
            "list_collections": (
                ("GET", f"{HttpHandler._LIST_COLLECTIONS_URL}?repository={getattr(request, 'repository_name', '')}",
                 request), be.ListCollectionsResponse),
            "write": (("POST", HttpHandler._WRITE_URL % name, request), common_pb2.Status),
            "query": (("POST", HttpHandler._QUERY_URL % name, request), be.QueryResponse),
            "get_document_by_key": (
                ("GET", HttpHandler._GET_DOCUMENT_BY_KEY_URL % (name, getattr(request, "primary_key", 0))),
                be.GetDocumentResponse),
        }[rpc]
        sent = self._send(*send)
        return json_format.Parse(sent.text, answer()), sent

    def __getattr__(self, rpc):
        return lambda request: self._call(rpc, request)[0]

    def with_detail(self, rpc, request):
        """The answer, and the full words that a refusal carries beside it."""
        answer, sent = self._call(rpc, request)
        return answer, urllib.parse.unquote(sent.headers.get("voisin-detail", ""))


class Server:
    """One data folder and, while started, the process that serves it."""

    #: The handler of clients and bare calls; the tests of the wire run with each.
    handler = "grpc"

    def __init__(self, data, settings=None, durability="process", args=(), log_lines_kept=4000):
        self.data = pathlib.Path(data)
        self.settings = dict(settings or {})
        self.durability = durability
        self.args = list(args)
        self.grpc = self.http = None
        self.ready_seconds = None
        self._process = None
        self._channel = None
        self._clients = []
        self._log = collections.deque(maxlen=log_lines_kept)

    # ----- life -----

    def start(self, grpc_address="127.0.0.1:0", http_address="127.0.0.1:0"):
        """Starts the process and returns once it has said that it is ready."""
        assert self._process is None, "the server runs already"
        began = time.monotonic()
        command = [
            binary(), "serve", "--data", str(self.data), "--grpc", grpc_address,
            "--http", http_address, "--log-format", "json", "--durability", self.durability, *self.args,
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, errors="replace", env=environment(self.settings))
        self._log.append(f"--- {' '.join(command)} (pid {self._process.pid})")
        # A fixture that fails half way has nobody else to end what it started.
        atexit.register(self.kill)
        said = threading.Event()
        ready = {}
        self._reader = threading.Thread(
            target=self._read_log, args=(self._process.stderr, ready, said), daemon=True)
        self._reader.start()
        in_time = said.wait(START_SECONDS_MAX)
        if not ready:
            was_running = self._process.poll() is None
            self.kill()
            why = "said nothing of being ready in time" if was_running and not in_time else "ended"
            raise StartFailed(f"the server {why}; its log ends:\n{self.tail()}")
        self.ready_seconds = time.monotonic() - began
        self.grpc, self.http = ready["grpc"], ready["http"]
        return self

    def _read_log(self, stream, ready, said):
        for line in stream:
            self._log.append(line.rstrip("\n"))
            if not ready:
                fields = log_fields(line)
                if fields.get("message") == "ready":
                    ready.update(grpc=fields["grpc"], http=fields["http"])
                    said.set()
        stream.close()
        said.set()

    def stop(self):
        """Asks the process to stop (SIGTERM) and returns its exit code."""
        return self.end(signal.SIGTERM)

    def kill(self):
        """Ends the process at once (SIGKILL), as a crash would."""
        return self.end(signal.SIGKILL)

    def signal(self, how):
        """Sends one signal without waiting or tidying up: for use while other threads make calls."""
        self._process.send_signal(how)

    def end(self, how=None):
        """Sends a signal, unless it was sent already, and returns the exit code."""
        process, self._process = self._process, None
        atexit.unregister(self.kill)
        if process is None:
            return None
        # Clients go first: a graceful stop waits for calls in progress, not for open channels.
        self._close_clients()
        if how is not None and process.poll() is None:
            process.send_signal(how)
        try:
            code = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._log.append(f"--- did not stop within {STOP_SECONDS_MAX} s, killed")
            code = None
        self._reader.join(STOP_SECONDS_MAX)
        self._log.append(f"--- exit code {code}")
        return code

    def restart(self, how="stop"):
        """Ends the process (`stop` or `kill`) and starts it again on the same folder."""
        code = getattr(self, how)()
        if how == "stop":
            assert code == 0, f"a graceful stop must exit with 0, not {code}"
        return self.start()

    @property
    def is_running(self):
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self):
        return self._process.pid

    # ----- talking to it -----

    @property
    def host(self):
        return self.grpc.rsplit(":", 1)[0]

    @property
    def port(self):
        return int(self.grpc.rsplit(":", 1)[1])

    @property
    def http_port(self):
        return int(self.http.rsplit(":", 1)[1])

    def client(self, timeout=CALL_SECONDS_MAX):
        """A stock pyproximabe client."""
        port = {"grpc": self.port, "http": self.http_port}[self.handler]
        client = Client(self.host, port, handler=self.handler, timeout=timeout)
        self._clients.append(client)
        return client

    def async_client(self, timeout=CALL_SECONDS_MAX):
        """A stock asynchronous client; the test closes it."""
        return AsyncClient(self.host, self.port, timeout=timeout)

    def channel(self):
        """One plain channel, with grpc's own 4 MiB receive limit lifted."""
        if self._channel is None:
            options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
            self._channel = grpc.insecure_channel(self.grpc, options=options)
        return self._channel

    def wire(self):
        """The nine calls as bare messages."""
        return Wire(self.channel()) if self.handler == "grpc" else HttpWire(self.host, self.http_port)

    def _close_clients(self):
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    # ----- its words -----

    def tail(self, lines=40):
        """The end of the log, for a failing test."""
        return "\n".join(list(self._log)[-lines:])

    def log_text(self):
        return "\n".join(self._log)


def log_fields(line):
    """The `fields` of a JSON log line, or nothing when it is not one."""
    try:
        return json.loads(line).get("fields", {})
    except (ValueError, AttributeError):
        return {}


def run_voisin(*args, settings=None, timeout=60.0):
    """Runs a voisin command to its end and returns it with its exit code and words."""
    return subprocess.run(
        [binary(), *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", timeout=timeout, env=environment(settings or {}))


def eventually(check, within, what):
    """Calls `check` until it returns something true, and returns that; fails after `within` seconds.

    `what` says what was waited for; a function of no arguments is asked only on failure.
    """
    deadline = time.monotonic() + within
    pause = threading.Event()
    while True:
        outcome = check()
        if outcome:
            return outcome
        late = time.monotonic() >= deadline
        assert not late, f"not within {within} s: {what() if callable(what) else what}"
        pause.wait(0.02)
