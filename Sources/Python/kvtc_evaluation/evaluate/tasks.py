"""What a model is asked once its cache is back: to go on with a text, to repeat it, to find what was hidden in it.

Every question is put by teacher forcing: the right answer is fed token by token and each prediction is compared with it,
so that one wrong token does not hide what the cache still knows, and greedy decoding would give the answer exactly where
every token is predicted. Everything is judged beside the same question to the untouched cache.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from kvtc.calibration.predictions import SINKS, WINDOW, divergence, log_probabilities
from kvtc.calibration.readers import Reader
from kvtc.calibration.texts import Document

CUE_TOKENS, REPEATED_TOKENS, REPEATS = 16, 32, 5
NAMES = ("Alice", "Bruno", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Irene", "James")

Figures = dict[str, float]
"""Means over one context, by name."""


class Context(Protocol):
    """Tokens whose cache is kept, and what is asked afterwards."""

    tokens: list[int]

    def ask_untouched(self, worker: Reader) -> None:
        """Notes what the model says with its own cache of `tokens`."""

    def ask(self, worker: Reader) -> Figures:
        """What it says with the cache that `worker` has now, which is left at the end of `tokens`."""


@dataclass(frozen=True)
class Question:
    """The model reads `cue`; `answer` is what it should say."""

    cue: list[int]
    answer: list[int]

    def ask(self, worker: Reader) -> np.ndarray:
        """Which tokens of the answer are the most likely ones [answer tokens]. The worker's sequence is as before."""
        begin = worker.position
        logits = worker.score(self.cue + self.answer[:-1], skip=len(self.cue) - 1)
        worker.truncate(begin)
        return logits.argmax(axis=-1) == np.asarray(self.answer)


@dataclass
class Reading:
    """A document: its prefix is kept, what follows is predicted, and passages of the prefix are to be repeated.

    `kl` is the mean KL divergence in nats of the next-token distributions from the untouched cache's; `top1` the share of
    equal most likely tokens; `surprise` the mean negative log-likelihood of the text (its exponential is the perplexity);
    `verbatim` the share of tokens repeated rightly after a cue of 16 tokens that occurred in the prefix.
    """

    name: str
    tokens: list[int]
    following: list[int]
    repeats: list[Question] = field(default_factory=list)

    @classmethod
    def of(cls, document: Document, tokens: Sequence[int], prefix: int, scored: int) -> Reading:
        repeats = []
        first, last = SINKS, prefix - WINDOW - CUE_TOKENS - REPEATED_TOKENS
        for begin in np.linspace(first, last, REPEATS).astype(int) if last > first else []:
            cue, end = begin + CUE_TOKENS, begin + CUE_TOKENS + REPEATED_TOKENS
            repeats.append(Question(list(tokens[begin:cue]), list(tokens[cue:end])))
        return cls(document.name, list(tokens[:prefix]), list(tokens[prefix : prefix + scored]), repeats)

    def ask_untouched(self, worker: Reader) -> None:
        logits, self._verbatim = self._observe(worker)
        self._reference, self._top = log_probabilities(logits), logits.argmax(axis=-1)
        self._surprise = self._surprise_of(self._reference)

    def ask(self, worker: Reader) -> Figures:
        logits, verbatim = self._observe(worker)
        predictions = log_probabilities(logits)
        figures = {
            # Rounding may put the divergence of equal distributions a hair below 0.
            "kl": max(0.0, divergence(self._reference, predictions)),
            "top1": float((logits.argmax(axis=-1) == self._top).mean()),
            "surprise": self._surprise_of(predictions),
            "surprise_untouched": self._surprise,
        }
        return figures | ({"verbatim": verbatim, "verbatim_untouched": self._verbatim} if self.repeats else {})

    def _observe(self, worker: Reader) -> tuple[np.ndarray, float]:
        logits = worker.score(self.following)
        worker.truncate(len(self.tokens))
        hits = [question.ask(worker) for question in self.repeats]
        return logits, float(np.mean(hits)) if hits else 0.0

    def _surprise_of(self, predictions: np.ndarray) -> float:
        """Of what was predicted after each scored token but the last, against the token that came."""
        following = np.asarray(self.following)[1:]
        return float(-predictions[np.arange(len(following)), following].mean(dtype=np.float64))


@dataclass
class Passkeys:
    """Ten numbers, each under a name, hidden at ten depths of a text, none in the sinks or the window.

    `passkey` is the share of them that the model gives back whole when asked by name.
    """

    name: str
    tokens: list[int]
    questions: list[Question]

    @classmethod
    def hidden_in(cls, name: str, haystack: Sequence[int], prefix: int, worker: Reader, seed: int) -> Passkeys:
        """`haystack` has at least `prefix` tokens."""
        numbers = random.Random(f"{seed} {name}")

        def tokens_of(text: str) -> list[int]:
            return worker.tokenize(text, begin=False)

        needles, questions = [], []
        for person in NAMES:
            key = str(numbers.randrange(10_000, 100_000))
            needles.append(tokens_of(f"\n\nThe pass key of {person} is {key}. Remember it: the pass key of {person} is {key}.\n\n"))
            questions.append(Question(tokens_of(f"\n\nThe pass key of {person} is"), tokens_of(f" {key}")))
        hay = prefix - sum(map(len, needles))
        end = hay - WINDOW
        if end <= SINKS + len(needles):
            raise ValueError(f"a prefix of {prefix} tokens has no room for {len(needles)} pass keys")
        cuts = np.linspace(SINKS, end, len(needles)).astype(int).tolist()
        tokens = list(haystack[: cuts[0]])
        for needle, begin, stop in zip(needles, cuts, [*cuts[1:], hay], strict=True):
            tokens += needle + list(haystack[begin:stop])
        return cls(name, tokens, questions)

    def ask_untouched(self, worker: Reader) -> None:
        self._untouched = self._share(worker)

    def ask(self, worker: Reader) -> Figures:
        return {"passkey": self._share(worker), "passkey_untouched": self._untouched}

    def _share(self, worker: Reader) -> float:
        return float(np.mean([question.ask(worker).all() for question in self.questions]))
