"""Synthetic vectors for measurements: clustered as real embeddings are, the same for the same seed."""

import numpy as np


class Clustered:
    """Vectors around random centres. Rows and queries come from the same centres."""

    def __init__(self, dimension, seed, clusters=256, spread=0.35):
        self._random = np.random.default_rng(seed)
        self._centres = self._random.standard_normal((clusters, dimension)).astype(np.float32)
        self._spread = spread

    def draw(self, count):
        """The next `count` vectors."""
        which = self._random.integers(0, len(self._centres), count)
        noise = self._random.standard_normal((count, self._centres.shape[1]), np.float32)
        return self._centres[which] + self._spread * noise


def nearest(rows, queries, k):
    """Positions of the k rows nearest to each query by squared Euclidean distance, by brute force."""
    norms = (rows.astype(np.float64) ** 2).sum(1)
    found = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), 64):
        block = queries[start:start + 64].astype(np.float64)
        distances = norms - 2 * (block @ rows.T.astype(np.float64))
        best = np.argpartition(distances, k, axis=1)[:, :k] if k < len(rows) else np.argsort(distances, axis=1)
        found[start:start + 64] = best[:, :k]
    return found


def recall(found, exact):
    """The share of the true nearest that was found."""
    hits = sum(len(set(map(int, f)) & set(map(int, e))) for f, e in zip(found, exact))
    return hits / sum(len(e) for e in exact)
