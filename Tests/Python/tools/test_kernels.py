"""Which of OpenBLAS's kernels calibration runs on, and what kvtcctl says before and while it does."""

import json
import os
import subprocess

import pytest

from conftest import binary
from kernels import runnable
from synthetic import write_samples

RUNNABLE = runnable()
AMD = "AuthenticAMD" in open("/proc/cpuinfo").read()


def kvtcctl(*arguments, **environment):
    variables = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | environment
    command = [binary("kvtcctl", "KVTCCTL"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300, check=True)


@pytest.mark.skipif(not RUNNABLE, reason="kernels are chosen on x86 alone")
def test_the_best_kernels_that_the_processor_can_run_are_chosen():
    best = "Zen" if AMD and RUNNABLE[-1] == "Haswell" else RUNNABLE[-1]
    for unset in ({}, {"OPENBLAS_CORETYPE": ""}):
        assert json.loads(kvtcctl("bench", "--pages", 1, "--json", **unset).stdout)["matrix_products"]["kernels"] == best
    assert f"OpenBLAS's {best} kernels" in kvtcctl("bench", "--pages", 1).stdout


@pytest.mark.skipif(len(RUNNABLE) < 2, reason="there is nothing to choose from")
@pytest.mark.parametrize("kernels", RUNNABLE)
def test_kernels_that_someone_names_are_used(kernels):
    text = kvtcctl("bench", "--pages", 1, OPENBLAS_CORETYPE=kernels).stdout
    assert f"OpenBLAS's {kernels} kernels" in text
    # A sixth of what AVX-512 can do, a third of what AVX2 can: far enough from half for any noise.
    if kernels == "Prescott" and "Haswell" in RUNNABLE:
        assert "Others would be much faster" in text


def test_a_calibration_says_what_it_takes_and_how_far_it_is(tmp_path):
    samples = tmp_path / "samples.safetensors"
    write_samples(samples, 6000)
    said = kvtcctl("calibrate", samples, "--out", tmp_path / "many.kvtc.safetensors").stderr.splitlines()
    assert said[0].startswith("kvtcctl: 6 000 tokens of 256 elements: about ") and "of memory" in said[0] and "kernels" in said[0]
    percents = [int(line.removeprefix("kvtcctl: ").split(" %")[0]) for line in said[1:]]
    assert percents == sorted(percents) and percents[-1] == 100
    # A line for each of five stages and for every ten percent: a log is not flooded however long it takes.
    assert 6 <= len(percents) <= 20
    assert not any("warning" in line for line in said)


def test_too_few_tokens_for_the_elements_are_warned_of(tmp_path):
    few = tmp_path / "few.safetensors"
    write_samples(few, 300)
    said = kvtcctl("calibrate", few, "--out", tmp_path / "few.kvtc.safetensors").stderr.splitlines()
    assert "warning: 300 tokens for 256 elements a token" in said[0] and "2.5 times the distortion" in said[0] and "512 or more" in said[0]
