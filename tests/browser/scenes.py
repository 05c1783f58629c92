"""Drawn pictures: scenes of a few kinds, each with a palette and shapes of its own. The same number draws the
same picture."""

import cv2
import numpy as np

KINDS = ("hills", "sea", "city", "forest", "dunes", "meadow")
WIDTH, HEIGHT = 480, 360
#: Top and bottom of the sky, then what stands below it from far to near (red, green, blue).
PALETTES = {
    "hills": [((120, 170, 220), (235, 225, 205)), [(142, 160, 178), (102, 130, 140), (66, 100, 98), (38, 68, 60)]],
    "sea": [((40, 70, 130), (250, 170, 110)), [(60, 90, 140), (30, 56, 104)]],
    "city": [((14, 18, 44), (70, 54, 96)), [(40, 42, 70), (24, 26, 46), (12, 14, 28)]],
    "forest": [((188, 206, 204), (228, 232, 220)), [(120, 150, 130), (70, 108, 84), (34, 68, 52)]],
    "dunes": [((130, 180, 215), (250, 225, 180)), [(226, 178, 118), (204, 146, 88), (168, 110, 62)]],
    "meadow": [((96, 160, 230), (210, 235, 250)), [(126, 176, 92), (92, 148, 66)]],
}


def _sky(kind, random):
    top, bottom = (np.array(colour, float) + random.normal(0, 10, 3) for colour in PALETTES[kind][0])
    share = np.linspace(0, 1, HEIGHT)[:, None, None] ** 0.9
    return np.repeat((1 - share) * top + share * bottom, WIDTH, axis=1)


def _ridge(random, base, height, waves):
    across = np.linspace(0, 2 * np.pi, WIDTH)
    line = sum(random.uniform(0.3, 1) / n * np.sin(n * across + random.uniform(0, 6.3)) for n in waves)
    return base + height * line / len(waves)


def _below(picture, line, colour, light=18):
    rows = np.arange(HEIGHT)[:, None]
    depth = np.clip((rows - line[None, :]) / HEIGHT, 0, 1)[..., None]
    mask = (rows >= line[None, :])[..., None]
    picture[:] = np.where(mask, np.array(colour, float) + light * (0.5 - 2 * depth), picture)


def draw(kind, number):
    """A picture of `HEIGHT` x `WIDTH` x 3 bytes, red first."""
    random = np.random.default_rng([KINDS.index(kind), number])
    picture = _sky(kind, random)
    layers = [np.array(colour, float) + random.normal(0, 7, 3) for colour in PALETTES[kind][1]]
    horizon = HEIGHT * random.uniform(0.42, 0.55)
    sun = (int(WIDTH * random.uniform(0.2, 0.8)), int(horizon - HEIGHT * random.uniform(0.05, 0.3)))
    if kind in ("sea", "dunes", "hills"):
        glow = np.zeros((HEIGHT, WIDTH), np.float32)
        cv2.circle(glow, sun, 22, 1.0, -1, cv2.LINE_AA)
        glow = 0.9 * glow + 0.9 * cv2.GaussianBlur(glow, (0, 0), 26)
        picture += glow[..., None] * np.array([120, 100, 60])
    if kind == "sea":
        _below(picture, np.full(WIDTH, horizon), layers[0], 40)
        for _ in range(240):
            y = int(random.uniform(horizon + 2, HEIGHT))
            near = (y - horizon) / (HEIGHT - horizon)
            x = int(sun[0] + random.normal(0, 12 + 70 * near))
            cv2.line(picture, (x, y), (x + int(4 + 16 * near), y), (250, 190, 130), 1, cv2.LINE_AA)
        boat, size = int(WIDTH * random.uniform(0.15, 0.85)), int(random.uniform(14, 30))
        sail = np.array([[boat, int(horizon) + 6], [boat, int(horizon) + 6 - 2 * size], [boat + size, int(horizon) + 4]])
        cv2.fillPoly(picture, [sail], (240, 236, 226), cv2.LINE_AA)
        cv2.line(picture, (boat - size // 2, int(horizon) + 9), (boat + size, int(horizon) + 9), (40, 30, 40), 4)
    elif kind == "city":
        for depth, colour in enumerate(layers):
            x = -random.integers(0, 20)
            while x < WIDTH:
                wide, top = int(random.integers(24, 62)), int(horizon + 50 * depth - random.uniform(10, 150))
                cv2.rectangle(picture, (int(x), top), (int(x) + wide, HEIGHT), tuple(map(float, colour)), -1)
                for wx in range(int(x) + 5, int(x) + wide - 6, 9):
                    for wy in range(top + 7, HEIGHT, 13):
                        if random.random() < 0.3:
                            cv2.rectangle(picture, (wx, wy), (wx + 3, wy + 5), (250, 214, 120), -1)
                x += wide + random.integers(0, 9)
    elif kind == "forest":
        for depth, colour in enumerate(layers):
            ground = horizon + 40 + 70 * depth
            _below(picture, _ridge(random, ground, 14, (1, 2, 3)), colour)
            for x in np.sort(random.uniform(-10, WIDTH + 10, 26 - 6 * depth)):
                tall = random.uniform(50, 90) * (1 + 0.55 * depth)
                for step in range(3):
                    wide, low = tall * (0.16 + 0.07 * step), ground - tall * (0.62 - 0.28 * step)
                    tree = np.array([[x - wide, low], [x + wide, low], [x, low - tall * 0.42]], np.int32)
                    cv2.fillPoly(picture, [tree], tuple(map(float, colour * 0.92)), cv2.LINE_AA)
    else:
        waves = (1, 2) if kind == "dunes" else (1, 2, 3, 5)
        for depth, colour in enumerate(layers):
            base = horizon + (HEIGHT - horizon) * 0.8 * depth / len(layers)
            _below(picture, _ridge(random, base, 46 if kind == "hills" else 34, waves), colour, 46 if kind == "dunes" else 22)
        if kind == "meadow":
            for _ in range(5):
                cloud = np.zeros((HEIGHT, WIDTH), np.float32)
                x, y = random.uniform(0, WIDTH), random.uniform(10, horizon * 0.6)
                for _ in range(6):
                    at = (int(x + random.normal(0, 26)), int(y + random.normal(0, 6)))
                    cv2.circle(cloud, at, int(random.uniform(9, 20)), 1.0, -1)
                cloud = cv2.GaussianBlur(cloud, (0, 0), 5)[..., None] * 0.9
                picture = (1 - cloud) * picture + cloud * 250
            colours = [(236, 70, 80), (250, 210, 70), (240, 240, 250), (170, 90, 200)]
            for _ in range(330):
                y = random.uniform(horizon + 40, HEIGHT)
                at, size = (int(random.uniform(0, WIDTH)), int(y)), 1 + int(4 * (y - horizon) / (HEIGHT - horizon))
                cv2.circle(picture, at, size, colours[random.integers(4)], -1, cv2.LINE_AA)
    picture = picture + random.normal(0, 2, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def jpeg(picture, side_max=None, quality=88):
    """The bytes of a JPEG, made smaller first where a side is longer than `side_max`."""
    return _encoded(".jpg", picture, side_max, [cv2.IMWRITE_JPEG_QUALITY, quality])


def png(picture, side_max=None):
    return _encoded(".png", picture, side_max, [])


def webp(picture, side_max=None):
    return _encoded(".webp", picture, side_max, [cv2.IMWRITE_WEBP_QUALITY, 85])


def _encoded(kind, picture, side_max, how):
    longest = max(picture.shape[:2])
    if side_max is not None and longest > side_max:
        scale = side_max / longest
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(kind, picture[..., ::-1], how)
    assert done
    return data.tobytes()


def vector(picture):
    """What the tests compare brought pictures by: 8 x 8 colours."""
    small = cv2.resize(picture, (8, 8), interpolation=cv2.INTER_AREA).astype(np.float32)
    return (small / 255).reshape(-1)
