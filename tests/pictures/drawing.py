"""Pictures made of numbers, so that the tests need no files: occluding discs with stripes, as photographs are
made of things before things."""

import io

import numpy as np
from PIL import Image


def scene(seed, width=320, height=240):
    """A colourful picture that no other seed resembles."""
    random = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3))
    y, x = np.mgrid[0:height, 0:width]
    picture += random.uniform(40, 215, 3) + random.uniform(-0.2, 0.2, 3) * (x + y)[..., None]
    for _ in range(40):
        centre, radius = random.uniform((0, 0), (width, height)), random.uniform(height / 30, height / 3)
        within = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        stripes = np.sin((x * random.uniform(-1, 1) + y * random.uniform(-1, 1)) * random.uniform(0.1, 0.8))
        colour = random.uniform(0, 255, 3) + stripes[..., None] * random.uniform(0, 60)
        picture[within] = colour[within]
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def encoded(picture, form="PNG", **how):
    """A picture's file."""
    file = io.BytesIO()
    picture.save(file, form, **how)
    return file.getvalue()


def jpeg(picture, quality=90):
    return encoded(picture, "JPEG", quality=quality)


def edits(picture):
    """The same picture as people change it, by name."""
    width, height = picture.size
    across, down = width // 20, height // 20
    return {
        "half the size": encoded(picture.resize((width // 2, height // 2), Image.LANCZOS)),
        "cropped by 10%": encoded(picture.crop((across, down, width - across, height - down))),
        "quality 30": jpeg(picture, 30),
        "greyscale": encoded(picture.convert("L")),
    }
