"""kvtcctl plan: what it reads, what it says of lines that are wrong, and what it writes."""

import base64
import json
import os
import re
import struct
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conftest import binary

OUTCOME = {"hit_ratio", "hit_tokens", "computed_tokens", "compute_s", "restore_s"}
SETUP = {
    "ram_bytes", "disk_bytes", "coding", "ratio", "total_ratio", "store_hit_ratio", "ram_hit_ratio", "disk_hit_ratio", "outcome",
}  # fmt: skip
TRACE = {
    "requests", "faults", "blocks", "distinct_blocks", "block_tokens", "input_tokens", "output_tokens", "duration_s",
}  # fmt: skip
GOLDEN = Path(__file__).resolve().parents[2] / "Golden/blocks-4.json"
"""Blocks, and the profile that they are of."""
SVG = "{http://www.w3.org/2000/svg}"


def conversations(path, requests=200):
    """Ten conversations in turn, each a block longer every time, in Mooncake's form."""
    lines = []
    for number in range(requests):
        blocks = [0] + [1000 * (number % 10) + turn for turn in range(1, number // 10 + 2)]
        request = {"timestamp": 100 * number, "input_length": 512 * len(blocks), "output_length": 7, "hash_ids": blocks}
        lines.append(json.dumps(request))
    path.write_text("\n".join(lines) + "\n")
    return lines


def plan(*arguments, status=0, stdin=None, columns=None):
    environment = {"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]} | ({"COLUMNS": str(columns)} if columns else {})
    command = [binary("kvtcctl", "KVTCCTL"), "plan", *map(str, arguments)]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)
    assert result.returncode == status, result.stderr
    return result


def test_the_json_has_the_members_of_the_manual(tmp_path):
    trace = tmp_path / "trace.jsonl"
    conversations(trace)
    read = json.loads(
        plan(trace, "--token-bytes", "128KiB", "--ram", "1GiB", "--ram", "1TiB", "--disk", 0, "--disk", "1TiB", "--ratio", 1,
             "--ratio", 16, "--gpu-memory", "1GiB", "--prefill-tokens-per-second", 1000, "--restore", "16=2000", "--json").stdout
    )  # fmt: skip
    assert set(read) == {"trace", "model", "gpu_bytes", "today", "ceiling", "setups", "least"}
    assert set(read["trace"]) == TRACE and read["trace"]["requests"] == 200 and read["trace"]["duration_s"] == 19.9
    assert read["model"] == {"token_bytes": 131072, "sink": 4, "window": 128} and read["gpu_bytes"] == 1 << 30
    assert set(read["today"]) == set(read["ceiling"]) == OUTCOME
    assert [set(setup) for setup in read["setups"]] == [SETUP] * 8 and set(read["setups"][0]["outcome"]) == OUTCOME
    large = [setup for setup in read["setups"] if setup["ram_bytes"] == 1 << 40]
    assert {setup["outcome"]["hit_ratio"] for setup in large} == {read["ceiling"]["hit_ratio"]}
    assert [setup["outcome"]["restore_s"] is None for setup in read["setups"]] == [setup["ratio"] == 1 for setup in read["setups"]]
    assert len(read["least"]) == 4


def test_the_table_says_what_to_buy_and_fits(tmp_path):
    trace = tmp_path / "trace.jsonl"
    conversations(trace)
    shape = ["--layers", 32, "--kv-heads", 8, "--head-dim", 128]
    text = plan(trace, *shape, "--prefill-tokens-per-second", 1000, "--ram", "1GiB", "--ram", "64GiB", columns=80).stdout
    assert "A token takes\n  128 KiB." in text or "A token takes 128 KiB." in text
    assert "Endless memory would find" in text and "Half of what can be found beyond today takes:" in text
    assert re.search(r"^raw +.*64\.0 GiB +–", text, re.M)
    assert max(map(len, text.splitlines())) <= 80
    assert "TIME" not in plan(trace, *shape, "--ram", "1GiB").stdout


def test_slow_restoring_is_told(tmp_path):
    trace = tmp_path / "trace.jsonl"
    conversations(trace)
    rates = ["--prefill-tokens-per-second", 30_000, "--restore", "16=600"]
    text = plan(trace, "--token-bytes", "128KiB", "--ram", "1TiB", "--ratio", 16, *rates).stdout
    assert "Restoring 16× takes longer than computing" in text


def test_lines_that_are_wrong_are_named_and_passed_over_unless_strict(tmp_path):
    trace = tmp_path / "trace.jsonl"
    lines = conversations(trace)
    trace.write_text("\n".join(['{"hash_ids": [1, 2], "input_length": 5}', *lines, *(12 * ["{"])]))
    shape = ["--token-bytes", 9, "--ram", "1MiB"]
    result = plan(trace, *shape, "--json")
    assert json.loads(result.stdout)["trace"]["faults"] == 13
    named = re.findall(r"line (\d+)(?:, (\w+))?: ", result.stderr)
    assert named[0] == ("1", "hash_ids") and named[1:] == [(str(202 + number), "") for number in range(9)]
    assert "13 lines of 213 passed over as wrong" in result.stderr
    strict = plan(trace, *shape, "--strict", status=1)
    assert strict.stdout == "" and "line 1, hash_ids: " in strict.stderr and "line 202" not in strict.stderr


def test_a_log_without_prompts_is_told_how_to_have_them(tmp_path):
    log = "INFO 11-28 19:15:02 [request_logger.py:58] Received request a: params: SamplingParams(n=1), lora_request: None.\n"
    result = plan("-", "--token-bytes", 9, status=1, stdin=3 * log)
    assert "3 requests" in result.stderr and "engines log prompts only when told so" in result.stderr
    empty = plan("-", "--token-bytes", 9, status=1, stdin="")
    assert "no request" in empty.stderr
    assert "No such file" in plan(tmp_path / "none", "--token-bytes", 9, status=1).stderr


def test_a_prompt_is_known_by_its_text_and_by_its_tokens():
    requests = [{"messages": [{"role": "user", "content": "x" * 8192}]}, {"prompt": list(range(2000))}]
    lines = "".join(json.dumps(request) + "\n" for request in requests * 2)
    read = json.loads(plan("-", "--token-bytes", "1KiB", "--ram", "1GiB", "--json", stdin=lines).stdout)
    assert read["ceiling"]["hit_ratio"] == 0.5 and read["trace"]["duration_s"] is None


def test_the_model_is_read_from_its_configuration(tmp_path):
    trace = tmp_path / "trace.jsonl"
    conversations(trace)
    numbers = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_size": 4096, "torch_dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(numbers))
    for model in (tmp_path, tmp_path / "config.json"):
        assert json.loads(plan(trace, "--model", model, "--ram", "1GiB", "--json").stdout)["model"]["token_bytes"] == 131072
    times = ["--parameters", "8e9", "--gpu-tflops", 500]
    read = json.loads(plan(trace, "--model", tmp_path, "--ram", "1GiB", *times, "--json").stdout)
    # 16 GFLOP a token, and attention.
    assert read["today"]["compute_s"] > read["trace"]["input_tokens"] * 16e9 / 500e12
    (tmp_path / "config.json").write_text("{}")
    assert "num_hidden_layers: is missing" in plan(trace, "--model", tmp_path, status=1).stderr


def gguf(path, **numbers):
    """A model's header in llama.cpp's form."""

    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    entries = [string("general.architecture") + struct.pack("<I", 8) + string("llama")]
    entries += [string(f"llama.{name.replace('__', '.')}") + struct.pack("<II", 4, number) for name, number in numbers.items()]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))
    return path


def test_the_model_is_read_from_a_gguf_file_and_from_a_profile(tmp_path):
    trace = tmp_path / "trace.jsonl"
    conversations(trace, requests=20)

    def token_bytes(*arguments):
        return json.loads(plan(trace, "--ram", "1GiB", "--ratio", 1, "--json", *arguments).stdout)["model"]["token_bytes"]

    model = gguf(tmp_path / "m.gguf", block_count=4, embedding_length=256, attention__head_count=8, attention__head_count_kv=2)
    assert token_bytes("--model", model) == 4 * 2 * 2 * 32 * 2
    assert token_bytes("--model", model, "--element", "e4m3") == 4 * 2 * 2 * 32
    profile = tmp_path / "golden.kvtc.safetensors"
    profile.write_bytes(base64.b64decode(json.loads(GOLDEN.read_text())["profile"]))
    show = [binary("kvtcctl", "KVTCCTL"), "profile", "show", "--json", str(profile)]
    elements = json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)["row_elements"]
    assert token_bytes("--model", profile) == 2 * elements
    model.write_bytes(model.read_bytes()[:-1])
    assert "is it whole?" in plan(trace, "--model", model, status=1).stderr
    (tmp_path / "words").write_text("a model\n")
    assert "no GGUF file, no profile and no config.json" in plan(trace, "--model", tmp_path / "words", status=1).stderr
    assert "a directory without a config.json" in plan(trace, "--model", tmp_path, status=1).stderr


def test_the_picture_is_one_that_readers_of_svg_take(tmp_path):
    trace, picture = tmp_path / "trace.jsonl", tmp_path / "plan.svg"
    conversations(trace)
    plan(trace, "--token-bytes", "128KiB", "--svg", picture)
    root = ElementTree.parse(picture).getroot()
    assert root.tag == f"{SVG}svg" and root.get("viewBox") == "0 0 760 400"
    assert len(root.findall(f"{SVG}circle")) == 24 and root.find(f"{SVG}desc").text.startswith("raw: 16 GiB ")
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= 760 and 0 <= float(text.get("y")) <= 400
    assert "can't be written" in plan(trace, "--token-bytes", 9, "--svg", tmp_path / "none" / "x.svg", status=1).stderr


@pytest.mark.parametrize("cut", [1, 17, 40])
def test_a_last_line_without_its_end_is_one_more(tmp_path, cut):
    trace = tmp_path / "trace.jsonl"
    lines = conversations(trace, requests=20)
    trace.write_text("\n".join([*lines, lines[0][:-cut]]))
    assert json.loads(plan(trace, "--token-bytes", 9, "--ram", "1MiB", "--json").stdout)["trace"]["faults"] == 1


FLEET = {"trace", "model", "machine", "router", "trace_nodes", "conversations", "ceiling_ratio", "fleets"}
FLEET_LINE = {
    "nodes", "simulated_nodes", "servers", "network_gbe", "shared_budget_bytes", "coding", "ratio", "total_ratio", "here_ratio",
    "there_ratio", "fetched_ratio", "alone", "shared", "read_link_share", "write_link_share", "held_back_share", "fetch_mean_s",
    "shared_bytes", "shared_needed_bytes", "break_even_gbe", "drowning_gbe",
}  # fmt: skip
TIMES = {"ttft_mean_s", "ttft_median_s", "ttft_p99_s", "gpu_share"}


def test_machines_that_share_find_together_what_none_finds_alone(tmp_path):
    trace, picture = tmp_path / "trace.jsonl", tmp_path / "fleet.svg"
    conversations(trace)
    fleet = ["--prefill-tokens-per-second", 10_000, "--nodes", "2,100", "--network", "5gbe,100gbe", "--trace-nodes", 2]
    command = [trace, "--token-bytes", "128KiB", "--ram", "64GiB", "--ratio", 1, "--ratio", 16, *fleet]
    read = json.loads(plan(*command, "--json", "--svg", picture).stdout)
    assert set(read) == FLEET and read["router"] == "random" and read["trace_nodes"] == 2 and read["conversations"] == 10
    assert read["machine"] == {"ram_bytes": 64 << 30, "disk_bytes": 0} and set(read["trace"]) == TRACE
    lines = read["fleets"]
    assert [set(line) for line in lines] == [FLEET_LINE] * 8 and set(lines[0]["alone"]) == set(lines[0]["shared"]) == TIMES
    assert [(line["nodes"], line["network_gbe"], line["ratio"]) for line in lines] == [
        (nodes, network, ratio) for nodes in (2, 100) for ratio in (1, 16) for network in (5, 100)
    ]
    best = lines[-1]
    assert best["here_ratio"] < 0.2 < best["fetched_ratio"] and best["shared"]["ttft_mean_s"] < best["alone"]["ttft_mean_s"]
    assert best["shared_budget_bytes"] is None and best["shared_needed_bytes"] > 0 and best["held_back_share"] == 0
    # Raw pages fill a slow network, and coded ones hardly.
    assert lines[4]["held_back_share"] > 0.3 and lines[6]["held_back_share"] == 0
    assert lines[5]["break_even_gbe"] > 3 * lines[7]["break_even_gbe"]
    root = ElementTree.parse(picture).getroot()
    assert root.get("viewBox") == "0 0 760 800" and len(root.findall(f"{SVG}circle")) == 16
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= 760 and 0 <= float(text.get("y")) <= 800


def test_the_fleets_table_says_what_to_buy_and_fits(tmp_path):
    trace = tmp_path / "trace.jsonl"
    conversations(trace)
    rate = ["--prefill-tokens-per-second", 10_000]
    command = [trace, "--token-bytes", "128KiB", *rate, "--nodes", 3]
    text = " ".join(plan(*command, "--router", "sticky=0.25", columns=80).stdout.split())
    assert "but 25 % have to move" in text and "3 machines at 25 GbE" in text
    assert "Network: fetching is faster" in text and "Shared memory: nine tenths" in text and "Decoding is not counted" in text
    lines = plan(*command, "--shared-budget", "1GiB,1TiB", "--ratio", 16, "--restore", "16=50000", columns=80).stdout.splitlines()
    assert max(map(len, lines)) <= 80 and sum("1.00 TiB" in line for line in lines) == 1
    assert not any("Decoding is not" in line for line in lines)
    untimed = "".join(json.dumps({"prompt": [number] * 2000}) + "\n" for number in range(3))
    assert "not every request has a time" in plan("-", *command[1:], status=1, stdin=untimed).stderr
    assert "nothing to draw" in plan(*command, "--ratio", 1, "--svg", tmp_path / "x.svg").stderr
