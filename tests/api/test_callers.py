"""Who may call over HTTP: programs and the server's own page, and no page of another site."""

import http.client
import json
import re

import pytest

BOUNDARY = {"content-type": "multipart/form-data; boundary=x"}
ELSEWHERE = [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://elsewhere.example"},
             {"origin": "null"}]


def sent(server, method, path, body=None, **headers):
    connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
    connection.request(method, path, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    words = answer.read().decode()
    connection.close()
    return answer.status, words


@pytest.mark.parametrize("headers", ELSEWHERE, ids=lambda headers: "=".join(*headers.items()))
def test_pages_of_other_sites_change_nothing(server, name, headers):
    config = json.dumps({"index_column_params": [{"column_name": "v", "data_type": "DT_VECTOR_FP32",
                                                   "dimension": 2, "index_type": 1}], "forward_column_names": ["a"]})
    create = lambda **how: sent(server, "POST", f"/v1/collection/{name}", config, content_type="text/plain", **how)
    foreign = {key.replace("-", "_"): value for key, value in headers.items()}
    status, words = create(**foreign)
    assert status == 403 and "another site" in words and "X-Voisin" in words
    assert name not in sent(server, "GET", "/v1/collections")[1]
    assert create()[0] == 200 and name in sent(server, "GET", "/v1/collections")[1]
    for method, path in [("DELETE", f"/v1/collection/{name}"), ("POST", f"/v1/collection/{name}/index"),
                         ("POST", f"/api/v1/collections/{name}/read"), ("POST", f"/api/v1/collections/{name}/rows/delete"),
                         ("DELETE", f"/api/v1/collections/{name}"), ("POST", "/api/v1/embed")]:
        assert sent(server, method, path, **foreign)[0] == 403, (method, path)
    assert sent(server, "GET", f"/api/v1/collections/{name}", **foreign)[0] == 200
    own = f"http://{server.host}:{server.http_port}"
    assert sent(server, "DELETE", f"/api/v1/collections/{name}", origin=own, sec_fetch_site="same-origin")[0] == 204


def test_a_server_of_this_machine_is_not_called_by_names_that_others_chose(server):
    for path in ("/api/v1/collections", "/v1/collections", "/metrics", "/console/", "/"):
        for host in ("evil.example", f"evil.example:{server.http_port}", "localhost.evil.example"):
            status, words = sent(server, "GET", path, host=host)
            assert status == 403 and "server.http_hosts" in words and "evil.example" in words
        for host in ("localhost", f"localhost:{server.http_port}", "127.0.0.1", "[::1]:16001"):
            assert sent(server, "GET", path, host=host)[0] == 200


def test_names_of_the_settings_are_taken(start_server):
    server = start_server(settings={"server.http_hosts": "photos.example.org, other"})
    assert sent(server, "GET", "/api/v1/collections", host="photos.example.org:443")[0] == 200
    assert sent(server, "GET", "/api/v1/collections", host="OTHER")[0] == 200
    assert sent(server, "GET", "/api/v1/collections", host="third")[0] == 403


def peak(server):
    """The most memory that the process had, in MiB."""
    with open(f"/proc/{server.pid}/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) >> 10


def test_forms_cost_no_more_memory_than_their_size_explains(start_server):
    server = start_server()
    part = lambda named, body: f'--x\r\nContent-Disposition: form-data; name="{named}"\r\n\r\n{body}\r\n'
    made = json.dumps({"vectors": [{"name": "v", "params": {"model": "holistic"}}], "forwards": [{"name": "a"}]})
    assert sent(server, "PUT", "/api/v1/collections/photos", made, content_type="application/json")[0] == 201
    before = peak(server)
    rows = ",".join(['{"key":1,"values":{"a":1}}'] * 1_200_000)
    body = part("request", f'{{"operation":"upsert","rows":[{rows}]}}') + "--x--\r\n"
    status, words = sent(server, "POST", "/api/v1/collections/photos/images", body, **BOUNDARY)
    assert status == 413 and "limits.write_rows_max" in words
    assert peak(server) - before < 400, "more than ten times the form"
    status, words = sent(server, "POST", "/api/v1/embed", part("url", "") * 65_537 + "--x--\r\n", **BOUNDARY)
    assert status == 400 and "65536 pictures" in words
