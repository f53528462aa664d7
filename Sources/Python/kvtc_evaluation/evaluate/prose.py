"""The report's longer texts."""

from __future__ import annotations

from html import escape
from typing import Any

from kvtc.calibration.predictions import SINKS, WINDOW


def explanation(document: dict[str, Any], prefix: int, scored: int) -> str:
    """What is measured and what the words mean, for somebody new to all of it."""
    model, count = escape(document["model"]), len(document["texts"])
    return f"""<p>While a language model reads, it takes notes: for every word so far, a few thousand numbers called <em>keys</em> and
<em>values</em>. Together they are the <em>KV cache</em>. It saves the model from reading everything again for each new word,
and it grows until the fast memory is full. <em>kvtcd</em> takes the notes out of that memory, keeps them many times smaller,
and brings them back when the conversation goes on.</p>
<p>Small notes are blurred notes, so the question is: <strong>does the model still say the same things?</strong> To find out,
{model} read {count} {"document" if count == 1 else "documents"}, {prefix} tokens of each (a token is about three quarters of a
word). Its notes were kept in every way named below and brought back, and it was asked to go on: its predictions for the next
{scored} tokens are set beside those it makes with its untouched notes.</p>
<dl><dt>Ratio</dt><dd>How many times smaller. 16× means that what took 16 MB takes 1 MB.</dd>
<dt>KL divergence</dt><dd>How far the model’s odds for the next token move: 0 is no change, and lower is better. It looks at
all odds, so it notices damage long before the words change.</dd>
<dt>Same first choice</dt><dd>How often the most likely next token is the same as with untouched notes.</dd>
<dt>Floor</dt><dd>What the smallest possible change does (the last bit of every number, at random). A model of rounded weights
reacts to that too; below this line nothing that changes anything can be told apart.</dd></dl>"""


def method(document: dict[str, Any], prefix: int, scored: int) -> str:
    """How the figures came about, for somebody who wants to check them."""
    names, size = ", ".join(escape(name) for name in document["texts"]), document["profile_bytes"] / 2**20
    return f"""<p>Every way but llama.cpp’s own went through a running kvtcd: pages of 64 tokens pushed, coded, counted as stored with
all headers, and pulled back. Texts were split by document; profiles were calibrated, and the cost of errors measured, on documents that
are not among those evaluated. The profile takes {size:.0f} MiB once for a model and is not counted in the ratios. “Published KVTC”
is kvtcd’s rendering of the pipeline of arXiv 2511.01815 on a profile calibrated its way: keys and values on bases of their own,
nothing weighed. llama.cpp’s q8_0 and q4_0 caches were computed and read in that type, as its users do; they keep no token
exact.</p>
<p>{prefix} tokens kept and {scored} predicted in each document; sinks {SINKS}, window {WINDOW}; seed {document["seed"]}.
Documents: {names}.</p>"""
