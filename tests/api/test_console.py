"""What is behind the web page: where it is, its files, and the pictures of rows."""

import base64
import http.client
import os

import pytest

from json_api import Api, VECTORS

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00" + bytes(range(256)) * 2000
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(24)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def got(server, path, method="GET", **headers):
    """Status, headers and bytes of an answer; redirects are not followed."""
    connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


# ----- the page -----


def test_browsers_get_the_page_and_programs_what_they_always_got(server):
    status, headers, body = got(server, "/")
    assert (status, headers["content-type"]) == (200, "application/json") and b'"name":"voisin"' in body
    assert got(server, "/", accept="*/*")[0] == got(server, "/", accept="application/json")[0] == 200
    for path in ("/", "/console"):
        status, headers, _ = got(server, path, accept=BROWSER)
        assert (status, headers["location"]) == (303, "console/")
    assert "accept" in got(server, "/", accept=BROWSER)[1]["vary"]
    status, headers, body = got(server, "/console/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8") and b"<title>Voisin</title>" in body


@pytest.mark.parametrize("name,kind", [("", "text/html"), ("style.css", "text/css"), ("main.js", "text/javascript"),
                                       ("theme.js", "text/javascript"), ("icon.svg", "image/svg+xml")])
def test_files_of_the_page_have_types_tags_and_a_policy(server, name, kind):
    status, headers, body = got(server, f"/console/{name}")
    assert status == 200 and headers["content-type"].startswith(kind) and body
    assert headers["cache-control"] == "no-cache" and headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy and "http" not in policy
    status, again, nothing = got(server, f"/console/{name}", if_none_match=headers["etag"])
    assert (status, again["etag"], nothing) == (304, headers["etag"], b"")
    assert got(server, f"/console/{name}", "HEAD")[2] == b""


def test_what_is_no_file_of_the_page_is_not_there(server):
    for path in ("/console/none.js", "/console/..%2f..%2fetc%2fpasswd", "/console/page/main.js", "/console/mod.rs", "/consol"):
        assert got(server, path)[0] == 404, path
    assert got(server, "/console/", "POST")[0] == 405


def test_the_page_can_be_switched_off(start_server):
    own = start_server(settings={"console.enabled": "false"})
    status, headers, _ = got(own, "/", accept=BROWSER)
    assert (status, headers["content-type"]) == (200, "application/json")
    for path in ("/console", "/console/", "/console/main.js", "/console/about.json", "/pictures/a/1"):
        assert got(own, path)[0] == 404, path


# ----- pictures -----


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A server with files below its picture root, and a collection whose rows the tests write."""
    from server import Server
    folder = tmp_path_factory.mktemp("pictures")
    root = folder / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a b.jpg").write_bytes(JPEG)
    (root / "text.jpg").write_text("password = secret")
    (folder / "secret.jpg").write_bytes(JPEG)
    os.symlink("../secret.jpg", root / "out.jpg")
    os.symlink("in", root / "within")
    os.mkfifo(root / "pipe.jpg")
    with open(root / "large.jpg", "wb") as large:
        large.write(JPEG)
        large.truncate((32 << 20) + 1)
    server = Server(folder / "data", settings={"console.picture_root": str(root)}).start()
    server.folder = folder
    api = Api(server)
    api.ok("PUT", "/collections/photos", {"vectors": VECTORS, "forwards": [{"name": "thumbnail"}, {"name": "image_path"}]}, 201)
    api.ok("PUT", "/collections/bare", {"vectors": VECTORS}, 201)
    api.ok("POST", "/collections/bare/rows", {"operation": "upsert", "rows": [{"key": 1, "vectors": {"v": [0, 0]}}]})
    api.close()
    yield server
    assert server.stop() == 0, server.tail()


def row(server, **values):
    """Writes the row that the tests look at."""
    api = Api(server)
    values = {name: {"bytes": base64.b64encode(value).decode()} if isinstance(value, bytes) else value for name, value in values.items()}
    api.ok("POST", "/collections/photos/rows", {"operation": "upsert", "rows": [{"key": (1 << 63) + 7, "vectors": {"v": [0, 0]}, "values": values}]})
    api.close()
    return f"/pictures/photos/{(1 << 63) + 7}"


@pytest.mark.parametrize("kind,data", [("image/png", PNG), ("image/jpeg", JPEG), ("image/webp", WEBP)])
def test_a_thumbnail_is_served_as_what_it_is(pictures, kind, data):
    at = row(pictures, thumbnail=data)
    status, headers, body = got(pictures, at)
    assert (status, headers["content-type"], body) == (200, kind, data)
    assert headers["x-content-type-options"] == "nosniff" and "sandbox" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert got(pictures, at, if_none_match=headers["etag"])[0] == 304
    at = row(pictures, thumbnail=data + b"!")
    assert got(pictures, at, if_none_match=headers["etag"])[0] == 200


def test_bytes_that_are_no_picture_are_not_served(pictures):
    for data in (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", b"<!doctype html>", b"\xff\xd8", b"GIF88a"):
        status, headers, body = got(pictures, row(pictures, thumbnail=data))
        assert (status, headers["content-type"]) == (404, "application/json") and data not in body


def test_a_row_without_a_picture_is_no_error(pictures):
    for values in ({"thumbnail": "text"}, {"thumbnail": b""}, {"image_path": 5}, {}):
        status, _, body = got(pictures, row(pictures, **values))
        assert (status, body) == (204, b"")
    assert got(pictures, "/pictures/bare/1")[0] == 204


def test_a_file_below_the_root_is_served_whole(pictures):
    for path in ("in/a b.jpg", "./in/a b.jpg", "within/a b.jpg"):
        at = row(pictures, image_path=path)
        status, headers, body = got(pictures, at)
        assert (status, headers["content-type"], int(headers["content-length"])) == (200, "image/jpeg", len(JPEG))
        assert body == JPEG
        assert got(pictures, at, if_none_match=headers["etag"])[0] == 304
        assert got(pictures, at, "HEAD")[2] == b""


def test_the_thumbnail_comes_first_and_the_file_in_full_size(pictures):
    at = row(pictures, thumbnail=PNG, image_path="in/a b.jpg")
    assert got(pictures, at)[2] == PNG
    assert got(pictures, f"{at}?size=full")[2] == JPEG
    at = row(pictures, thumbnail=PNG, image_path="gone.jpg")
    assert got(pictures, f"{at}?size=full")[2] == PNG, "better the small one than none"
    assert got(pictures, f"{at}?size=huge")[0] == got(pictures, f"{at}?sise=full")[0] == 400


def test_nothing_outside_the_root_is_served(pictures):
    outside = str(pictures.folder / "secret.jpg")
    for path, expected in (("../secret.jpg", 403), ("in/../../secret.jpg", 403), (outside, 403), ("/etc/passwd", 403), ("out.jpg", 403),
                           ("", 403), ("in/a b.jpg\0.png", 403), ("text.jpg", 404), ("in", 404), ("pipe.jpg", 404), ("none.jpg", 404),
                           ("large.jpg", 413), ("x" * 10_000, 404)):
        status, headers, body = got(pictures, row(pictures, image_path=path))
        assert (status, headers["content-type"]) == (expected, "application/json"), (path, status, body)
        assert JPEG[:20] not in body and b"secret\"" not in body
    assert pictures.is_running


def test_rows_collections_and_keys_that_are_not_there(pictures):
    for path, expected in (("/pictures/none/1", 404), ("/pictures/photos/1", 404), ("/pictures/photos/x", 400),
                           ("/pictures/photos/-1", 400), ("/pictures/photos/18446744073709551616", 400), ("/pictures/photos", 404)):
        assert got(pictures, path)[0] == expected, path


def test_without_a_root_no_file_is_served(server, api, made):
    name = made.removeprefix("/collections/")
    api.ok("PATCH", made, {"add_forwards": [{"name": "image_path"}]})
    api.ok("POST", f"{made}/rows", {"operation": "insert", "rows": [{"key": 1, "vectors": {"v": [0, 0]}, "values": {"image_path": "etc/passwd"}}]})
    status, _, body = got(server, f"/pictures/{name}/1")
    assert status == 404 and b"console.picture_root" in body


def test_a_root_that_is_not_there_is_refused_at_the_start(tmp_path):
    from server import run_voisin
    ran = run_voisin("serve", "--data", tmp_path / "data", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0",
                     settings={"console.picture_root": str(tmp_path / "none")})
    assert ran.returncode == 1 and "console.picture_root" in ran.stderr and not (tmp_path / "data").exists()
