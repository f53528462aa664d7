"""A few seconds of each kind of soak; `deploy/soak` runs them for as long as you like."""

import os
import random
import shutil

import pytest

import soak
import soak_tenant


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
    round = soak.Round("roomy", 1, 0, profile, tenants=1)
    try:
        round._start()
        tenant = soak_tenant.Tenant(os.geteuid(), round.terms)
        steps = iter(range(500))
        tenant.run(lambda: tenant.findings.expired_leases > 3 or next(steps, None) is None)
    finally:
        round._close()
    assert tenant.findings.expired_leases > 3
    assert not (tenant.findings.errors or tenant.findings.lost or tenant.findings.wrong)
