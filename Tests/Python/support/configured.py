"""Runs kvtcd as its tests of configuration do."""

import json
import os
import subprocess

from conftest import binary


def kvtcd(*arguments, prefix=(), environment=None, **options):
    """Exit status, output and complaints of a run that must end by itself."""
    result = subprocess.run(
        [*prefix, binary("kvtcd", "KVTCD"), *map(str, arguments)],
        env=os.environ | (environment or {}),
        capture_output=True,
        timeout=60,
        **options,
    )
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def check(file, text, *arguments):
    """What --check-config makes of a configuration: exit status and complaints without the file's name."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, _, complaints = kvtcd("--check-config", "--config", file, *arguments)
    return status, complaints.replace(str(file), "f").splitlines()


def report(*arguments, **options):
    """The settings that --check-config --json shows, by key."""
    status, output, complaints = kvtcd("--check-config", "--json", *arguments, **options)
    assert status == 0 and complaints == "", complaints
    return {setting["key"]: setting for setting in json.loads(output)["settings"]}
