"""The kernels compile for GPUs: the interpreter takes what the compiler does not."""

import pytest

pytest.importorskip("xxhash", reason="runs in an environment of its own: deploy/setup --with gpu")

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kvtc.gpu.kernels import decode, encode, finish, measure, product

TYPES = {
    "data": "*u8", "table": "*i64", "groups": "*i32", "levels": "*i32", "seconds": "*i32", "places": "*i32", "slots": "*i32", "low": "*i8",
    "high": "*i8", "status": "*i32", "bounds": "*i64", "digits": "*i8", "terms": "*i32", "steps": "*fp32", "given": "*i32", "x": "*fp32",
    "matrices": "*fp32", "weights": "*fp32", "means": "*fp32", "angles": "*fp32", "tiles": "*i32", "pairs": "*i32", "y": "*fp32",
    "firsts": "*i32", "group_first": "*i32", "group_size": "*i32", "step_sizes": "*fp32", "inverses": "*fp32", "offsets": "*i32",
    "costs": "*i32", "bits": "*i64", "errors": "*fp32", "energies": "*fp32", "options": "*u8", "frequencies": "*i32", "starts": "*i32",
    "words": "*i16", "counts": "*i32",
}

def build(kernel, constants={}, types={}, **options):
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else {**TYPES, **types}.get(name, "i32") for name in names}
    aligned = [name for name in names if kernel is product.inverse and name not in constants and name != "term_count"]
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, attributes)
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    built = triton.compile(source, target=target, options={"enable_fp_fusion": False, **options})
    return built.asm["ptx"]

build(decode.decode_chunks, num_warps=1)
build(decode.decode_pages, num_warps=1)
for by in ("int8", "bf16"):
    ptx = build(product.inverse, dict(ROWS=128, COLUMNS=128, STEP=64, GROUP=8, BY=by), num_warps=8, num_stages=3)
    assert "mma" in ptx
for element, bits in ((2, "*i16"), (4, "*i8")):
    for has_matrix in (False, True):
        constants = dict(ROWS=64, PAIRS=32, HAS_MATRIX=has_matrix, ELEMENT=element)
        ptx = build(finish.finish, constants, {"out": bits, "slots": "*i64"})
        # A fused operation rounds once where the format rounds twice: there are those of the matrices only.
        assert ("fma.rn.f32" in ptx) == has_matrix, (element, has_matrix)
for offsets in (1, 8):
    build(measure.measure, dict(OFFSETS=offsets, ROWS=16), {"steps": "*i32", "groups": "i32"})
build(encode.encode_chunks, num_warps=1)
"""


@pytest.mark.parametrize("capability", [90, 100])
def test_every_kernel_compiles(capability, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(ROOT / "Sources" / "Python"), "PYTHONDONTWRITEBYTECODE": "1", "TRITON_CACHE_DIR": str(tmp_path)}
    # From a file, as Triton reads a kernel's source.
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(capability)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
