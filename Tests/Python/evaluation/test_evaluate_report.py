"""The report: well-formed, self-contained, true to the figures; and the bit allocation read from a profile."""

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from kvtc import safetensors
from kvtc_evaluation.evaluate import bits as evaluate_bits
from kvtc_evaluation.evaluate import charts
from kvtc_evaluation.evaluate import report as evaluate_report
from kvtc_evaluation.evaluate.charts import Point, Series, heat, lines
from kvtc_evaluation.evaluate.results import Result, report

LAYERS, HEADS, WIDTH = 3, 2, 4
ROW = 2 * LAYERS * HEADS * WIDTH


def frequencies() -> np.ndarray:
    """Class c has all its mass (but for the least each symbol must have) on 2^min(c, 5) symbols around zero."""
    table = np.ones((64, 32), np.uint16)
    for index, row in enumerate(table):
        symbols = min(1 << min(index, 5), 31)
        first = 15 - symbols // 2
        row[first : first + symbols] += (4096 - 32) // symbols
        row[15] += 4096 - row.sum()
    return table


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Every component lies in one layer: number i in tensor i % 6, keys of all layers first."""
    rank = 12
    digits = np.zeros((rank, ROW), np.int8)
    for component in range(rank):
        tensor = component % (2 * LAYERS)
        digits[component, tensor * HEADS * WIDTH + component // (2 * LAYERS)] = 100
    described = {
        "tensors": [
            {"layer": layer, "role": role, "heads": HEADS, "headDim": WIDTH} for role in (0, 1) for layer in range(LAYERS)
        ],
        "bases": [{"begin": 0, "end": ROW, "rank": rank, "digits": rank}],
        "expectations": [
            {"stepIndex": 0, "ratio": 8.0, "rank": 12, "distortion": 0.1},
            {"stepIndex": 64, "ratio": 32.0, "rank": 6, "distortion": 0.2},
        ],
    }
    path = tmp_path / "model.kvtc.safetensors"
    tensors = {
        "basis.0.digits": [digits],
        "basis.0.component": [np.arange(rank, dtype="<i4")],
        "basis.0.exponent": [np.full(rank, -7, np.int8)],
        "basis.0.level": [np.arange(64, 64 - 16 * rank, -16, dtype="<i2")],
        "entropy.frequencies": [frequencies()],
    }
    safetensors.write(path, tensors, {"kvtc": json.dumps(described)})
    return path


def result(mode: str, asked: float | None, coded: float, kl: float, **changes) -> Result:
    layers = [{"layer": i, "key": 0.1, "value": 0.02 * (i + 1)} for i in range(LAYERS)]
    totals = {"2048": coded / 2, "8192": coded / 1.5, "32768": coded / 1.1}
    base = Result(
        mode, asked, coded, coded / 2, kl, kl / 10, 0.95, 12.5, 12.0, 0.8, 0.9, 0.85, 0.85, totals, layers, 4, 40, "own", "own"
    )
    return replace(base, **changes)


RESULTS = [
    result("transform", 16, 16.1, 0.005),
    result("transform", 32, 32.2, 0.01),
    result("transform", 45, 45.3, 0.02),
    result("kvtc", 16, 16.4, 0.015),
    result("quant4", None, 3.56, 0.01),
    result("q8_0", None, 1.88, 0.003, layers=None),
    result("floor", None, 1.0, 0.0025),
]


def parsed(profile: Path, results: list[Result], model: str = "model", texts: tuple[str, ...] = ("a.txt",)) -> tuple[str, ElementTree.Element]:
    text = evaluate_report.page(report(model, texts, 1, 3 << 20, results), profile, 2048, 256)
    head, body = text.split("</head>")
    assert "<style>" in head
    return text, ElementTree.fromstring(body.removesuffix("</html>\n"))


def words(element: ElementTree.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def test_the_report_is_well_formed_and_loads_nothing(profile: Path) -> None:
    text, body = parsed(profile, RESULTS)
    assert not re.findall(r"""(?:src|href|@import|url\()\s*=?\s*["'(]?\s*(?:https?:)?//""", text) and "<script" not in text
    assert len(list(body.iter("svg"))) == 4 and all(svg.get("aria-label") for svg in body.iter("svg"))
    numbers = re.findall(r' (?:x|y)="([^"]*)"', text)
    assert numbers and all(np.isfinite(float(number)) for number in numbers)
    names = [element.get("id") for element in body.iter() if element.get("id")]
    assert len(names) == len(set(names))
    used = re.findall(r"(?:href=.|url\()#([^\")]+)", text)
    assert used and set(used) == set(names)


def test_the_report_is_the_same_on_every_run_and_has_colours_for_day_and_night(profile: Path) -> None:
    text, body = parsed(profile, RESULTS)
    assert parsed(profile, RESULTS)[0] == text
    for element in body.iter():
        assert not re.search("#[0-9a-f]{6}", element.get("style", "")), "a colour that stays as it is in the dark"
    style = text[: text.index("</style>")]
    for name in charts.COLOURS:
        # By day and by night.
        assert len(re.findall(rf"--{name}: ", style)) == 2


def test_marks_and_cells_say_their_figures(profile: Path) -> None:
    _, body = parsed(profile, RESULTS)
    titles = [title.text for title in body.iter("title")]
    assert "kvtcd transform 16.1×: KL 0.0050, same first choice 95.0 %" in titles and "keys of layer 0: 10 %" in titles
    cells = [title for title in titles if "bits per number" in title]
    assert len(cells) == 3 * 2 * LAYERS and len({title.rsplit(":")[0] for title in cells}) == len(cells)


def test_the_report_says_what_was_measured_and_explains_its_words(profile: Path) -> None:
    _, body = parsed(profile, RESULTS)
    said = words(body)
    for term in ("KV cache", "keys", "KL divergence", "Same first choice", "Floor", "16× means", "pass keys"):
        assert term.lower() in said.lower()
    assert "0.0050 ± 0.0005" in said and "3 MiB once" in said and "a.txt" in said
    # KL 0.015 lies between 32.2× (0.01) and 45.3× (0.02): 39.3×, 2.4 times 16.4.
    assert "transform has it at 39.3×: 2.4 times the ratio at equal KL" in said
    assert "-10.0" in said and "One number more or less is 2.5 points" in said
    # The totals stand beside the ratio of the coded pages.
    assert "16×smaller pages" in said and "8.1× at 2 048, 10.7× at 8 192, 14.6× at 32 768 tokens" in said


def test_names_from_outside_are_escaped(profile: Path) -> None:
    _, body = parsed(profile, RESULTS, model='<b>"model" & co', texts=("<i>.txt",))
    assert '<b>"model" & co' in words(body) and "<i>.txt" in words(body)


@pytest.mark.parametrize(
    "results",
    [
        [RESULTS[0]],
        [RESULTS[5]],
        [result("transform", 16, 16.1, 0.005, passkey=None, verbatim=None, kl_error=None)],
        [replace(RESULTS[0], kl=None, top1=None, perplexity=None, perplexity_untouched=None, kl_error=None)],
        [result("lossless", None, 1.4, 0.0)],
    ],
)
def test_a_report_of_little_is_a_report(profile: Path, results: list[Result]) -> None:
    assert "All figures" in words(parsed(profile, results)[1])


def test_domains_are_compared_where_there_are_two(profile: Path) -> None:
    pairs = [(a, b) for b in ("prose", "code") for a in ("prose", "code")]
    shifted = [replace(r, calibrated_on=a, evaluated_on=b) for a, b in pairs for r in RESULTS[:2]]
    said = words(parsed(profile, shifted)[1])
    unchanged = words(parsed(profile, [replace(r, kl=0.0) for r in shifted])[1])
    assert "prose → code" in unchanged and "Texts unlike those" not in unchanged
    assert "prose → code" in said and "Texts unlike those" in said and "Smaller against faithful" not in said


def test_bits_add_up_over_layers_and_stop_at_the_rank(profile: Path) -> None:
    fine, coarse = evaluate_bits.allocations(profile, [8, 32])
    assert (len(fine.components), len(coarse.components)) == (12, 6)
    for plan in (fine, coarse):
        assert np.all(np.diff(plan.components) <= 0)
        assert plan.layers.shape == (LAYERS, 2)
        assert plan.layers.sum() * HEADS * WIDTH == pytest.approx(plan.components.sum(), rel=1e-5)
    assert coarse.components.sum() < fine.components.sum()
    # Of six components each tensor has one; the strongest is the keys' of layer 0.
    assert coarse.layers.argmax() == 0 and np.all(coarse.layers > 0)


def test_packed_digits_are_read_as_plain_ones(profile: Path) -> None:
    generator = np.random.default_rng(2)
    width, component = 70, np.array([0, 0, 1, 1, 2, 3, 4, 5, 6], "<i4")
    exponent = np.array([-7, -15, -7, -15, -7, -7, -8, -7, -7], np.int8)
    digits = generator.integers(-128, 128, (9, width), np.int8)
    # By exponent: the second digits 1 and 3, then 6, then the rest; each group from a new quad on.
    places = {1: 0, 3: 1, 6: 4, 0: 8, 2: 9, 4: 10, 5: 11, 7: 12, 8: 13}
    packed = np.full((3, 4, 32, 4), 128, np.uint8)
    for digit, place in places.items():
        for column in range(width):
            packed[column // 32, place // 4, column % 32, place % 4] = int(digits[digit, column]) + 128
    tensors = {"basis.0.component": component, "basis.0.exponent": exponent}
    for form in ({"basis.0.packed": packed.reshape(-1)}, {"basis.0.digits": digits}):
        np.testing.assert_array_equal(evaluate_bits._digits(tensors | form, 0, width), digits)


def test_a_class_costs_the_entropy_of_its_table() -> None:
    bits = evaluate_bits.class_bits(frequencies())
    flat = evaluate_bits.class_bits(np.full((64, 32), 128, np.uint16))
    assert flat[0] == pytest.approx(5 + 16 / 32) and flat[40] == pytest.approx(5 + 5 * 31 / 32 + 16 / 32)
    assert bits[0] < 0.3 < bits[1] < bits[2] < bits[3] < bits[4]


@pytest.mark.parametrize(("low", "high"), [(3.1, 4.9), (0.002, 0.3), (1, 5000), (7, 7)])
def test_logarithmic_axes_have_ticks_wherever_the_figures_lie(low: float, high: float) -> None:
    points = [Point(low, low), Point(high, high)]
    svg = ElementTree.fromstring(lines([Series("one", "ours", points)], x_label="x", y_label="y", describe="d", x_log=True, y_log=True))
    ticks = [float(text.text) for text in svg.iter("text") if text.text.replace(".", "").isdigit()]
    assert len(ticks) >= 2 and all(low / 1.26 <= tick <= high * 1.26 for tick in ticks)


def test_charts_take_single_points_and_zeros_and_show_their_level() -> None:
    svg = lines([Series("one", "ours", [Point(1, 0.5)])], x_label="x", y_label="y", describe="d", y_log=True, level=(0.001, "floor"))
    assert "0.001" in "".join(ElementTree.fromstring(svg).itertext())
    ElementTree.fromstring(lines([Series("one", "ours", [Point(1, 0.0)])], x_label="x", y_label="y", describe="d"))
    ElementTree.fromstring(heat([("row", [0.0, 0.0])], unit="bits", x_label="x", describe="d"))
