"""Waiting for the background work of the server, as seen from outside: segment states and files."""

from pyproximabe.core.types import proxima_be_pb2 as be

from proxima import accepted, named
from server import eventually

SEAL_SECONDS_MAX = 60.0
Segment = be.CollectionStats.SegmentStats


def segments(wire, name):
    """The statistics of each segment, sealed ones first."""
    return list(accepted(wire.stats_collection(named(name))).collection_stats.segment_stats)


def all_sealed(wire, name, documents=1, within=SEAL_SECONDS_MAX):
    """Waits until no background work is seen and sealed segments hold at least that many documents.

    How many segments that takes is the server's choice: it merges small ones.
    """

    def sealed():
        *others, _growing = segments(wire, name)
        is_quiet = all(s.state == Segment.SS_PERSIST for s in others)
        return others if is_quiet and sum(s.doc_count for s in others) >= documents else None

    return eventually(sealed, within, lambda: f"{documents} sealed documents in {name!r}: {segments(wire, name)}")


def files_of(server, pattern):
    """The files of all collections in the data folder that match."""
    return sorted(server.data.glob(f"collections/*/{pattern}"))
