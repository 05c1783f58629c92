"""Words for calls of the JSON API: one connection, JSON in, status and JSON out."""

import http.client
import json

#: The index columns of most collections here.
VECTORS = [{"name": "v", "element": "FP32", "dimension": 2}]


class Api:
    """The calls of one server, over one connection that is kept."""

    def __init__(self, server):
        self._connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)

    def __call__(self, method, path, body=None, headers=None):
        """Status and JSON of the answer; paths begin below /api/v1."""
        if headers is None:
            headers = {"content-type": "application/json"} if body is not None else {}
        text = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        self._connection.request(method, "/api/v1" + path, text, headers)
        answer = self._connection.getresponse()
        self.headers, raw = answer.headers, answer.read()
        if answer.status == 204:
            assert raw == b""
            return 204, None
        assert answer.headers["content-type"] == "application/json", raw
        return answer.status, json.loads(raw)

    def ok(self, method, path, body=None, status=200):
        """The JSON of an answer that must have this status."""
        got, answer = self(method, path, body)
        assert got == status, answer
        return answer

    def refused(self, status, code, method, path, body=None, *words, **how):
        """Asserts a refusal with its status, its code and words in its message."""
        got, answer = self(method, path, body, **how)
        assert (got, answer["error"]["code"]) == (status, code), answer
        assert set(answer) == {"error"} and set(answer["error"]) == {"code", "message"}
        for word in words:
            assert str(word) in answer["error"]["message"], answer

    def close(self):
        self._connection.close()
