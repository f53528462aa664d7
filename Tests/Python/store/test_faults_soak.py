"""A few seconds of each kind of soak; `deploy/soak` runs them for as long as you like."""

import os
import random
import shutil
from types import SimpleNamespace

import pytest

from kvtc import PullOutcome
from kvtc.pull import Part

import soak
import soak_tenant
from synthetic import GEOMETRY, LAYOUT, TOKENS


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    return soak.SyntheticProfile.make(tmp_path_factory.mktemp("soak"))


@pytest.mark.parametrize("kind", soak.KINDS)
def test_nothing_is_wrong_lost_or_leaked(kind, profile):
    if kind in ("faulty", "lying") and not shutil.which("strace"):
        pytest.skip("needs strace")
    seed = int(os.environ.get("KVTC_SEED", 0)) or random.SystemRandom().randrange(1 << 32)
    print(f"soak seed {seed} (KVTC_SEED={seed} repeats it)")
    found = soak.Round(kind, seed, 4, profile, tenants=2).run()
    assert found.is_clean, found.problems
    assert found.verified_pages > 0 and found.flushes > 0


def test_a_lease_that_ran_out_is_no_fault(profile, monkeypatch):
    """As on a machine that stands still while a client holds a lease."""
    monkeypatch.setattr(soak_tenant, "LEASE_SECONDS", 0.001)
    round = soak.Round("roomy", 1, 0, profile)
    try:
        round._start()
        tenant = soak_tenant.Tenant(0, round.terms)
        steps = iter(range(500))
        tenant.run(lambda: tenant.findings.expired_leases > 3 or next(steps, None) is None)
    finally:
        round._close()
    assert tenant.findings.expired_leases > 3
    assert not (tenant.findings.errors or tenant.findings.lost or tenant.findings.wrong)


class Pulled:
    """A session whose pulls give just these parts."""

    def __init__(self, *parts):
        self.parts = parts

    def pull(self, keys, **options):
        return iter(self.parts)


# One without protected rows.
INDEX = 2


def some_layers(page, layers):
    """A hit with some layers of a page."""
    data = bytearray(LAYOUT.page_bytes(GEOMETRY, TOKENS, layers))
    whole = LAYOUT.views(GEOMETRY, TOKENS, bytearray(page))
    for name, view in LAYOUT.views(GEOMETRY, TOKENS, data, layers).items():
        view[...] = whole[name]
    return Part(INDEX, b"", PullOutcome.HIT, layers, memoryview(data))


@pytest.fixture
def tenant():
    terms = soak_tenant.Terms(
        seed=1, socket="", profile="", is_roomy=False, is_faulty=False, is_lying=True, conversations=2, push_limit=0
    )
    tenant = soak_tenant.Tenant(0, terms)
    tenant.client = SimpleNamespace(instance=1)
    return tenant


@pytest.mark.parametrize("outcome", [PullOutcome.MISS, PullOutcome.CORRUPT])
def test_a_page_that_fails_after_some_of_its_layers_is_none(tenant, outcome):
    """A small arena makes two requests of one pull, and between them a page may leave the store or be damaged."""
    conversation = tenant.conversations[1]
    page = tenant.bytes_of(conversation)[INDEX]
    tenant._pull(conversation, Pulled(some_layers(page, range(3)), Part(INDEX, b"", outcome, range(3, 4), memoryview(b""))))
    assert not (tenant.findings.wrong or tenant.findings.errors) and tenant.findings.verified_pages == 0


def test_a_page_that_is_coded_between_its_layers_is_right(tenant):
    conversation = tenant.conversations[1]
    exact = tenant.bytes_of(conversation)[INDEX]
    lossy, other = (bytearray(exact) for _ in range(2))
    lossy[-1] ^= 1
    other[-1] ^= 2
    last = GEOMETRY.layers - 1
    mixed = [some_layers(exact, range(last)), some_layers(lossy, range(last, last + 1))]
    for parts in mixed, [some_layers(lossy, range(last + 1))]:
        tenant._pull(conversation, Pulled(*parts))
    assert not tenant.findings.wrong and tenant.findings.lossy_pages == 2
    tenant._pull(conversation, Pulled(some_layers(other, range(last + 1))))
    assert len(tenant.findings.wrong) == 1
