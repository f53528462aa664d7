"""OpenBLAS's kernels that this processor has the instructions for."""

from pathlib import Path

_NEEDS = {
    "Prescott": {"pni"},
    "Nehalem": {"sse4_2", "popcnt"},
    "Sandybridge": {"avx"},
    "Haswell": {"avx2", "fma", "bmi2", "f16c"},
    "SkylakeX": {"avx2", "fma", "bmi2", "f16c", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


def runnable() -> list[str]:
    """Their names, the slowest first; none on processors other than x86."""
    line = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    flags = set(line.split())
    return [name for name, needed in _NEEDS.items() if needed <= flags]
