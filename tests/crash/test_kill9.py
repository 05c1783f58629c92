"""kill -9 under load loses nothing acknowledged, brings no deleted row back, and leaves no half row.

VOISIN_KILL_CYCLES sets the number of kills (12), VOISIN_KILL_SEED the seed. The long run is
`python tests/crash/campaign.py`.
"""

import os
import random

import pytest
from pyproximabe.core.types import proxima_be_pb2 as be

from campaign import FORWARD_NAMES, Campaign, Rows
from journal import ABSENT, Journal, Verdict, fingerprint
from proxima import value

CYCLES = int(os.environ.get("VOISIN_KILL_CYCLES", "12"))
SEED = int(os.environ.get("VOISIN_KILL_SEED", random.randrange(2**32)))


@pytest.mark.parametrize("durability, cycles", [("power", (CYCLES + 1) // 2), ("process", CYCLES // 2)])
def test_no_acknowledged_write_is_lost_to_kill_9(tmp_path, request, durability, cycles):
    print(f"VOISIN_KILL_SEED={SEED}")
    campaign = Campaign(tmp_path / "data", SEED, rows=2_000, durability=durability)
    request.node.voisin_servers = [campaign.server]
    try:
        campaign.prepare()
        for _ in range(cycles):
            verdict = campaign.cycle()
            assert verdict.is_clean, f"{verdict.counts()}: {str(verdict)[:2000]}"
        summary = campaign.finish()
    finally:
        campaign.server.kill()
    print(summary)
    assert summary["acks"] > 0
    assert summary["stop_exit_code"] == 0
    assert summary["verify_exit_code"] == 0


# ----- the checks themselves must notice -----


def judged(acknowledged, in_flight, found):
    journal = Journal()
    journal.acknowledged, journal.in_flight = dict(acknowledged), dict(in_flight)
    journal.last_version = {1: 9, 7: 9}
    verdict = Verdict()
    journal.judge(found, verdict)
    assert journal.acknowledged == found, "the next cycle starts from what is there"
    return verdict


@pytest.mark.parametrize("in_flight, found", [
    ({}, {1: 2}),
    ({1: 3}, {1: 2}),
    ({1: 3}, {1: 3}),
    ({1: ABSENT}, {1: 2}),
    ({1: ABSENT}, {}),
    ({7: 4}, {1: 2, 7: 4}),
    ({7: 4}, {1: 2}),
])
def test_the_journal_accepts_every_state_it_must(in_flight, found):
    assert judged({1: 2}, in_flight, found).is_clean


@pytest.mark.parametrize("in_flight, found, fault", [
    ({}, {}, "lost"),
    ({}, {1: 1}, "lost"),
    ({1: 3}, {}, "lost"),
    ({1: 3}, {1: 1}, "lost"),
    ({1: ABSENT}, {1: 1}, "lost"),
    ({7: 4}, {7: 4}, "lost"),
    ({}, {1: 2, 7: 3}, "undone"),
    ({7: 4}, {1: 2, 7: 3}, "undone"),
    ({}, {1: 2, 5: 1}, "foreign"),
])
def test_the_journal_notices_every_fault(in_flight, found, fault):
    assert judged({1: 2}, in_flight, found).counts() | {fault: 1} == judged({1: 2}, in_flight, found).counts()


def answer(*rows):
    """A query answer with (key, version in the forward value, version in the vector) each."""
    message = be.QueryResponse(latency_us=300)
    message.status.reason = "Success"
    result = message.results.add()
    for key, version, vector_version in rows:
        document = result.documents.add(primary_key=key, score=-float(fingerprint(key, vector_version)))
        for name, python_value in zip(FORWARD_NAMES, [version, key, f"{key}:{version}"]):
            document.forward_column_values.add(key=name).value.CopyFrom(value(python_value))
    return message.SerializeToString()


class Answered:
    """Stands where a server is expected and gives one answer."""

    def __init__(self, raw):
        self.raw = raw

    def channel(self):
        return self

    def unary_unary(self, _):
        return lambda message, timeout: self.raw


def test_rows_are_read_back_and_half_and_repeated_ones_noticed():
    rows = Rows(Answered(answer((0, 1, 1), (1, 300, 300), (2**40, 2, 2))))
    assert rows.version_of == {0: 1, 1: 300, 2**40: 2}
    assert rows.halves() == [] and rows.repeated() == []
    rows = Rows(Answered(answer((1, 3, 2), (4, 5, 5), (4, 5, 5))))
    assert rows.halves() == [(1, 3)]
    assert rows.repeated() == [4]
    assert Rows(Answered(answer())).version_of == {}
