#!/usr/bin/env python3
"""Pictures a second, end to end, beside a plain Python pipeline, and what a search by a picture takes.

    make build && make venv
    .venv/bin/python benches/pictures.py                       # made-up photographs of 500 x 375
    .venv/bin/python benches/pictures.py --pictures DIR        # your own

The server is started here, on loopback and a data folder of its own, and `voisin index` fills it: reading, decoding,
the model, writing durably. The peer decodes and resizes with Pillow in two threads and runs the same graph with
ONNX Runtime, 32 pictures at a time with two threads; it writes nothing. Both are run in turns.
"""

import argparse
import concurrent.futures
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "pictures")]

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
from PIL import Image  # noqa: E402

import models  # noqa: E402
from drawing import scene  # noqa: E402
from server import Server, binary, run_voisin  # noqa: E402
from voisin_v1 import VoisinV1  # noqa: E402

BATCH, THREADS = 32, 2


def prepared(path, config):
    """Pillow's part of the peer."""
    picture = Image.open(path).convert("RGB")
    size = config["size"]
    if "shortest_edge" in size:
        crop, (width, height) = size["shortest_edge"], picture.size
        edge = int(crop / config["crop_pct"])
        scaled = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
        picture = picture.resize(scaled, config["resample"])
        left, top = (scaled[0] - crop) // 2, (scaled[1] - crop) // 2
        picture = picture.crop((left, top, left + crop, top + crop))
    else:
        picture = picture.resize((size["width"], size["height"]), config["resample"])
    values = np.asarray(picture, np.float32) / 255
    if config["do_normalize"]:
        values = (values - np.float32(config["image_mean"])) / np.float32(config["image_std"])
    return values.transpose(2, 0, 1)


def peer(graph, config, paths):
    """Seconds of the Python pipeline."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    began = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, len(paths), BATCH):
            batch = list(pool.map(lambda path: prepared(path, config), paths[first:first + BATCH]))
            session.run(None, {name: np.stack(batch)})
    return time.perf_counter() - began


def ours(server, model, folder, turn, thumbnails):
    """Seconds of `voisin index`, as it tells them."""
    ran = run_voisin("index", folder, "--collection", f"{model}-{turn}", "--model", model, "--server", server.grpc,
                     "--thumbnails", thumbnails, timeout=1800)
    assert ran.returncode == 0, ran.stderr
    return float(re.search(r" in ([\d.]+) s", ran.stdout)[1])


def searches(calls, collection, paths, count):
    """p50 and p99 of one client's searches in ms: all of it, then decoding, model, search."""
    times = []
    for at in range(count):
        file = paths[at % len(paths)].read_bytes()
        began = time.perf_counter()
        reply = calls.SearchByImage(images=[file], query=dict(collection=collection, topk=10, forwards=dict()))
        whole = (time.perf_counter() - began) * 1e3
        times.append((whole, reply.decode_us / 1e3, reply.embed_us / 1e3, reply.search_us / 1e3))
    return np.percentile(np.array(times), [50, 99], axis=0)


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--pictures", type=pathlib.Path, help="a folder of JPEGs, taken as often as needed")
    words.add_argument("--count", type=int, default=640, help="pictures of a turn")
    words.add_argument("--turns", type=int, default=3)
    words.add_argument("--size", default="500x375", help="of made-up pictures")
    words.add_argument("--thumbnails", type=int, default=0, help="side of the thumbnails kept; the peer makes none")
    words.add_argument("--setting", action="append", default=[], help="a setting of the server, such as embedding.batch_max=8")
    args = words.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        folder = temporary / "pictures"
        folder.mkdir()
        if args.pictures:
            files = [path.read_bytes() for path in sorted(args.pictures.rglob("*.jpg"))]
        else:
            width, height = map(int, args.size.split("x"))
            for seed in range(32):
                scene(seed, width, height).save(temporary / f"{seed}.jpg", quality=90)
            files = [(temporary / f"{seed}.jpg").read_bytes() for seed in range(32)]
        paths = [folder / f"{at:05}.jpg" for at in range(args.count)]
        for at, path in enumerate(paths):
            path.write_bytes(files[at % len(files)])
        config = models.resnet_config(224)
        resnet = models.resnet((2, 2, 2, 2), False, width=64)
        models.save(temporary / "models" / "resnet18", resnet, config)
        models.save(temporary / "models" / "resnet18-scaled", resnet, config, 'decode = "scaled"\n')
        holistic = {"size": {"height": 128, "width": 128}, "resample": 2, "do_normalize": False}
        kinds = {
            "holistic": ((ROOT / "models" / "holistic" / "model.onnx").read_bytes(), holistic),
            "resnet18": (resnet.SerializeToString(), config),
            "resnet18-scaled": (resnet.SerializeToString(), config),
        }
        settings = {"embedding.models": temporary / "models", **dict(pair.split("=", 1) for pair in args.setting)}
        server = Server(temporary / "data", settings=settings, durability="power").start()
        try:
            print(f"{args.count} pictures, thumbnails of {args.thumbnails}, median of {args.turns} turns, {binary()}")
            print("| model | images/s | peer, images/s | ratio (range) |\n|---|---|---|---|")
            calls = VoisinV1(server.channel())
            for model, (graph, how) in kinds.items():
                own, other = [], []
                for turn in range(args.turns):
                    own.append(args.count / ours(server, model, folder, turn, args.thumbnails))
                    other.append(args.count / peer(graph, how, paths))
                ratios = [a / b for a, b in zip(own, other)]
                print(f"| {model} | {statistics.median(own):.0f} | {statistics.median(other):.0f} | "
                      f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)
            print("\n| search by a picture, one client | p50 ms | p99 ms | decode p50 | model p50 | search p50 |\n|---|---|---|---|---|---|")
            for model in kinds:
                middle, late = searches(calls, f"{model}-0", paths, 200)
                print(f"| {model} | {middle[0]:.2f} | {late[0]:.2f} | {middle[1]:.2f} | {middle[2]:.2f} | {middle[3]:.2f} |")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
