"""The notebook, executed from its first cell to its last."""

import pathlib
import sys

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "pictures"))

from drawing import jpeg, scene  # noqa: E402
from voisin_v1 import VoisinV1  # noqa: E402


def test_the_notebook_finds_pictures_and_shows_them(server, tmp_path, monkeypatch):
    for seed in range(12):
        (tmp_path / f"{seed:02}.jpg").write_bytes(jpeg(scene(seed)))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.setenv("VOISIN_SERVER", server.grpc)
    monkeypatch.setenv("VOISIN_PICTURES", str(tmp_path))
    notebook = nbformat.read(ROOT / "client" / "notebooks" / "image_search.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "12 pictures are searchable" in said and "broken.png" in said
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(shown) == 3
    names = [info.name for info in VoisinV1(server.channel()).ListCollections().collections]
    assert "notebook" not in names
