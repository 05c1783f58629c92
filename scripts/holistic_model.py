#!/usr/bin/env python3
"""Makes the model that needs no download: a holistic descriptor of pictures as an ONNX graph.

    pip install numpy onnx onnxruntime && scripts/holistic_model.py models/holistic

GIST (Oliva & Torralba, "Modeling the shape of the scene", 2001): energies of Gabor filters in 4 scales and 8
orientations, averaged over a grid of 4 x 4, 512 numbers; after it a colour layout (after MPEG-7's, 2001): the first
coefficients of a cosine transform of 8 x 8 mean colours, 6 of Cb and 6 of Cr. Energies are taken as their logarithm
and by how much they differ from those of random pictures of occluding discs ("dead leaves": Lee, Mumford & Huang,
2001), whose statistics are those of photographs: without that, all pictures are alike. The whole has length 1, so
that the inner product is the cosine.

The graph takes RGB of 128 x 128 from 0 to 1 and any number of pictures. Two runs make the same bytes.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 128          # pixels a side
SCALES = 4          # each of half the resolution of the one before
ORIENTATIONS = 8
GRID = 4            # cells a side
FREQUENCY = 0.25    # cycles a pixel of each scale
SIGMA = 2.24        # of the Gabor's window in pixels: a bandwidth of about one octave
RADIUS = 6          # of a Gabor kernel in pixels
STRIDES = 2, 2, 1, 1  # pixels from one energy to the next by scale: energies are smooth, and only their means are kept
LEAVES = 512        # random pictures that the mean and spread of energies are taken from
COLOUR_SHARE = 0.3  # length of the colour part beside 1 for the shape part of a very colourful picture


def gabors():
    """Kernels [2 * ORIENTATIONS, 1, side, side]: cosines, then sines, none of which sees the mean."""
    y, x = np.mgrid[-RADIUS:RADIUS + 1, -RADIUS:RADIUS + 1].astype(np.float64)
    window = np.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    kernels = []
    for wave in (np.cos, np.sin):
        for orientation in range(ORIENTATIONS):
            angle = np.pi * orientation / ORIENTATIONS
            kernel = window * wave(2 * np.pi * FREQUENCY * (x * np.cos(angle) + y * np.sin(angle)))
            kernel -= window * (kernel.sum() / window.sum())
            kernels.append(kernel / np.abs(kernel).sum())
    return np.stack(kernels)[:, None].astype(np.float32)


def gaussian(sigma, radius):
    weights = np.exp(-np.arange(-radius, radius + 1)**2 / (2 * sigma**2))
    return (weights / weights.sum()).astype(np.float32)


def cosines(count, side):
    """The first `count` two-dimensional cosines over side x side cells in zigzag order, [count, side * side]."""
    order = sorted(((u, v) for u in range(side) for v in range(side)), key=lambda p: (sum(p), p[0] if sum(p) % 2 else p[1]))
    at = (np.arange(side) + 0.5) * np.pi / side
    rows = [np.outer(np.cos(u * at), np.cos(v * at)).ravel() for u, v in order[:count]]
    return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


class Graph:
    """Nodes with names that say what they make."""

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, operation, *inputs, **attributes):
        self.count += 1
        name = f"{operation.lower()}_{self.count}"
        inputs = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def pad(self, image, radius):
        return self("Pad", image, np.array([0, 0, radius, radius] * 2, np.int64), mode="reflect")

    def blur(self, image, sigma, radius):
        weights = gaussian(sigma, radius)
        rows = self("Conv", self.pad(image, radius), weights[None, None, None, :])
        return self("Conv", rows, weights[None, None, :, None])

    def unit(self, vector):
        return self("LpNormalization", vector, axis=1, p=2)


def energies(graph, rgb):
    """The logarithm of the energies, [n, 512]: by scale, orientation, row, column."""
    grey = graph("Conv", rgb, np.array([0.299, 0.587, 0.114], np.float32).reshape(1, 3, 1, 1))
    # As in the original: brightness by its logarithm, less its surroundings, by their contrast.
    light = graph("Log", graph("Add", graph("Mul", grey, np.float32(255)), np.float32(1)))
    detail = graph("Sub", light, graph.blur(light, 4.24, 13))
    contrast = graph("Sqrt", graph.blur(graph("Mul", detail, detail), 4.24, 13))
    level = graph("Div", detail, graph("Add", contrast, np.float32(0.2)))
    parts, kernels = [], gabors()
    for scale in range(SCALES):
        stride = STRIDES[scale]
        waves = graph("Conv", graph.pad(level, RADIUS), kernels, strides=[stride, stride])
        squares = graph("Mul", waves, waves)
        even, odd = (graph("Slice", squares, np.array([first], np.int64), np.array([first + ORIENTATIONS], np.int64),
                           np.array([1], np.int64)) for first in (0, ORIENTATIONS))
        energy = graph("Sqrt", graph("Add", graph("Add", even, odd), np.float32(1e-8)))
        cell = (SIZE >> scale) // GRID // stride
        cells = graph("AveragePool", energy, kernel_shape=[cell, cell], strides=[cell, cell])
        parts.append(graph("Flatten", cells, axis=1))
        if scale + 1 < SCALES:
            level = graph("AveragePool", graph.blur(level, 0.8, 2), kernel_shape=[2, 2], strides=[2, 2])
    all_parts = graph("Concat", *parts, axis=1)
    return graph("Log", graph("Add", all_parts, np.float32(0.01)))


def colours(graph, rgb):
    """The colour layout, [n, 12]."""
    weights = np.array([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32).reshape(2, 3, 1, 1)
    chroma = graph("Conv", graph("AveragePool", rgb, kernel_shape=[16, 16], strides=[16, 16]), weights)
    cells = graph("Reshape", chroma, np.array([0, 2, 64], np.int64))
    return graph("Flatten", graph("MatMul", cells, cosines(6, 8).T.copy()), axis=1)


def model(graph, output, width):
    inputs = [helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", width])]
    nodes = graph.nodes + [helper.make_node("Identity", [output], ["embedding"], name="embedding")]
    made = helper.make_graph(nodes, "holistic", inputs, outputs, graph.constants)
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], producer_name="voisin")
    made.ir_version = 8
    onnx.checker.check_model(made, full_check=True)
    return made


def leaves(random, side=SIZE, colourful=True):
    """A picture of discs that lie over each other, [3, side, side]; radii follow a power law."""
    picture = np.zeros((3, side, side), np.float32)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    bare = np.ones((side, side), bool)
    low, high = side / 64, side / 2
    for _ in range(4_000):
        share = random.random()
        radius = (low**-2 + share * (high**-2 - low**-2))**-0.5
        at = random.random(2) * (side + 2 * radius) - radius
        disc = bare & ((x - at[0])**2 + (y - at[1])**2 < radius**2)
        grey, tint = random.random(), (random.random(3) - 0.5) * 0.5
        picture[:, disc] = np.clip(grey + tint * colourful, 0, 1)[:, None]
        bare &= ~disc
        if not bare.any():
            break
    return picture


def run(made, pictures):
    import onnxruntime
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"pixel_values": pictures[at:at + 32]})[0]
                           for at in range(0, len(pictures), 32)])


def descriptor():
    plain = Graph()
    width = SCALES * ORIENTATIONS * GRID * GRID
    measured = model(plain, energies(plain, "pixel_values"), width)
    random = np.random.default_rng(2001)
    found = run(measured, np.stack([leaves(random) for _ in range(LEAVES)]))
    # Cells are alike in pictures that lie anywhere: mean and spread by filter.
    by_filter = found.reshape(-1, SCALES * ORIENTATIONS, GRID * GRID)
    mean, spread = by_filter.mean((0, 2)), by_filter.std((0, 2))
    mean, spread = (np.repeat(one, GRID * GRID)[None].astype(np.float32).round(4) for one in (mean, spread))
    graph = Graph()
    shape = graph("Div", graph("Sub", energies(graph, "pixel_values"), mean), spread)
    # Colours of a very colourful picture have a length near 1.
    colour = graph("Mul", colours(graph, "pixel_values"), np.float32(COLOUR_SHARE))
    whole = graph.unit(graph("Concat", graph.unit(shape), colour, axis=1))
    return model(graph, whole, width + 12)


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path)
    folder = words.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(descriptor().SerializeToString(deterministic=True))
    preprocessing = {
        "do_resize": True, "size": {"height": SIZE, "width": SIZE}, "resample": 2, "do_center_crop": False,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": False, "do_convert_rgb": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing, indent=2) + "\n")


if __name__ == "__main__":
    main()
