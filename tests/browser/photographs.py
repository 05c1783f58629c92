"""Collections of drawn scenes, with vectors that are brought along."""

import base64

import requests

import scenes


def photographs(server, name, count=36, with_thumbnails=True, root=None):
    """Makes a collection of drawn scenes with brought vectors; returns names and vectors by key (text)."""
    at = f"http://{server.http}/api/v1/collections/{name}"
    forwards = [{"name": "image_path", "type": "string"}, {"name": "kind", "type": "string"}, {"name": "width", "type": "int64"}]
    if with_thumbnails:
        forwards.append({"name": "thumbnail", "type": "bytes"})
    vectors = [{"name": "colours", "element": "FP32", "dimension": 192, "metric": "SquaredEuclidean"}]
    requests.put(at, json={"vectors": vectors, "forwards": forwards}, timeout=60).raise_for_status()
    rows, known = [], {}
    for number in range(count):
        kind = scenes.KINDS[number % len(scenes.KINDS)]
        picture = scenes.draw(kind, number)
        # Beyond what a number of JavaScript can hold.
        key, path = str((1 << 62) + number), f"{kind}/{kind}-{number:02}.jpg"
        values = {"image_path": path, "kind": kind, "width": picture.shape[1] + number}
        if with_thumbnails:
            values["thumbnail"] = {"bytes": base64.b64encode(scenes.jpeg(picture, 256)).decode()}
        if root is not None:
            (root / kind).mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(scenes.jpeg(picture))
        vector = scenes.vector(picture)
        known[key] = (path, vector)
        rows.append({"key": key, "vectors": {"colours": vector.tolist()}, "values": values})
    answer = requests.post(f"{at}/rows", json={"operation": "insert", "rows": rows}, timeout=60)
    assert answer.status_code == 200 and answer.json()["failures"] == [], answer.text
    return known
