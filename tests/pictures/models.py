"""Models as exports have them, with random weights: the graphs of ResNet, VGG, CLIP and DINOv2, made small."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Nodes with random weights."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], []

    def weight(self, *shape, scale=None):
        scale = scale if scale is not None else 1.4 / np.sqrt(max(1, np.prod(shape[1:])))
        return self.constant(self.random.normal(0, scale, shape).astype(np.float32))

    def constant(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def __call__(self, operation, *inputs, outputs=1, **attributes):
        names = [f"n{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operation, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, x, channels, out, kernel, stride=1):
        pad = kernel // 2
        return self("Conv", x, self.weight(out, channels, kernel, kernel), self.weight(out, scale=0.1),
                    strides=[stride] * 2, pads=[pad] * 4)

    def linear(self, x, width, out):
        return self("Add", self("MatMul", x, self.weight(width, out, scale=1 / np.sqrt(width))),
                    self.weight(out, scale=0.1))

    def norm(self, x, width):
        return self("LayerNormalization", x, self.constant(np.ones(width, np.float32)),
                    self.constant(np.zeros(width, np.float32)), axis=-1, epsilon=1e-6)

    def gelu(self, x):
        erf = self("Erf", self("Mul", x, self.constant(np.float32(1 / np.sqrt(2)))))
        return self("Mul", self("Mul", x, self.constant(np.float32(0.5))), self("Add", erf, self.constant(np.float32(1))))

    def model(self, outputs, side, dtype=TensorProto.FLOAT, batch="batch", layout="nchw"):
        shape = [batch, 3, side, side] if layout == "nchw" else [batch, side, side, 3]
        inputs = [helper.make_tensor_value_info("pixel_values", dtype, shape)]
        ends = [helper.make_node("Identity", [x], [name]) for name, x in outputs.items()]
        values = [helper.make_tensor_value_info(name, dtype, None) for name in outputs]
        graph = helper.make_graph(self.nodes + ends, "test", inputs, values, self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        made.ir_version = 8
        return onnx.shape_inference.infer_shapes(made)


def resnet(depths, bottleneck, seed=18, width=8, side=224):
    """ResNet (He et al., 2015) up to its pooled features, [n, d, 1, 1] as Hugging Face's exports have them."""
    g = Graph(seed)
    x = g("MaxPool", g("Relu", g.conv("pixel_values", 3, width, 7, 2)), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = width
    for stage, depth in enumerate(depths):
        inner = width << stage
        out = inner * (4 if bottleneck else 1)
        for block in range(depth):
            stride = 2 if stage and not block else 1
            if bottleneck:
                y = g("Relu", g.conv(x, channels, inner, 1))
                y = g("Relu", g.conv(y, inner, inner, 3, stride))
                y = g.conv(y, inner, out, 1)
            else:
                y = g.conv(g("Relu", g.conv(x, channels, out, 3, stride)), out, out, 3)
            skip = x if stride == 1 and channels == out else g.conv(x, channels, out, 1, stride)
            x, channels = g("Relu", g("Add", y, skip)), out
    return g.model({"last_hidden_state": x, "pooler_output": g("GlobalAveragePool", x)}, side)


def vgg16(seed=16, width=8):
    """VGG16 (Simonyan & Zisserman, 2014) up to its second wide layer."""
    g, x, channels = Graph(seed), "pixel_values", 3
    for stage, depth in enumerate((2, 2, 3, 3, 3)):
        for _ in range(depth):
            out = width << min(stage, 3)
            x, channels = g("Relu", g.conv(x, channels, out, 3)), out
        x = g("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = g("Relu", g.linear(g("Flatten", x), channels * 49, 64))
    return g.model({"features": g("Relu", g.linear(x, 64, 64))}, 224)


def transformer(seed, side, patch, width, layers, heads, project=None):
    """A vision transformer (Dosovitskiy et al., 2020): CLIP's tower with `project`, else DINOv2's."""
    g, tokens = Graph(seed), (side // patch) ** 2
    x = g("Conv", "pixel_values", g.weight(width, 3, patch, patch), strides=[patch] * 2, kernel_shape=[patch] * 2)
    x = g("Transpose", g("Reshape", x, g.constant(np.array([0, width, tokens], np.int64))), perm=[0, 2, 1])
    count = g("Gather", g("Shape", x), g.constant(np.array([0], np.int64)))
    shape = g("Concat", count, g.constant(np.array([1, width], np.int64)), axis=0)
    x = g("Concat", g("Expand", g.weight(1, 1, width, scale=0.5), shape), x, axis=1)
    x = g("Add", x, g.weight(1, tokens + 1, width, scale=0.5))
    split = g.constant(np.array([0, tokens + 1, heads, width // heads], np.int64))
    for _ in range(layers):
        y = g.norm(x, width)
        q, k, v = (g("Transpose", g("Reshape", g.linear(y, width, width), split), perm=[0, 2, 1, 3]) for _ in range(3))
        scores = g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])),
                   g.constant(np.float32(1 / np.sqrt(width / heads))))
        y = g("Transpose", g("MatMul", g("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        y = g("Reshape", y, g.constant(np.array([0, tokens + 1, width], np.int64)))
        x = g("Add", x, g.linear(y, width, width))
        x = g("Add", x, g.linear(g.gelu(g.linear(g.norm(x, width), width, 4 * width)), 4 * width, width))
    x = g.norm(x, width)
    first = g("Gather", x, g.constant(np.array(0, np.int64)), axis=1)
    if project is None:
        return g.model({"last_hidden_state": x, "pooler_output": first}, side)
    return g.model({"image_embeds": g("MatMul", first, g.weight(width, project)), "last_hidden_state": x}, side)


def probe(side, channels_first=True):
    """A graph whose output is its input: its vectors are the tensors that pictures become."""
    g = Graph(0)
    layout = "nchw" if channels_first else "nhwc"
    return g.model({"tensor": g("Flatten", "pixel_values")}, side, layout=layout)


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
RESCALED = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_resize": True}


def clip_config(side):
    return {**RESCALED, **OPENAI, "image_processor_type": "CLIPImageProcessor", "do_center_crop": True,
            "do_convert_rgb": True, "resample": 3, "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side}}


def dinov2_config(side):
    return {**RESCALED, **IMAGENET, "image_processor_type": "BitImageProcessor", "do_center_crop": True,
            "do_convert_rgb": True, "resample": 3, "size": {"shortest_edge": side * 8 // 7},
            "crop_size": {"height": side, "width": side}}


def resnet_config(side):
    return {**RESCALED, **IMAGENET, "image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875,
            "resample": 2, "size": {"shortest_edge": side}}


def vgg_config(side):
    return {**RESCALED, **IMAGENET, "do_center_crop": True, "resample": 2, "size": {"shortest_edge": side * 8 // 7},
            "crop_size": {"height": side, "width": side}}


def vit_config(side):
    return {**RESCALED, "image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
            "resample": 2, "size": {"height": side, "width": side}}


def save(folder, made, config, card=""):
    """A model's folder, as exports have it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    if card:
        (folder / "voisin.toml").write_text(card)
    return folder
