"""The evaluation without a model: questions, statistics, the command line."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from kvtc.calibration.predictions import SINKS, WINDOW
from kvtc.calibration.sensitivity import Plan, at_least_seen
from kvtc.calibration.texts import Document, MissingTexts
from kvtc_evaluation.evaluate import __main__ as evaluate
from kvtc_evaluation.evaluate.caches import FloorWay, Kept, coded_pages, layer_errors
from kvtc_evaluation.evaluate.results import Sums, ratio_at, report, standard_error, table
from kvtc_evaluation.evaluate.run import layer_variances
from kvtc_evaluation.evaluate.tasks import NAMES, Passkeys, Question, Reading

from fake_worker import FakeWorker, filled_worker


class Oracle(FakeWorker):
    """A worker whose model always says what `next_token` makes of a token, if that occurred in the cache."""

    vocabulary = 300

    def __init__(self, tokens, forgets=()):
        super().__init__()
        self.cache, self.position, self.forgets = list(tokens), len(tokens), set(forgets)

    def truncate(self, position):
        self.cache, self.position = self.cache[:position], position

    def score(self, tokens, skip=0):
        logits = np.zeros((len(tokens), self.vocabulary), np.float32)
        for row, token in enumerate(tokens):
            seen = [i for i, t in enumerate(self.cache[:-1]) if t == token and i not in self.forgets]
            if seen:
                logits[row, self.cache[seen[0] + 1]] = 5
            self.cache.append(token)
        self.position = len(self.cache)
        return logits[skip:]

    def tokenize(self, text, begin=True):
        return [ord(letter) % 256 for letter in text]


def test_a_question_is_teacher_forced_and_leaves_the_sequence_as_it_was() -> None:
    worker = Oracle([1, 2, 3, 4, 5])
    assert Question([1, 2], [3, 4, 5]).ask(worker).tolist() == [True, True, True]
    assert Question([1, 2], [3, 9, 5]).ask(worker).tolist() == [True, False, False]
    assert worker.cache == [1, 2, 3, 4, 5] and worker.position == 5


def test_an_untouched_cache_scores_perfectly_and_a_damaged_one_does_not() -> None:
    tokens = [int(t) for t in np.random.default_rng(1).permutation(256)] * 2
    reading = Reading.of(Document("text", ""), tokens, 448, 64)
    assert reading.tokens == tokens[:448] and reading.following == tokens[448:512]
    passages = [tokens[begin : begin + 48] for begin in range(SINKS, 448 - WINDOW - 47)]
    assert len(reading.repeats) == 5 and all(q.cue + q.answer in passages for q in reading.repeats)
    reading.ask_untouched(Oracle(tokens[:448]))
    same, damaged = reading.ask(Oracle(tokens[:448])), reading.ask(Oracle(tokens[:448], forgets=range(448)))
    assert same["kl"] == 0 and same["top1"] == 1 and same["surprise"] == same["surprise_untouched"]
    assert same["verbatim"] == same["verbatim_untouched"] == 1
    assert damaged["kl"] > 1 and damaged["top1"] < 0.5 and damaged["verbatim"] < 0.5 < damaged["verbatim_untouched"]
    assert damaged["surprise"] == pytest.approx(math.log(300), rel=0.2)


def test_passkeys_lie_at_ten_depths_outside_sinks_and_window() -> None:
    worker = Oracle([])
    haystack = [260 + i % 40 for i in range(4000)]
    hidden = Passkeys.hidden_in("text", haystack, 2048, worker, seed=7)
    assert len(hidden.tokens) == 2048 and len(hidden.questions) == len(NAMES)
    text = "".join(chr(t) if t < 256 else "~" for t in hidden.tokens)
    for person, question in zip(NAMES, hidden.questions, strict=True):
        key = "".join(map(chr, question.answer)).strip()
        assert key.isdigit() and text.count(key) == 2 and f"pass key of {person} is {key}." in text
    assert set(text[:SINKS]) == {"~"} and set(text[-WINDOW:]) == {"~"}
    depths = [text.index(f"The pass key of {person}") for person in NAMES]
    assert depths == sorted(depths) and depths[-1] - depths[0] > 1500
    assert hidden.tokens == Passkeys.hidden_in("text", haystack, 2048, worker, seed=7).tokens
    assert hidden.tokens != Passkeys.hidden_in("text", haystack, 2048, worker, seed=8).tokens
    with pytest.raises(ValueError, match="no room"):
        Passkeys.hidden_in("text", haystack, 512, worker, seed=7)


def kept(stored: int, coded_stored: int) -> Kept:
    """A prefix of 1024 tokens of 100 bytes; sinks and window take 192 tokens, 832 are coded."""
    return Kept(None, None, 102_400, stored, 83_200, coded_stored)


def sums() -> Sums:
    result = Sums(prefix=1024)
    figures = {"kl": 0.01, "top1": 0.9, "surprise": 2.0, "surprise_untouched": 1.9}
    result.add(figures, kept(19_200 + 8_000, 8_000), np.array([[1.0, 2.0]]), np.array([[10.0, 10.0]]))
    result.add(figures | {"kl": 0.03}, kept(19_200 + 8_640, 8_640), np.array([[3.0, 0.0]]), np.array([[10.0, 10.0]]))
    result.add({"passkey": 0.8, "passkey_untouched": 1.0}, kept(19_200 + 8_320, 8_320), None, np.array([[9.0, 9.0]]))
    return result


def test_ratios_count_bytes_and_quality_is_a_mean_over_documents() -> None:
    result = sums().result("transform", 10.0, "a", "b")
    assert result.ratio_coded == 10 and result.ratio_total == round(102_400 / 27_520, 3)
    assert result.kl == 0.02 and result.kl_error == 0.01 and result.documents == 2
    assert result.perplexity == round(math.exp(2), 4) and result.passkey == 0.8 and result.verbatim is None
    assert result.layers == [{"layer": 0, "key": 0.2, "value": 0.1}]


def test_a_model_that_knows_nothing_of_the_text_overflows_nothing() -> None:
    lost = Sums(prefix=1024)
    lost.add({"kl": 0.0, "surprise": 2000.0, "surprise_untouched": 2000.0}, kept(9000, 8000), None, np.ones((1, 2)))
    result = lost.result("transform", 10.0, "a", "b")
    assert json.loads(json.dumps(asdict(result)))["perplexity"] > 1e300 and "e+304" in table([result])


def test_longer_contexts_have_the_same_ends_and_more_coded_pages() -> None:
    totals = sums().result("transform", 10.0, "a", "b").totals
    for tokens in (2048, 8192, 32768):
        assert totals[str(tokens)] == pytest.approx(tokens * 100 / (19_200 + (tokens - 192) * 10), rel=1e-3)


def test_the_standard_error_needs_two_documents() -> None:
    assert standard_error([0.5]) is None and standard_error([1.0, 3.0]) == 1.0


def test_ratio_at_equal_quality_is_interpolated_on_logarithmic_axes() -> None:
    def at(ratio: float, kl: float):
        one = Sums(prefix=1024)
        one.add({"kl": kl}, kept(20_000, int(83_200 / ratio)), None, np.ones((1, 2)))
        return one.result("transform", ratio, "a", "b")

    results = [at(10, 0.01), at(40, 0.04)]
    assert ratio_at(results, 0.02) == pytest.approx(20, rel=1e-2)
    assert ratio_at(results, 0.2) is None and ratio_at(results[:1], 0.01) is None


def test_json_has_the_promised_names_and_the_table_names_the_untouched_cache() -> None:
    results = [sums().result("transform", 10.0, "a", "a")]
    document = json.loads(json.dumps(report("model", ["one", "two"], 1, 99, results)))
    assert list(document) == ["model", "texts", "seed", "profile_bytes", "results"]
    promised = ["mode", "ratio_asked", "ratio_coded", "ratio_total", "kl", "top1", "perplexity", "perplexity_untouched", "passkey"]
    assert set(promised) <= set(document["results"][0]) and document["results"][0] == asdict(results[0])
    assert "10×" in table(results) and "passkey 100.0%" in table(results) and "→" not in table(results)
    assert "+near" not in table(results)
    resting = sums().result("transform+near", 10.0, "a", "a", 0.002)
    assert asdict(resting)["near"] == 0.002 and "error of 0.002" in table([*results, resting])
    assert "a → b" in table([*results, sums().result("transform", 10.0, "a", "b")])


def test_layer_errors_and_variances_leave_out_sinks_and_window() -> None:
    worker = filled_worker(range(400))
    exact = worker.get_state()
    changed = exact.copy()
    changed.keys[1][SINKS : SINKS + 2] += np.float16(1)
    changed.values[0][:SINKS] += np.float16(1)
    changed.values[0][-WINDOW:] += np.float16(1)
    errors = layer_errors(exact, changed)
    np.testing.assert_allclose(errors, [[0, 0], [48, 0]], atol=0.1)
    # Unit normal numbers; RoPE is a rotation.
    np.testing.assert_allclose(layer_variances(exact, worker), 24 * (400 - SINKS - WINDOW), rtol=0.1)


def test_the_floor_changes_last_bits_between_sinks_and_window_only() -> None:
    worker = filled_worker(range(400))
    exact = worker.get_state()
    kept_state = FloorWay(worker, seed=3).keep(range(400), exact).state
    for mine, theirs in zip(exact.tensors(), kept_state.tensors(), strict=True):
        difference = mine.view(np.uint16) ^ theirs.view(np.uint16)
        assert difference.max() == 1 and 0.4 < difference[SINKS:-WINDOW].mean() < 0.6
        assert not difference[:SINKS].any() and not difference[-WINDOW:].any()


def test_sensitivity_is_measured_on_what_fits() -> None:
    assert Plan().fitting(5000) == Plan() and Plan().fitting(900) == replace(Plan(), prefix=836)
    with pytest.raises(MissingTexts, match="too short"):
        Plan().fitting(300)


def test_no_tensor_weighs_nothing() -> None:
    assert at_least_seen(np.array([[0.0, 2.0], [0.5, 0.0]])).tolist() == [[0.5, 2.0], [0.5, 0.5]]
    assert at_least_seen(np.zeros((1, 2))).tolist() == [[1.0, 1.0]]


def test_coded_pages_hold_neither_sinks_nor_window() -> None:
    assert coded_pages(32, 64) == range(1, 30) and coded_pages(16, 128) == range(1, 15) and len(coded_pages(2, 64)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modes", "zip"], "no mode 'zip'"),
        (["--ratios", "8,x"], "no list of numbers"),
        (["--ratios", "0.5"], "from 1 to 1000"),
        (["--documents", "0"], "at least 1"),
        (["--near", "1"], "below 1"),
        (["--prefix", "1000"], "multiple of 64"),
        (["--shift", "--texts", "x"], "--shift has its own texts"),
        (["--shift", "--modes", "q8_0"], "q8_0 has none"),
        (["--calibration-texts", "x"], "needs --texts"),
    ],
)
def test_wrong_usage_ends_with_64_and_says_why(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        evaluate.main(["--kvtcd", "d", "--kvtcctl", "c", *arguments])
    assert end.value.code == 64 and message in capsys.readouterr().err


def test_missing_texts_and_models_end_with_1_and_a_message(tmp_path, capsys) -> None:
    programs = ["--kvtcd", "d", "--kvtcctl", "c"]
    assert evaluate.main([*programs, "--texts", str(tmp_path)]) == 1
    assert "no text in" in capsys.readouterr().err
    assert evaluate.main([*programs, "--model", str(tmp_path / "no.gguf")]) == 1
    assert "no model at" in capsys.readouterr().err
