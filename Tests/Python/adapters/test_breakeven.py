"""Bringing pages back or computing them: the choice, from figures that are given, and what the adapters make of it."""

import random
from contextlib import nullcontext

import pytest
from test_prompts import FakeSession

from kvtc import KvtcError
from kvtc.adapters import breakeven, prompts
from kvtc.adapters.breakeven import BreakEven, Costs, Prefill, pages_worth
from kvtc.protocol.messages import Residence

from fake_worker import FakeWorker, filled_worker

RAW, CODED, DISK = Residence.RAW, Residence.CODED, Residence.DISK


def linear(seconds_per_token, seconds_per_pair=0.0):
    prefill = Prefill()
    for first, tokens in ((0, 64), (0, 512), (2000, 256), (300, 4000)):
        pairs = sum(first + i + 1 for i in range(tokens))
        prefill.note(first, tokens, seconds_per_token * tokens + seconds_per_pair * pairs)
    return prefill


def test_a_prefill_is_known_by_its_tokens_and_by_what_they_attend_to():
    prefill = linear(2e-3, 1e-6)
    assert prefill.seconds(0, 1000) == pytest.approx(2 + 1e-6 * 1000 * 1001 / 2)
    assert prefill.seconds(1000, 1000) == pytest.approx(2 + 1e-6 * (1000 * 1000 + 1000 * 1001 / 2))
    # From prefills of one kind their rate is known and no more.
    plain = Prefill()
    assert not plain.is_known
    plain.note(0, breakeven.LEAST_PREFILL - 1, 1)
    plain.note(0, 100, 0)
    assert not plain.is_known, "too few tokens, or no time, say nothing"
    for _ in range(3):
        plain.note(0, 100, 0.5)
    assert plain.seconds(500, 200) == pytest.approx(1)
    # An engine that shares its processor by now is believed soon.
    for _ in range(40):
        plain.note(0, 100, 2)
    assert plain.seconds(0, 100) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize(
    ("found", "costs", "worth"),
    [
        ([RAW] * 8, Costs(raw=1e-4), 8),
        ([CODED] * 8, Costs(coded=1e-2), 0),
        ([RAW] * 3 + [CODED] * 5, Costs(1e-4, 1e-2), 3),
        ([CODED] * 3 + [RAW] * 5, Costs(1e-4, 1e-2), 0),
        ([CODED] * 1 + [RAW] * 15, Costs(1e-4, 5e-3), 16),
        ([DISK] * 4, Costs(disk=1e-3), 4),
        ([DISK] * 4, Costs(raw=1e-9), 4),
        ([RAW] * 4, Costs(), 4),
        ([], Costs(1e-4), 0),
    ],
)
def test_as_much_is_brought_back_as_pays(found, costs, worth):
    assert pages_worth(costs.of(found, 64), 64, 64 * 16 + 5, linear(1e-3)) == worth


def test_without_a_prefill_everything_is_brought_back():
    assert pages_worth([9.0] * 5, 64, 400, Prefill()) == 5


def test_what_the_engine_has_itself_is_no_gain():
    # Four pages are there already: bringing eight back saves computing four.
    assert pages_worth([0.4e-3 * 64] * 8, 64, 512, linear(1e-3), own=256) == 8
    assert pages_worth([0.6e-3 * 64] * 8, 64, 512, linear(1e-3), own=256) == 4


def test_the_choice_is_never_slower_by_more_than_a_tenth():
    chance = random.Random(17)
    for _ in range(500):
        costs = Costs(*(10 ** chance.uniform(-5, -1) for _ in range(3)))
        prefill = linear(10 ** chance.uniform(-5, -1), 10 ** chance.uniform(-9, -5))
        size = chance.choice([16, 64, 256])
        found = sorted(chance.choices([RAW, CODED, DISK], k=chance.randint(1, 40)), key=lambda _: chance.random())
        total = len(found) * size + chance.randint(0, 500)

        seconds = costs.of(found, size)

        def takes(count, seconds=seconds, size=size, total=total, prefill=prefill):
            return sum(seconds[:count]) + prefill.seconds(count * size, total - count * size)

        best = min(map(takes, range(len(found) + 1)))
        assert takes(pages_worth(seconds, size, total, prefill)) <= 1.1 * best


class Status:
    """A session of a daemon that tells what pulls take."""

    profile, token_bytes, answers, asked = bytes(range(32)), 128, True, 0

    def __init__(self, **micros):
        self.micros = {"raw": None, "coded": None, "disk": None, "shared": None} | micros

    @property
    def client(self):
        return self

    def bounded(self, _):
        return nullcontext()

    def status(self):
        self.asked += 1
        if not self.answers:
            raise KvtcError("away")
        costs = {name: {"us_per_token": value, "pulls": 1} for name, value in self.micros.items()}
        other = {name: {"us_per_token": 1.0, "pulls": 1} for name in self.micros}
        return {
            "restore_costs": [
                {"tenant": 1, "profile": None, "token_bytes": 128} | other,
                {"tenant": 1, "profile": self.profile.hex(), "token_bytes": 128} | costs,
            ]
        }


def test_the_daemon_is_asked_now_and_then():
    now, session = [0.0], Status(coded=250.0)
    even = BreakEven(lambda: now[0])
    even.ask(session, 1)
    assert even.costs == Costs(coded=250e-6)
    session.micros["raw"] = 2.0
    # A daemon of before knows of no other machines.
    del session.micros["shared"]
    even.ask(session, 1)
    assert session.asked == 1
    now[0] += breakeven.REFRESH
    even.ask(session, 1)
    assert even.costs == Costs(raw=2e-6, coded=250e-6)
    session.micros["shared"] = 900.0
    now[0] += breakeven.REFRESH
    even.ask(session, 1)
    assert even.costs.of([Residence.SHARED, Residence.RAW, Residence.DISK], 16) == [pytest.approx(0.0144), pytest.approx(32e-6), None]
    session.answers = False
    now[0] += breakeven.REFRESH
    even.ask(session, 1)
    assert session.asked == 4 and even.costs == Costs(raw=2e-6, coded=250e-6, shared=900e-6)
    assert Costs.told({}, b"", 128) == Costs(), "an earlier daemon"
    assert Costs.told(session.__class__().status(), b"", 128) == Costs(1e-6, 1e-6, 1e-6, 1e-6), "no profile"


def test_figures_that_speak_against_it_are_tried_now_and_then():
    even = BreakEven()
    even.note(0, 100, 0.1)
    counts = [even.pages([64.0] * 20, 64, 1280) for _ in range(64)]
    assert {counts[31], counts[63]} == {4} and sum(counts) == 8


TOKENS = list(range(1000, 1800))


class TellingSession(FakeSession):
    micros = 0.0

    def status(self):
        costs = {name: {"us_per_token": self.micros, "pulls": 1} for name in ("raw", "coded", "disk")}
        return {"restore_costs": [{"tenant": 1, "profile": None, "token_bytes": self.token_bytes} | costs]}


@pytest.fixture
def timed(monkeypatch):
    """A worker whose tokens take a millisecond each, and a session that has pages of its prompt."""
    now = [0.0]

    class TimedWorker(FakeWorker):
        def prefill(self, tokens):
            now[0] += 1e-3 * len(tokens)
            self.set_state(filled_worker(TOKENS[: self.position + len(tokens)]).state)
            return super().prefill(tokens)

    session = TellingSession()
    prompts.offload(session, filled_worker(TOKENS), TOKENS)
    monkeypatch.setitem(breakeven._known, session.identity, BreakEven(lambda: now[0]))
    return session, TimedWorker(), now


@pytest.mark.parametrize(("micros", "restored"), [(100.0, 800), (5000.0, 0)])
def test_resuming_takes_the_quicker_way(timed, micros, restored):
    session, worker, now = timed
    session.micros = micros
    # Before any prefill was seen all is brought back; what is computed behind it tells how long that takes.
    behind = list(range(40))
    prompts.resume(session, worker, TOKENS + behind)
    assert worker.prefilled == behind
    worker.truncate(0)
    now[0] = 0.0
    prompts.resume(session, worker, TOKENS)
    assert worker.prefilled == ([TOKENS[-1]] if restored else TOKENS)
    assert now[0] == pytest.approx(0.001 if restored else 0.8)
    assert worker.position >= len(TOKENS) - 1


def test_who_wants_pages_back_whatever_it_takes_gets_them(timed):
    session, worker, _ = timed
    session.micros = 5000.0
    prompts.resume(session, worker, TOKENS, always_restore=True)
    assert worker.prefilled == [TOKENS[-1]]
