#!/usr/bin/env python3
"""Writes pictures of every format, the pixels that Pillow makes of them, and the tensors of reference preparations.

    pip install "pillow==13.0.0" numpy && scripts/picture_fixtures.py tests/fixtures/pictures

`pictures.json` lists the pictures, each with a PNG of its RGB pixels: upright, on white, 8 bits. `tensors.json`
lists the preparations, each the text of a `preprocessor_config.json` and the colours of the tensor before it is
rescaled and normalised, as a PNG; black is where a crop pads. What each type of processor does is written down
here once more, after `transformers`, and not taken from the code that is tested.
"""

import io
import json
import random
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

WIDTH, HEIGHT = 53, 37   # odd, and no multiple of a JPEG's blocks


def scene(width, height, seed):
    """A picture with smooth parts, hard edges and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2)
    picture = Image.fromarray(base.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    pick = random.Random(seed)
    for _ in range(12):
        x0, y0 = pick.randrange(width), pick.randrange(height)
        box = [x0, y0, x0 + pick.randrange(3, max(4, width // 3)), y0 + pick.randrange(3, max(4, height // 3))]
        draw.ellipse(box, fill=tuple(pick.randrange(256) for _ in range(3)))
    pixels = np.asarray(picture).copy()
    band = slice(height // 2, height // 2 + max(1, height // 8))
    pixels[band] = rng.integers(0, 256, pixels[band].shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def reference(data):
    """What Pillow makes of the bytes: upright RGB on white."""
    picture = Image.open(io.BytesIO(data))
    picture.load()
    # Pillow turns a TIFF when it loads it.
    picture = picture if picture.format == "TIFF" else ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


def saved(picture, format, **options):
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def png_of_16_bits(pixels):
    """A PNG of RGB with 16 bits, which Pillow reads and does not write."""
    import zlib
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def pictures():
    """Names, bytes."""
    rgb = scene(WIDTH, HEIGHT, 1)
    grey = rgb.convert("L")
    alpha = rgb.convert("RGBA")
    alpha.putalpha(Image.fromarray((np.mgrid[0:HEIGHT, 0:WIDTH][1] * 255 // WIDTH).astype(np.uint8)))
    grey_alpha = alpha.convert("LA")
    palette = rgb.quantize(32)
    bilevel = grey.convert("1")
    cmyk = rgb.convert("CMYK")
    wide = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
    wide_grey = Image.fromarray(wide[:, :, 0])

    for subsampling, name in [(0, "444"), (1, "422"), (2, "420")]:
        yield f"jpeg_{name}.jpg", saved(rgb, "JPEG", quality=85, subsampling=subsampling)
    yield "jpeg_progressive.jpg", saved(rgb, "JPEG", quality=70, progressive=True)
    yield "jpeg_grey.jpg", saved(grey, "JPEG", quality=85)
    yield "jpeg_cmyk.jpg", saved(cmyk, "JPEG", quality=85)
    yield "jpeg_rgb.jpg", saved(rgb, "JPEG", quality=85, keep_rgb=True)
    yield "jpeg_restarts.jpg", saved(rgb, "JPEG", quality=85, restart_marker_blocks=3)
    for orientation in range(1, 9):
        yield f"jpeg_turned_{orientation}.jpg", saved(rgb, "JPEG", quality=85, exif=exif(orientation))
    yield "png_rgb.png", saved(rgb, "PNG")
    yield "png_turned.png", saved(rgb, "PNG", exif=exif(6))
    yield "png_grey.png", saved(grey, "PNG")
    yield "png_alpha.png", saved(alpha, "PNG")
    yield "png_grey_alpha.png", saved(grey_alpha, "PNG")
    yield "png_palette.png", saved(palette, "PNG")
    yield "png_palette_clear.png", saved(palette, "PNG", transparency=3)
    yield "png_bilevel.png", saved(bilevel, "PNG")
    yield "png_grey_16.png", saved(wide_grey, "PNG")
    yield "png_rgb_16.png", png_of_16_bits(wide)
    yield "gif.gif", saved(palette, "GIF")
    yield "gif_clear.gif", saved(palette, "GIF", transparency=5)
    yield "gif_frames.gif", saved(palette, "GIF", save_all=True, append_images=[scene(WIDTH, HEIGHT, 7).quantize(16)])
    yield "bmp_rgb.bmp", saved(rgb, "BMP")
    yield "bmp_grey.bmp", saved(grey, "BMP")
    yield "bmp_palette.bmp", saved(palette, "BMP")
    yield "bmp_bilevel.bmp", saved(bilevel, "BMP")
    yield "tiff_rgb.tif", saved(rgb, "TIFF")
    yield "tiff_lzw.tif", saved(rgb, "TIFF", compression="tiff_lzw")
    yield "tiff_deflate.tif", saved(rgb, "TIFF", compression="tiff_adobe_deflate")
    yield "tiff_packbits.tif", saved(rgb, "TIFF", compression="packbits")
    yield "tiff_fax.tif", saved(bilevel, "TIFF", compression="group4")
    yield "tiff_bilevel.tif", saved(bilevel, "TIFF")
    yield "tiff_grey.tif", saved(grey, "TIFF")
    yield "tiff_grey_16.tif", saved(wide_grey, "TIFF")
    yield "tiff_grey_alpha.tif", saved(grey_alpha, "TIFF")
    yield "tiff_alpha.tif", saved(alpha, "TIFF")
    yield "tiff_palette.tif", saved(palette, "TIFF")
    yield "tiff_cmyk.tif", saved(cmyk, "TIFF")
    yield "tiff_turned.tif", saved(rgb, "TIFF", tiffinfo={0x0112: 8})
    yield "webp_lossy.webp", saved(rgb, "WEBP", quality=80)
    yield "webp_lossless.webp", saved(rgb, "WEBP", lossless=True)
    yield "webp_alpha.webp", saved(alpha, "WEBP", lossless=True, exact=True)
    yield "webp_lossy_alpha.webp", saved(alpha, "WEBP", quality=80)
    yield "webp_turned.webp", saved(rgb, "WEBP", lossless=True, exif=exif(3))
    yield "webp_frames.webp", saved(rgb, "WEBP", lossless=True, save_all=True, append_images=[scene(WIDTH, HEIGHT, 7)])


CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def config(kind, **fields):
    return {"image_processor_type": kind, "do_rescale": True, "rescale_factor": 1 / 255, **fields}


def shortest(edge):
    """`get_resize_output_image_size` of transformers: (width, height)."""
    def sides(width, height):
        short, long = min(width, height), max(width, height)
        new_long = int(edge * long / short)
        return (edge, new_long) if width <= height else (new_long, edge)
    return sides


def crop(pixels, height, width):
    """`center_crop` of transformers."""
    has_height, has_width = pixels.shape[:2]
    top, left = (has_height - height) // 2, (has_width - width) // 2
    if top >= 0 and left >= 0 and top + height <= has_height and left + width <= has_width:
        return pixels[top:top + height, left:left + width]
    new_height, new_width = max(height, has_height), max(width, has_width)
    padded = np.zeros((new_height, new_width, 3), dtype=pixels.dtype)
    top_pad = -((has_height - new_height) // 2)
    left_pad = -((has_width - new_width) // 2)
    padded[top_pad:top_pad + has_height, left_pad:left_pad + has_width] = pixels
    top, left = top + top_pad, left + left_pad
    return padded[max(0, top):min(new_height, top + height), max(0, left):min(new_width, left + width)]


def preparations():
    """Names, pictures, files, how to resize (width and height by those of a picture), with what, crops."""
    photo, tall, small = scene(150, 107, 11), scene(70, 190, 12), scene(37, 29, 13)
    clip = dict(image_mean=CLIP_MEAN, image_std=CLIP_STD, do_normalize=True, do_convert_rgb=True)
    imagenet = dict(image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD, do_normalize=True)
    fixed = lambda width, height: lambda *_: (width, height)
    for name, picture in [("photo", photo), ("tall", tall), ("small", small)]:
        yield (f"clip_{name}", picture, config(
            "CLIPImageProcessor", do_resize=True, size={"shortest_edge": 64}, resample=3, do_center_crop=True,
            crop_size={"height": 64, "width": 64}, **clip), shortest(64), Image.BICUBIC, (64, 64))
    yield ("clip_old", photo, {
        "feature_extractor_type": "CLIPFeatureExtractor", "do_resize": True, "size": 56, "resample": 3,
        "do_center_crop": True, "crop_size": 56, "do_normalize": True, "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD}, shortest(56), Image.BICUBIC, (56, 56))
    yield ("dinov2", photo, config(
        "BitImageProcessor", do_resize=True, size={"shortest_edge": 73}, resample=3, do_center_crop=True,
        crop_size={"height": 64, "width": 64}, do_convert_rgb=True, **imagenet), shortest(73), Image.BICUBIC, (64, 64))
    for name, resample in [("resnet", 3), ("convnext", 2)]:
        yield (name, photo, config(
            "ConvNextImageProcessor", do_resize=True, size={"shortest_edge": 56}, resample=resample, crop_pct=0.875,
            **imagenet), shortest(int(56 / 0.875)), resample, (56, 56))
    yield ("resnet_old", tall, {
        "feature_extractor_type": "ConvNextFeatureExtractor", "do_resize": True, "size": 56, "resample": 3,
        "crop_pct": 0.875, "do_normalize": True, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
        shortest(64), Image.BICUBIC, (56, 56))
    yield ("vit", photo, config(
        "ViTImageProcessor", do_resize=True, size={"height": 56, "width": 56}, resample=2, do_normalize=True,
        image_mean=[0.5] * 3, image_std=[0.5] * 3), fixed(56, 56), Image.BILINEAR, None)
    yield ("vgg", tall, dict(
        do_resize=True, size=73, resample=2, do_center_crop=True, crop_size=64, do_rescale=True,
        **imagenet), shortest(73), Image.BILINEAR, (64, 64))
    yield ("siglip", photo, config(
        "SiglipImageProcessor", size={"height": 48, "width": 64}, resample=3, do_normalize=True,
        image_mean=[0.5] * 3, image_std=[0.5] * 3), fixed(64, 48), Image.BICUBIC, None)
    yield ("padded", small, config(
        "CLIPImageProcessor", do_resize=False, crop_size={"height": 32, "width": 48}, **clip),
        lambda width, height: (width, height), Image.BICUBIC, (32, 48))
    for filter in ["NEAREST", "LANCZOS", "BILINEAR", "BICUBIC", "BOX", "HAMMING"]:
        number = int(getattr(Image.Resampling, filter))
        for way, side in [("down", 41), ("up", 89)]:
            yield (f"{filter.lower()}_{way}", small if way == "up" else photo, config(
                "ViTImageProcessor", size={"height": side, "width": side}, resample=number, do_normalize=False),
                fixed(side, side), number, None)
        yield (f"{filter.lower()}_cropped", tall, config(
            "CLIPImageProcessor", size={"shortest_edge": 47}, crop_size=40, resample=number, do_normalize=False),
            shortest(47), number, (40, 40))


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    listed, known = [], {}
    for name, data in pictures():
        (folder / name).write_bytes(data)
        pixels = reference(data)
        # Pictures without loss have the same ones.
        made = known.setdefault((pixels.size, pixels.tobytes()), f"pixels_{name.split('.')[0]}.png")
        pixels.save(folder / made, optimize=True)
        listed.append({"picture": name, "pixels": made})
    (folder / "pictures.json").write_text(json.dumps(listed, indent=0) + "\n")

    listed = []
    for name, picture, file, sides, filter, cropped in preparations():
        source = f"source_{picture.width}x{picture.height}.png"
        picture.save(folder / source, optimize=True)
        pixels = np.asarray(picture.resize(sides(*picture.size), filter))
        if cropped:
            pixels = crop(pixels, *cropped)
        made = f"tensor_{name}.png"
        Image.fromarray(pixels).save(folder / made, optimize=True)
        # As numpy makes the tensor's first and last numbers of it, for the arithmetic after the resizing.
        values = pixels[[0, -1], [0, -1]].astype(np.float64) * (1 / 255)
        if file.get("do_normalize"):
            values = (values - np.array(file["image_mean"])) / np.array(file["image_std"])
        listed.append({"name": name, "picture": source, "config": file, "colours": made,
                       "corners": values.tolist()})
    (folder / "tensors.json").write_text(json.dumps(listed) + "\n")


if __name__ == "__main__":
    main()
