"""What Pillow, numpy and ONNX Runtime make of a picture: what the server's tensors and vectors must be."""

import io

import numpy as np
import onnxruntime
from PIL import Image


def tensor(file, config):
    """The tensor [1, 3, height, width] of a picture's file, as torchvision's and Hugging Face's transforms make it."""
    picture = Image.open(io.BytesIO(file)).convert("RGB")
    size, resample = config["size"], config["resample"]
    width, height = picture.size
    if "shortest_edge" in size:
        edge = size["shortest_edge"]
        crop = config.get("crop_size")
        if "crop_pct" in config:
            crop, edge = {"height": edge, "width": edge}, int(edge / config["crop_pct"])
        scaled = (edge, int(edge * height / width)) if width <= height else (int(edge * width / height), edge)
        picture = picture.resize(scaled, resample)
        left, top = (scaled[0] - crop["width"]) // 2, (scaled[1] - crop["height"]) // 2
        picture = picture.crop((left, top, left + crop["width"], top + crop["height"]))
    else:
        picture = picture.resize((size["width"], size["height"]), resample)
    values = np.asarray(picture, np.float32) * config["rescale_factor"]
    values = (values - np.float32(config["image_mean"])) / np.float32(config["image_std"])
    return values.transpose(2, 0, 1)[None].astype(np.float32)


def vector(model, output, values):
    """An output of a model for a tensor, flat and of length 1."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    flat = session.run([output], {"pixel_values": values})[0][0]
    flat = flat[0] if flat.ndim == 2 else flat.reshape(-1)
    return flat / np.linalg.norm(flat)
