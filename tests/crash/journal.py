"""What a client knows of the rows it wrote: the acknowledged state of every key, and what is in flight.

A row's version is encoded twice: in its forward values and, as a fingerprint of key and version, in its
vector. One inner-product query reads all fingerprints back as scores, so a row whose halves come from
two different writes cannot hide.

Each key belongs to one writer thread, which has one request in flight at most. So a key may be found in
its acknowledged state, or in the state its request in flight asked for, and in no other.
"""

import dataclasses

#: Version of a key that is not there.
ABSENT = None
#: Fingerprints stay below 2^23, where every whole number is exact in FP32.
FINGERPRINTS = 8_388_593


def fingerprint(key, version):
    """A number that tells this version of this key from nearly every other; of numbers or of arrays."""
    return (key * 40_503 + version * 65_537 + 12_345) % FINGERPRINTS


@dataclasses.dataclass
class Verdict:
    """What one comparison of the journal with the server found."""

    lost: list = dataclasses.field(default_factory=list)
    undone: list = dataclasses.field(default_factory=list)
    half: list = dataclasses.field(default_factory=list)
    foreign: list = dataclasses.field(default_factory=list)
    repeated: list = dataclasses.field(default_factory=list)
    applied_in_flight: int = 0
    dropped_in_flight: int = 0
    split_requests: int = 0

    @property
    def is_clean(self):
        return not (self.lost or self.undone or self.half or self.foreign or self.repeated)

    def counts(self):
        return {name: len(getattr(self, name)) for name in ("lost", "undone", "half", "foreign", "repeated")}


class Journal:
    """One writer's keys. Not shared between threads."""

    def __init__(self):
        self.acknowledged = {}  # key -> version; absent keys have no entry
        self.in_flight = {}  # key -> version asked for
        self.last_version = {}  # key -> highest version ever asked for
        self.acks = 0

    def next_version(self, key):
        return self.last_version.get(key, 0) + 1

    def begin(self, changes):
        """Notes a request before it is sent: key -> version, or ABSENT for a delete."""
        assert not self.in_flight, "one request at a time"
        self.in_flight = dict(changes)
        for key, version in changes.items():
            if version is not ABSENT:
                self.last_version[key] = version

    def acknowledge(self):
        """Notes that the request in flight was answered with success."""
        for key, version in self.in_flight.items():
            self._settle(key, version)
        self.acks += len(self.in_flight)
        self.in_flight = {}

    def _settle(self, key, version):
        if version is ABSENT:
            self.acknowledged.pop(key, None)
        else:
            self.acknowledged[key] = version

    def judge(self, found, verdict):
        """Compares with what the server has (key -> version), then takes that for the truth."""
        applied = dropped = 0
        # Most rows are as they should be: only pairs that one side lacks are looked at.
        apart = {key for key, _ in self.acknowledged.items() ^ found.items()}
        for key in apart | self.in_flight.keys():
            version, known = found.get(key, ABSENT), self.acknowledged.get(key, ABSENT)
            if key in self.in_flight and version == self.in_flight[key] != known:
                applied += 1
            elif version == known:
                dropped += key in self.in_flight
            elif known is not ABSENT:
                verdict.lost.append((key, known, version))
            elif key in self.last_version:
                verdict.undone.append((key, version))
            else:
                verdict.foreign.append((key, version))
        verdict.applied_in_flight += applied
        verdict.dropped_in_flight += dropped
        verdict.split_requests += bool(applied and dropped)
        self.in_flight = {}
        self.acknowledged = dict(found)
