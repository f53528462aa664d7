"""One tenant of a soak: a process that pushes, looks up, pulls, drops and flushes at random and knows of every page what
may come back. The bytes of a page follow from tenant, conversation, version and seed, so nothing need be remembered; all
tenants use the same keys, and so do two conversations each, which are of different models, so that a page handed to the
wrong one shows as wrong bytes."""

import hashlib
import os
import random
import time
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache

import numpy as np

import kvtc
from kvtc import (
    ConnectionLost,
    ErrorCode,
    KvtcError,
    Mode,
    Policy,
    PullOutcome,
    PushOutcome,
    RequestTimedOut,
    Residence,
    Unreachable,
)
from kvtc.protocol import messages, wire

from synthetic import GEOMETRY, LAYOUT, TOKENS, contents, rows

PAGES = 10
SINK, PROTECTED = 4, (100, 110)
LEASE_SECONDS = 30
# What coding at a ratio of 8 may cost of a page's energy; another page's values cost 2.
DISTORTION = 0.2


class Push(Enum):
    """What is known of a page."""

    NEVER = "not pushed, or dropped and that acknowledged"
    UNSURE = "a push or drop was under way when the connection ended"
    ACKNOWLEDGED = "pushed and acknowledged"
    FLUSHED = "a later flush was acknowledged"


@dataclass
class PageState:
    push: Push = Push.NEVER
    # The daemon process that acknowledged it.
    instance: int = 0
    # Digests of the tensors of the lossy form seen last: one block always decodes to the same bytes.
    coded: dict = field(default_factory=dict)


@dataclass
class Conversation:
    number: int
    lossy: bool
    pinned: bool
    version: int = 0
    # A push that the client did not wait for may be carried out at any later time, as long as that daemon lives.
    haunted: int = 0
    pages: list[PageState] = field(default_factory=lambda: [PageState() for _ in range(PAGES)])

    @property
    def keys(self):
        return conversation_keys(self.number // 2)

    @property
    def identity(self):
        return [b"", b"other weights"][self.number % 2]


@lru_cache(maxsize=4096)
def conversation_keys(number):
    return kvtc.page_keys(np.arange(PAGES * TOKENS) + number, TOKENS)


@dataclass(frozen=True)
class Terms:
    """What this soak's daemon promises."""

    seed: int
    socket: str
    profile: str
    # The disk holds all that is ever pushed: nothing may be missing while the daemon runs, nor after it if flushed.
    is_roomy: bool
    # Calls of the daemon fail on purpose: only what a flush covered counts, and only when all is well again.
    is_faulty: bool
    # Calls claim success for what they did not do: no promise holds but that of right bytes.
    is_lying: bool
    conversations: int
    push_limit: int


@dataclass
class Findings:
    wrong: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    verified_pages: int = 0
    exact_pages: int = 0
    lossy_pages: int = 0
    pushed_pages: int = 0
    flushes: int = 0
    drops: int = 0
    reconnects: int = 0
    hang_ups: int = 0
    expired_leases: int = 0


class Tenant:
    def __init__(self, number, terms):
        self.number, self.terms = number, terms
        self.random = random.Random(terms.seed * 1000003 + number)
        self.findings = Findings()
        self.client = None
        self.sessions = {}
        self.conversations = [Conversation(n, lossy=n % 2 == 1, pinned=n < 2) for n in range(terms.conversations)]
        self.pushed_bytes = 0

    # --- the oracle

    def bytes_of(self, conversation):
        return self._bytes(conversation.number, conversation.version)

    @lru_cache(maxsize=48)  # noqa: B019 (a tenant is a process's whole life)
    def _bytes(self, number, version):
        return contents([self.terms.seed, self.number, number, version], PAGES)

    def must_be_there(self, conversation, page):
        if self.terms.is_lying or not (self.terms.is_roomy or conversation.pinned):
            return False
        if page.push is Push.FLUSHED:
            return True
        return page.push is Push.ACKNOWLEDGED and page.instance == self.client.instance and not self.terms.is_faulty

    def judge(self, conversation, index, back, is_final=False):
        """Compares what a pull gave for a page (None: nothing) with what it may give."""
        page = conversation.pages[index]
        where = [self.number, conversation.number, conversation.version, index, page.push.name]
        if back is None:
            excused = self.terms.is_faulty and not is_final
            if self.must_be_there(conversation, page) and not excused:
                self.findings.lost.append(where)
            return
        self.findings.verified_pages += 1
        strict = self.terms.is_roomy and not self.terms.is_faulty
        if page.push is Push.NEVER and strict:
            self.findings.wrong.append([*where, "a dropped page came back"])
        expected = self.bytes_of(conversation)[index]
        if back == expected:
            self.findings.exact_pages += 1
            page.coded.clear()
        else:
            fault = self._lossy_fault(conversation, index, back, expected, page)
            if fault:
                self.findings.wrong.append([*where, fault])
        if page.push is not Push.FLUSHED:
            page.push, page.instance = Push.ACKNOWLEDGED, self.client.instance

    def _lossy_fault(self, conversation, index, back, expected, page):
        if not conversation.lossy:
            return "a lossless page with other bytes"
        if len(back) != len(expected):
            return f"{len(back)} bytes instead of {len(expected)}"
        exact = LAYOUT.views(GEOMETRY, TOKENS, bytearray(expected))
        for name, view in LAYOUT.views(GEOMETRY, TOKENS, bytearray(back)).items():
            # Layers that were asked for before the page was coded are exact.
            if (view != exact[name]).any():
                digest = hashlib.sha256(view.tobytes()).digest()
                if page.coded.setdefault(name, digest) != digest:
                    return "the same block decoded to other bytes"
        self.findings.lossy_pages += 1
        pushed, pulled = rows([expected]), rows([back])
        positions = np.arange(index * TOKENS, (index + 1) * TOKENS)
        protected = (positions < SINK) | (positions >= PROTECTED[0]) & (positions < PROTECTED[1])
        if (pushed[protected] != pulled[protected]).any():
            return "a protected row is not exact"
        error = ((pushed - pulled) ** 2).sum() / (pushed**2).sum()
        return "" if error < DISTORTION else f"distortion {error:.3f}"

    # --- the load

    def run(self, stop):
        steps = [
            (self.resume, 40), (self.go_on, 30), (self.flush, 6), (self.drop, 6), (self.touch, 6), (self.hang_up, 4), (self.flush_session, 8),
        ]
        actions, weights = zip(*steps)
        while not stop():
            action = self.random.choices(actions, weights)[0]
            self._guarded(action, stop)
        self._disconnect()

    def _guarded(self, action, stop):
        try:
            if self.client is None:
                self._connect(stop)
            if self.client is not None:
                action()
        except (ConnectionLost, Unreachable):
            self._disconnect()
            self.findings.reconnects += 1
        except RequestTimedOut as error:
            self._disconnect()
            self.findings.errors.append([action.__name__, str(error)])
        except KvtcError as error:
            # A daemon that stops says so, a disk that fails is reported by the flush that meets it, and a profile that could
            # not be read at the start is not there until the directory is read again.
            if error.code == ErrorCode.SHUTTING_DOWN:
                self._disconnect()
            elif not (error.code in (ErrorCode.IO_ERROR, ErrorCode.UNKNOWN_PROFILE) and self.terms.is_faulty):
                self.findings.errors.append([action.__name__, str(error)])

    def _connect(self, stop):
        while not stop():
            try:
                # It has to know which process acknowledged what, so it connects again by itself.
                self.client = kvtc.connect(self.terms.socket, arena_bytes=self.random.choice([0, 1 << 20, 4 << 20]), reconnect=0)
                return
            except (Unreachable, ConnectionLost):
                time.sleep(0.02)

    def _disconnect(self):
        self.sessions.clear()
        if self.client is not None:
            self.client.close()
            self.client = None

    def _pick(self):
        # Some conversations come back often, most rarely.
        return self.conversations[int(len(self.conversations) * self.random.random() ** 2)]

    def _open(self, conversation, keep):
        policy = Policy(priority=self.random.choice([100, 128, 128, 200]), flags=int(conversation.pinned))
        if conversation.lossy:
            policy.mode, policy.quality, policy.protected = Mode.TRANSFORM, 8.0, [kvtc.Range(*PROTECTED)]
            policy.sink = SINK
        session = self.client.open_session(
            f"c{conversation.number}", profile=self.terms.profile, layout=LAYOUT, policy=policy, page_tokens=TOKENS,
            identity=conversation.identity,
        )
        if keep:
            old = self.sessions.pop(conversation.number, None)
            if old is not None:
                old[0].close()
            self.sessions[conversation.number] = (session, 0)
            while len(self.sessions) > 6:
                self.sessions.pop(next(iter(self.sessions)))[0].close()
        return session

    def resume(self):
        """What a worker does when a conversation returns: look up, pull what is there, push the rest."""
        conversation = self._pick()
        session = self._open(conversation, keep=True)
        # The daemon counts whole milliseconds.
        expiry = time.monotonic() + LEASE_SECONDS
        found = session.lookup(conversation.keys, lease_ms=self.random.choice([0, round(LEASE_SECONDS * 1000)]))
        self._pull(conversation, session, found)
        if found.lease:
            # On a machine that stood still its time may be over, and what it covered is pulled without it.
            self.findings.expired_leases += time.monotonic() > expiry
            found.lease.release()
        if self.random.random() < 0.6:
            self._push(conversation, session, 0, self.random.randint(1, PAGES))

    def go_on(self):
        """Pushes the next pages of a session that is open."""
        if not self.sessions:
            return self.resume()
        number = self.random.choice(list(self.sessions))
        session, end = self.sessions[number]
        if end < PAGES:
            self._push(self.conversations[number], session, end, min(PAGES, end + self.random.randint(1, 4)))
        return None

    def _pull(self, conversation, session, found=None, is_final=False):
        step = self.random.choice([None, None, 1, 3])
        back = [None] * PAGES
        for part in session.pull(conversation.keys, layer_step=step, lease=found.lease if found else None):
            if part.outcome == PullOutcome.HIT:
                page = back[part.index]
                if page is None:
                    # The size of a page follows from its first part.
                    tokens = len(part.data) // LAYOUT.page_bytes(GEOMETRY, 1, part.layers)
                    page = back[part.index] = bytearray(LAYOUT.page_bytes(GEOMETRY, tokens))
                whole = LAYOUT.views(GEOMETRY, TOKENS, page)
                for name, view in LAYOUT.views(GEOMETRY, TOKENS, part.data, part.layers).items():
                    whole[name][...] = view
                continue
            # The layers before it are worth nothing: the page may go between two requests of one pull.
            back[part.index] = None
            if part.outcome != PullOutcome.MISS and not (self.terms.is_lying and part.outcome == PullOutcome.CORRUPT):
                where = f"page {part.index} of conversation {conversation.number}"
                self.findings.errors.append(["pull", f"{where}: {part.outcome.name}"])
        for index, page in enumerate(back):
            self.judge(conversation, index, None if page is None else bytes(page), is_final)
            is_held = found is not None and found.lease is not None and found.lease.number
            promised = is_held and found.residence[index] != Residence.ABSENT
            if page is None and promised and not self.terms.is_faulty:
                self.findings.lost.append([self.number, conversation.number, index, "under a lease"])

    def _push(self, conversation, session, begin, end):
        pages = conversation.pages[begin:end]
        if self.pushed_bytes > self.terms.push_limit and any(page.push is not Push.FLUSHED for page in pages):
            return
        data = self.bytes_of(conversation)
        batch = [kvtc.Page(conversation.keys[i], i * TOKENS, data[i]) for i in range(begin, end)]
        for page in pages:
            if page.push is Push.NEVER:
                page.push = Push.UNSURE
        try:
            outcomes = session.push(batch)
        except KvtcError as error:
            # Refused as a whole: nothing has changed. (A page before the session's end has gone meanwhile.)
            if error.code != ErrorCode.POSITION_CONFLICT or self.terms.is_roomy:
                raise
            return
        for page, outcome in zip(pages, outcomes):
            if outcome in (PushOutcome.STORED, PushOutcome.PRESENT):
                self.findings.pushed_pages += outcome == PushOutcome.STORED
                self.pushed_bytes += len(data[0]) if outcome == PushOutcome.STORED else 0
                if page.push is not Push.FLUSHED or outcome == PushOutcome.STORED:
                    page.push, page.instance = Push.ACKNOWLEDGED, self.client.instance
        if conversation.number in self.sessions:
            self.sessions[conversation.number] = (session, end)

    def flush(self):
        self._flushed(self.conversations, lambda: self.client.flush())

    def flush_session(self):
        if self.sessions:
            number, (session, end) = self.random.choice(list(self.sessions.items()))
            pages = Conversation(number, False, False, pages=self.conversations[number].pages[:end])
            self._flushed([pages], session.flush)

    def _flushed(self, conversations, flush):
        pages = [page for c in conversations for page in c.pages]
        covered = [p for p in pages if p.push is Push.ACKNOWLEDGED and p.instance == self.client.instance]
        flush()
        self.findings.flushes += 1
        for page in covered:
            page.push = Push.FLUSHED

    def drop(self):
        conversation = self._pick()
        if conversation.pinned or conversation.haunted == self.client.instance:
            return
        if conversation.number in self.sessions:
            self.sessions.pop(conversation.number)[0].close()
        for page in conversation.pages:
            page.push = Push.UNSURE
        session = self._open(conversation, keep=False)
        session.drop(conversation.keys)
        session.close()
        self.findings.drops += 1
        for page in conversation.pages:
            page.push = Push.NEVER
            page.coded.clear()
        # Where a failing disk may undo a drop, the same bytes are pushed again.
        if self.terms.is_roomy and not self.terms.is_faulty:
            conversation.version += 1

    def touch(self):
        conversation = self._pick()
        session = self._open(conversation, keep=False)
        session.touch(conversation.keys)
        session.prefetch(conversation.keys)
        session.close()

    def hang_up(self):
        """Goes away in the middle of a push, as a worker that crashes."""
        conversation = self._pick()
        session = self._open(conversation, keep=False)
        conversation.haunted = self.client.instance
        data = self.bytes_of(conversation)
        entries = [messages.PushEntry(key, i * TOKENS, TOKENS, i * len(data[i]), len(data[i])) for i, key in enumerate(conversation.keys)]
        for page in conversation.pages:
            if page.push is Push.NEVER:
                page.push = Push.UNSURE
        self.client.connection.start(messages.Push(session.number, wire.NONE32, entries, b"".join(data)))
        self.pushed_bytes += len(data) * len(data[0])
        self.findings.hang_ups += 1
        self._disconnect()

    def check(self):
        """Everything once more, at the end."""
        self._connect(lambda: False)
        for conversation in self.conversations:
            session = self._open(conversation, keep=False)
            self._pull(conversation, session, is_final=True)
            session.close()
        self._disconnect()


def main(number, user, terms, deadline, channel):
    """The tenant's process: load until the deadline, then, told so, the last check."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    tenant = Tenant(number, terms)
    try:
        tenant.run(lambda: time.monotonic() > deadline)
        channel.send("idle")
        channel.recv()
        tenant.check()
    except BaseException as error:
        tenant.findings.errors.append(["tenant", f"{type(error).__name__}: {error}"])
    channel.send(tenant.findings)
