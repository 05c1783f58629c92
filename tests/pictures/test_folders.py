"""`voisin index` and `voisin search`: a folder of pictures and what is found in it."""

import json
import os
import re
import signal
import subprocess

import pytest

from drawing import edits, encoded, jpeg, scene
from server import binary, environment, eventually, run_voisin


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures in several formats, in folders of its own."""
    root = tmp_path / "photos"
    (root / "trips" / "sea").mkdir(parents=True)
    forms = ["a.jpg", "b.PNG", "trips/c.webp", "trips/sea/d.gif", "trips/sea/e.bmp", "trips/f.tiff"]
    for seed, path in enumerate(forms):
        form = {"jpg": "JPEG", "tiff": "TIFF"}.get(path.rsplit(".")[-1], path.rsplit(".")[-1].upper())
        (root / path).write_bytes(encoded(scene(seed), form))
    (root / "notes.txt").write_text("no picture")
    return root


@pytest.fixture
def index(server, name):
    def run(folder, *args, **how):
        return run_voisin("index", folder, "--collection", name, "--server", server.grpc, *args, **how)

    return run


def counts(ran):
    """Written, unchanged, removed and failed, as the last words tell."""
    assert ran.returncode == 0, ran.stderr
    number = lambda pattern: int((re.search(pattern, ran.stdout) or [0, "0"])[1].replace(",", ""))
    return (number(r"indexed ([\d,]+)"), number(r"([\d,]+) had not changed"), number(r"([\d,]+) were gone"),
            number(r"([\d,]+) could not be indexed"))


def search(server, name, image, *args):
    ran = run_voisin("search", image, "--collection", name, "--server", server.grpc, "--json", *args)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_folder_is_indexed_once_and_follows_its_changes(server, name, index, folder):
    assert counts(index(folder)) == (6, 0, 0, 0)
    for file in sorted(folder.rglob("*.*")):
        if file.suffix != ".txt":
            first = search(server, name, file, "-k", "1")["hits"][0]
            assert (first["path"], first["score"] < 1e-6) == (str(file), True)
    assert counts(index(folder)) == (0, 6, 0, 0)
    (folder / "b.PNG").unlink()
    (folder / "trips" / "c.webp").write_bytes(encoded(scene(33), "WEBP"))
    (folder / "new.jpg").write_bytes(jpeg(scene(44)))
    assert counts(index(folder)) == (2, 4, 0, 0)
    assert len(search(server, name, folder / "a.jpg", "-k", "99")["hits"]) == 7
    assert counts(index(folder, "--sync")) == (0, 6, 1, 0)
    assert len(search(server, name, folder / "a.jpg", "-k", "99")["hits"]) == 6
    first = search(server, name, folder / "trips" / "c.webp")["hits"][0]
    assert first["path"].endswith("trips/c.webp") and first["score"] < 1e-6
    assert counts(index(folder, "--all")) == (6, 0, 0, 0)


def test_two_folders_do_not_disturb_each_other(server, name, index, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(jpeg(scene(77)))
    assert counts(index(folder)) == (6, 0, 0, 0)
    assert counts(index(other, "--sync")) == (1, 0, 0, 0)
    assert len(search(server, name, other / "a.jpg", "-k", "99")["hits"]) == 7


def test_globs_choose_and_links_lead_nowhere_unasked(index, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(jpeg(scene(9)))
    os.symlink(outside, folder / "link")
    os.symlink(folder, folder / "trips" / "circle")
    assert counts(index(folder, "--glob", "*.jpg", "--glob", "trips/*")) == (3, 0, 0, 0)
    assert counts(index(folder, "--exclude", "trips/**")) == (1, 1, 0, 0)
    written, _, _, failed = counts(index(folder, "--follow"))
    assert (written, failed) == (3, 1)


def test_only_rows_whose_files_are_gone_are_deleted(index, folder):
    """What a run does not look for is not gone: files that a glob leaves out, links that are not followed, a folder
    that is not there for the moment."""
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside" / "o.jpg").write_bytes(jpeg(scene(9)))
    os.symlink(folder.parent / "outside", folder / "link")
    assert counts(index(folder, "--follow"))[0] == 7
    assert counts(index(folder, "--glob", "*.jpg", "--sync")) == (0, 1, 0, 0)
    assert counts(index(folder, "--exclude", "trips/**", "--sync")) == (0, 2, 0, 0)
    assert counts(index(folder, "--sync")) == (0, 6, 0, 0)
    (folder / "trips" / "f.tiff").unlink()
    (folder / "link").unlink()
    assert counts(index(folder, "--sync")) == (0, 5, 2, 0)
    folder.rename(folder.parent / "away")
    folder.mkdir()
    ran = index(folder, "--sync")
    assert ran.returncode == 1 and "nothing is deleted" in ran.stderr and "5" in ran.stderr
    folder.rmdir()
    (folder.parent / "away").rename(folder)
    assert counts(index(folder, "--sync")) == (0, 5, 0, 0)


def test_a_folder_goes_by_its_name_where_it_has_one(server, name, index, folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes(jpeg(scene(77)))
    assert counts(index(folder, "--root-name", "card one")) == (6, 0, 0, 0)
    assert counts(index(other, "--root-name", "card two", "--sync")) == (1, 0, 0, 0)
    moved = folder.rename(tmp_path / "elsewhere")
    assert counts(index(moved, "--root-name", "card one", "--sync")) == (0, 6, 0, 0)
    assert search(server, name, moved / "a.jpg", "-k", "1")["hits"][0]["path"] == "card one/a.jpg"


def test_a_run_that_could_index_nothing_has_failed(index, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert counts(index(empty)) == (0, 0, 0, 0)
    (empty / "a.jpg").write_bytes(b"no picture")
    ran = index(empty)
    assert ran.returncode == 1 and "a.jpg" in ran.stderr


def test_signals_end_commands_whose_server_is_silent(start_server, folder):
    server = start_server()
    assert counts(run_voisin("index", folder, "--collection", "c", "--server", server.grpc))[0] == 6
    os.kill(server.pid, signal.SIGSTOP)
    try:
        for command, number, code in [(["search", folder / "a.jpg"], signal.SIGINT, 130), (["index", folder], signal.SIGTERM, 143)]:
            command = [binary(), *map(str, command), "--collection", "c", "--server", server.grpc]
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment({}))
            eventually(lambda: f"{1 << signal.SIGINT - 1:x}"[-1] in caught(running.pid), 60, "no handler of signals")
            running.send_signal(number)
            assert running.wait(60) == code
    finally:
        os.kill(server.pid, signal.SIGCONT)


def caught(pid):
    """The last digit of the signals that a process handles: SIGINT is its second bit."""
    with open(f"/proc/{pid}/status") as status:
        return [line.split()[1] for line in status if line.startswith("SigCgt")][0][-1].replace("3", "2").replace("6", "2").replace("7", "2")


def test_files_that_cannot_be_read_are_told_at_the_end(index, folder):
    good = (folder / "a.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.gif").write_text("text")
    ran = index(folder)
    assert counts(ran) == (6, 0, 0, 3)
    for name in ("cut.jpg", "empty.png", "text.gif"):
        assert re.search(rf"^  {name}: .+", ran.stdout, re.M), ran.stdout


def test_an_index_that_was_killed_goes_on(server, name, calls, folder):
    many = folder / "many"
    many.mkdir()
    large = jpeg(scene(1, 1600, 1200))
    for number in range(200):
        (many / f"{number:03}.jpg").write_bytes(large)
    command = [binary(), "index", str(folder), "--collection", name, "--server", server.grpc]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment({}))

    def rows():
        known = [info.name for info in calls.ListCollections().collections]
        return calls.Count(collection=name).rows if name in known else 0

    eventually(lambda: rows() or running.poll() is not None, 60, "no picture was written")
    running.kill()
    running.communicate()
    before = eventually(rows, 60, "nothing was written before the kill")
    written, unchanged, _, _ = counts(
        run_voisin("index", folder, "--collection", name, "--server", server.grpc))
    assert (written + unchanged, rows()) == (206, 206) and unchanged >= before > 0


def test_a_page_shows_what_was_found(server, name, index, folder, tmp_path):
    index(folder)
    query, page = tmp_path / "query.png", tmp_path / "sheet.html"
    query.write_bytes(edits(scene(0))["half the size"])
    ran = run_voisin("search", query, "--collection", name, "--server", server.grpc, "-k", "3", "--html", page)
    assert ran.returncode == 0 and str(page) in ran.stdout
    lines = ran.stdout.splitlines()
    assert lines[0].split() == ["score", "picture"] and lines[1].endswith("a.jpg")
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 3 and text.count("data:image/png;base64,") == 1
    assert "a.jpg" in text and "http:" not in text and "https:" not in text


def test_commands_say_what_cannot_be_done(server, name, index, folder, tmp_path):
    missing = index(tmp_path / "missing")
    assert missing.returncode == 2 and "missing" in missing.stderr
    assert index(folder / "a.jpg").returncode == 2
    assert index(folder, "--glob", "[").returncode == 2
    unknown = index(folder, "--model", "nothing")
    assert unknown.returncode == 1 and "nothing" in unknown.stderr and "holistic" in unknown.stderr
    none = run_voisin("search", folder / "a.jpg", "--collection", "nothing", "--server", server.grpc)
    assert none.returncode == 2 and "nothing" in none.stderr
    counts(index(folder))
    other = index(folder, "--model", "other")
    assert other.returncode == 2 and "holistic" in other.stderr
    bad = run_voisin("search", folder / "notes.txt", "--collection", name, "--server", server.grpc)
    assert bad.returncode == 1 and "notes.txt" in bad.stderr and "JPEG, PNG" in bad.stderr
    client = server.client()
    client.drop_collection(name)
    client.close()
    away = run_voisin("index", folder, "--collection", name, "--server", "127.0.0.1:1", "--patience", "0")
    assert away.returncode == 1 and "127.0.0.1:1" in away.stderr
