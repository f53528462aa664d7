"""A fleet of two machines and a cluster of real servers: a conversation moves, servers die, tenants stay apart.

python -m kvtc_evaluation.fleet --kvtcd PATH --kvtcctl PATH [--quick] [--json FILE]

With --quick no model is loaded: pages of a known content take the place of a conversation.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kvtc.calibration.progress import Phases, complain, say
from kvtc.protocol.errors import KvtcError

from ..daemon import DaemonFailed
from ..demo.report import phase_table
from . import faults, isolation, lookups
from .cluster import Cluster, ClusterFailed
from .host import Host, new_secret, users
from .pages import Pages
from .report import Report

if TYPE_CHECKING:
    from .conversation import Moved

INTERRUPTED = 130
# Pages of a host that keeps few of them itself, and so has to have them from the others.
SMALL_RAM_MIB = 16
# The limits that a daemon has where nothing else is said.
USUAL = {"lookup_ms": 5, "pull_ms": 500}


def run(options: argparse.Namespace, phases: Phases) -> Report:
    """All of it; raises when a step does not do what it must."""
    with Cluster(options.server) as cluster:
        report = Report(server=cluster.version, is_thorough=not options.quick)
        report.details["seed"] = options.seed
        for name in options.only or PARTS:
            PARTS[name](options, cluster, report, phases)
    return report


def _moves(options: argparse.Namespace, cluster: Cluster, report: Report, phases: Phases) -> None:
    if options.quick:
        with phases.phase("pages move to another machine"):
            return _move_pages(options, cluster, report)
    # Models are no part of the quick form, nor what reads them.
    from .conversation import move

    _take(report, move(options, cluster, phases))


def _take(report: Report, moved: Moved) -> None:
    report.moved_conversation_ok = moved.same_state
    report.same_tokens, report.kl = moved.same_tokens, round(moved.kl, 6)
    report.ttft_recompute_s, report.ttft_shared_s = round(moved.ttft_recompute_s, 4), round(moved.ttft_shared_s, 4)
    report.bytes_raw, report.bytes_moved = moved.bytes_raw, moved.bytes_moved
    report.details |= {"model": moved.model, "top1": round(moved.top1, 5), "same_state": moved.same_state, "window": moved.window}


def _move_pages(options: argparse.Namespace, cluster: Cluster, report: Report) -> None:
    """A pushes and dies; B, whose worker is another user, has every byte."""
    first, second = users(2)
    secret = new_secret(cluster, "moved")
    pages = Pages(options.seed, 16)
    with _host(options, cluster, secret, first) as a, _host(options, cluster, secret, second) as b:
        a.start()
        _push(a, pages)
        a.kill()
        b.start()
        hits, wrong = isolation.found(b, pages)
        with b.connect(user=0) as client:
            report.bytes_moved = b.fetched_bytes(client)
    report.bytes_raw = pages.raw_bytes
    report.moved_conversation_ok = hits == pages.count and not wrong


def _isolates(options: argparse.Namespace, cluster: Cluster, report: Report, phases: Phases) -> None:
    with phases.phase("tenants and damage"):
        _isolate(options, cluster, report)


def _isolate(options: argparse.Namespace, cluster: Cluster, report: Report) -> None:
    """One tenant's pages, and everybody else who might get them."""
    owner, other = users(2)
    secret, foreign = new_secret(cluster, "isolated"), new_secret(cluster, "foreign")
    pages = Pages(options.seed + 1, 8)
    checks: dict[str, bool] = {}
    with contextlib.ExitStack() as stack:

        def host(secret: Path, user: int, **settings: str) -> Host:
            made = stack.enter_context(_host(options, cluster, secret, user, **settings))
            made.start()
            return made

        _push(host(secret, owner), pages)
        same = host(secret, other)
        checks["servers learn nothing"] = isolation.learns_nothing(cluster, pages, secret)
        checks["another user's daemon, same tenant"] = isolation.found(same, pages) == (pages.count, 0)
        checks["another tenant of that daemon"] = same.user == 0 or isolation.found(same, pages, user=0) == (0, 0)
        checks["another tenant of that name elsewhere"] = isolation.found(host(secret, owner, tenant="other"), pages) == (0, 0)
        checks["another fleet"] = isolation.found(host(foreign, owner), pages) == (0, 0)
        for share, cut in ((0.001, False), (0.5, False), (0.999, False), (0.5, True)):
            damaged = Pages(options.seed + 10 + int(share * 1000) + cut, 4)
            source, reader = host(secret, owner), host(secret, other)
            _push(source, damaged)
            what = f"{'cut' if cut else 'a bit changed'} at {share:.1%}"
            checks[what] = isolation.damage(cluster, b"kvtc", share, cut) >= damaged.count and isolation.found(reader, damaged) == (0, 0)
            with reader.connect(user=0) as client:
                checks[f"{what}, counted"] = reader.damaged_pages(client) >= damaged.count
    report.details["isolation"] = checks
    report.tenant_isolation_ok = all(checks.values())


def _survives(options: argparse.Namespace, cluster: Cluster, report: Report, phases: Phases) -> None:
    with phases.phase("servers, daemons and networks fail"):
        _fail(options, cluster, report)


def _fail(options: argparse.Namespace, cluster: Cluster, report: Report) -> None:
    """Two small hosts under load, while everything else is not to be relied on."""
    first, second = users(2)
    secret = new_secret(cluster, "failover")
    pages = Pages(options.seed + 2, 40 if options.quick else 200)
    with _host(options, cluster, secret, first) as source:
        source.start()
        _push(source, pages)
    cluster.await_copies()
    with (
        _host(options, cluster, secret, first, ram_mib=SMALL_RAM_MIB, disk_mib=0, **USUAL) as a,
        _host(options, cluster, secret, second, ram_mib=SMALL_RAM_MIB, disk_mib=0, **USUAL) as b,
    ):
        for host in (a, b):
            host.start()
        survived = faults.survive(cluster, [a, b], pages, options.seconds, options.seed)
    report.failover_wrong_bytes = survived.total("wrong")
    report.failover_stuck = survived.total("stuck") + survived.total("failed") + (not survived.found_again)
    names = ("calls", "hits", "misses", "failed")
    report.details["failover"] = survived.blows | {name: survived.total(name) for name in names} | {
        "found_again": survived.found_again, "longest_s": round(max(outcome.longest for outcome in survived.outcomes), 3),
    }


def _does_without(options: argparse.Namespace, cluster: Cluster, report: Report, phases: Phases) -> None:
    with phases.phase("lookups while the cluster is away"):
        _lookups(options, cluster, report)


def _lookups(options: argparse.Namespace, cluster: Cluster, report: Report) -> None:
    """With servers that are gone, and with servers that are silent."""
    (user,) = users(1)
    secret = new_secret(cluster, "lookups")
    pages = Pages(options.seed + 3, 32)
    count = 500 if options.quick else 8000
    ratios = []
    for how in ("silent", "gone"):
        with _host(options, None, None, user) as alone, _host(options, cluster, secret, user, write="never", **USUAL) as shared:
            for host in (alone, shared):
                host.start()
                with host.connect() as client:
                    pages.push(client)
            for node in range(len(cluster.ports)):
                (cluster.freeze if how == "silent" else cluster.kill)(node)
            here, missing = lookups.compare(alone, shared, pages, count)
            report.details[f"lookup_p99_us_{how}"] = {
                "here": [round(here.alone, 1), round(here.shared, 1)], "missing": [round(missing.alone, 1), round(missing.shared, 1)],
            }
            ratios.append(here.ratio)
            for node in cluster.frozen:
                cluster.thaw(node)
        if how == "silent":
            cluster.await_whole()
    report.local_lookup_p99_ratio_with_cluster_down = round(max(ratios), 3)


def _host(options: argparse.Namespace, cluster: Cluster | None, secret: Path | None, user: int, **settings: object) -> Host:
    return Host(options.kvtcd, options.kvtcctl, cluster, secret, user=user, **settings)  # type: ignore[arg-type]


def _push(host: Host, pages: Pages) -> None:
    """Pushes, and waits until the cluster has all of it."""
    with host.connect() as client:
        pages.push(client)
    with host.connect(user=0) as client:
        host.await_written(client, pages.count)


PARTS = {"conversation": _moves, "isolation": _isolates, "failover": _survives, "lookups": _does_without}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kvtc_evaluation.fleet", description=__doc__.split("\n\n")[0])
    parser.add_argument("--kvtcd", type=Path, required=True)
    parser.add_argument("--kvtcctl", type=Path, required=True)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--quick", action="store_true", help="no model: pages of a known content, and fewer of everything")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part only; may be given again")
    parser.add_argument("--server", help="the program of the servers (default: what is installed of Redis or Valkey)")
    parser.add_argument("--profile", type=Path, help="use this profile and calibrate none")
    parser.add_argument("--documents", type=int, default=2, help="held-out documents (default: %(default)s)")
    parser.add_argument("--ratio", type=float, default=16, help="asked of the coder (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, help="of failures one after the other (default: 60, with --quick one failure)")
    parser.add_argument("--seed", type=int, help="of pages and failures (default: another one each time)")
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 0 if options.quick else 60
    if options.seed is None:
        options.seed = secrets.randbelow(1_000_000)
    say(f"seed {options.seed}")
    phases = Phases()
    try:
        report = run(options, phases)
    except KeyboardInterrupt:
        print("kvtc_evaluation.fleet: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (ClusterFailed, DaemonFailed, KvtcError, OSError, RuntimeError) as error:
        complain("kvtc_evaluation.fleet", error)
        return 1
    print(report.table())
    print(f"\n{phase_table(phases.seconds)}")
    if options.json:
        report.write(options.json, phases.seconds)
    failures = report.failures()
    for failure in failures:
        print(f"kvtc_evaluation.fleet: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    # As Ctrl-C does: servers and daemons are stopped, and their directories removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
