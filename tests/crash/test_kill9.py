"""kill -9 under load loses nothing acknowledged, brings no deleted row back, and leaves no half row.

VOISIN_KILL_CYCLES sets the number of kills (12), VOISIN_KILL_SEED the seed. The long run is
`python tests/crash/campaign.py`.
"""

import os
import random

import pytest

from campaign import Campaign
from journal import ABSENT, Found, Journal, Verdict, fingerprint

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


# ----- the journal itself must notice -----


def row(key, version, vector_version=None):
    return Found(key, -float(fingerprint(key, vector_version or version)), version, key)


def judged(acknowledged, in_flight, found):
    journal = Journal()
    journal.acknowledged, journal.in_flight = dict(acknowledged), dict(in_flight)
    journal.last_version = {k: v or 9 for k, v in {**acknowledged, **in_flight}.items()} | {7: 3}
    verdict = Verdict()
    journal.judge({r.key: r for r in found}, verdict)
    return verdict


@pytest.mark.parametrize("in_flight, found", [
    ({}, [row(1, 2)]),
    ({1: 3}, [row(1, 2)]),
    ({1: 3}, [row(1, 3)]),
    ({1: ABSENT}, [row(1, 2)]),
    ({1: ABSENT}, []),
    ({7: 4}, [row(1, 2), row(7, 4)]),
])
def test_the_journal_accepts_every_state_it_must(in_flight, found):
    assert judged({1: 2}, in_flight, found).is_clean


@pytest.mark.parametrize("in_flight, found, fault", [
    ({}, [], "lost"),
    ({}, [row(1, 1)], "lost"),
    ({1: 3}, [], "lost"),
    ({1: 3}, [row(1, 1)], "lost"),
    ({}, [row(1, 2), row(7, 3)], "undone"),
    ({}, [row(1, 2), row(5, 1)], "foreign"),
    ({}, [row(1, 2, vector_version=1)], "half"),
    ({1: 3}, [row(1, 3, vector_version=2)], "half"),
])
def test_the_journal_notices_every_fault(in_flight, found, fault):
    verdict = judged({1: 2}, in_flight, found)
    assert not verdict.is_clean
    assert verdict.counts()[fault] == 1
