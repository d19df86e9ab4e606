"""Many completions at a time through one key/value cache: slots, refill, tool turns, streaming.

It knows ids only: what a tool answers comes in as a callable, text stays outside. The model has no
layer that depends on training mode, so modes are left alone, as are torch's random states.

N requests, R slots (rows of the cache), B rows of one call, S new tokens of a row, V vocabulary.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from penjing.errors import DataError
from penjing.generate.sampling import Integers, Sampling, choose, uniforms
from penjing.model.attention import KeyValueCache
from penjing.model.language_model import LanguageModel
from penjing.runtime import fitting

FinishReason = Literal["stop", "length", "tool_limit"]
AnswerTurn = Callable[[Sequence[int]], tuple[int, ...]]
"""A finished assistant turn's ids, stop token included -> ids that must follow (a tool's answer and
the next assistant header), or () when the turn calls no tool."""

PREFILL_ROWS = 32
"""Rows of one prefill: neighbours in length, so that little padding is computed."""


@dataclass(frozen=True)
class Request:
    """A prompt to continue; equal requests give equal completions."""

    prompt: tuple[int, ...]
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Completion:
    """Everything after the prompt, the stop token and forced tokens included.

    `sampled` and `logprobs` (of the sampling distribution; 0 where forced) run along `ids`.
    `length`: no room for more; `tool_limit`: one tool call more than allowed.
    """

    ids: tuple[int, ...]
    sampled: tuple[bool, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    tool_calls: int


def generate(
    model: LanguageModel,
    requests: Sequence[Request],
    *,
    stop_ids: Collection[int],
    answer_turn: AnswerTurn | None = None,
    max_tool_calls: int = 2,
    slots: int = 128,
) -> list[Completion]:
    """One completion a request, in order; out of memory, begun again with half the slots.

    Raises:
        DataError: A prompt is empty or leaves no room for a token.
    """
    if not requests:
        return []

    def with_slots(slots: int) -> list[Completion]:
        batch = _Batch(model, requests, (stop_ids, answer_turn, max_tool_calls), slots)
        while batch.running:
            batch.step()
        return [batch.completions[place] for place in range(len(requests))]

    return fitting(with_slots, min(slots, len(requests)), model.head_weight.device)


def stream(
    model: LanguageModel,
    request: Request,
    *,
    stop_ids: Collection[int],
    answer_turn: AnswerTurn | None = None,
    max_tool_calls: int = 2,
) -> Generator[int, None, Completion]:
    """The ids of one completion as they come, forced ones too; returns the completion.

    Raises:
        DataError: As `generate`.
    """
    batch = _Batch(model, [request], (stop_ids, answer_turn, max_tool_calls), 1)
    shown = 0
    while batch.running:
        batch.step()
        length = int(batch.length[0])
        yield from batch.ids[0, shown:length].tolist()
        shown = length
    return batch.completions[0]


class _Batch:
    """Requests on their way through the slots of one cache.

    A slot is free (`request` is -1), waiting (`chunks` holds tokens to feed at once: a prompt or a
    tool's answer, all but its last) or ready (`pending` is the one token whose successor is next).
    """

    def __init__(
        self,
        model: LanguageModel,
        requests: Sequence[Request],
        turns: tuple[Collection[int], AnswerTurn | None, int],
        slots: int,
    ) -> None:
        self._model, self._requests = model, requests
        stop_ids, self._answer_turn, self._max_tool_calls = turns
        self._stop_ids = np.array(sorted(stop_ids), np.int64)
        self._device = model.head_weight.device
        self._queue = deque(range(len(requests)))
        self.completions: dict[int, Completion] = {}
        context = model.shape.max_position_embeddings
        budget = [_budget(place, request, context) for place, request in enumerate(requests)]
        self._budget = np.array(budget)
        size = (len(requests), max(budget))
        self.ids = np.zeros(size, np.int64)
        self._sampled = np.zeros(size, np.bool_)
        self._logprobs = np.zeros(size, np.float32)
        self._uniforms = np.zeros(size, np.float32)
        self.length, self._turn_start, self._tool_calls = np.zeros((3, len(requests)), np.int64)
        rows = min(slots, len(requests))
        self._request = np.full(rows, -1)
        self._ready = np.zeros(rows, np.bool_)
        self._fed, self._pending = np.zeros((2, rows), np.int64)
        self._chunks: list[tuple[int, ...]] = [()] * rows
        longest = max(map(int.__add__, (len(request.prompt) for request in requests), budget))
        self._cache = KeyValueCache.empty(
            model.shape, rows, longest, self._device, model.compute_dtype
        )

    @property
    def running(self) -> bool:
        return len(self.completions) < len(self._requests)

    @torch.no_grad()
    def step(self) -> None:
        """Sample one token for every ready slot, after feeding those for whom it pays to wait no
        longer: a call for few rows costs nearly as much as one for many.
        """
        self._admit()
        waiting = np.flatnonzero((self._request >= 0) & ~self._ready)
        if len(waiting) and (not self._ready.any() or len(waiting) * 8 >= len(self._request)):
            self._feed(waiting.tolist())
        self._compact()
        rows = np.flatnonzero(self._ready)
        # Neighbouring rows are read without copying the cache, so idle slots below the last ready
        # one come along; what they store is overwritten by their next token.
        span = np.arange(rows[-1] + 1)
        logits_BV = self._extend(span, self._pending[span, None], np.ones_like(span))
        self._fed[rows] += 1
        at = self._request[rows]
        if len(rows) < len(span):
            logits_BV = logits_BV[torch.from_numpy(rows).to(self._device)]
        place = self.length[at]
        samplings = [self._requests[request].sampling for request in at.tolist()]
        tokens, logprobs = choose(logits_BV, samplings, self._uniforms[at, place])
        self.ids[at, place], self._logprobs[at, place] = tokens, logprobs
        self._sampled[at, place] = True
        self.length[at] += 1
        self._pending[rows] = tokens
        stopped = np.isin(tokens, self._stop_ids)
        for index in np.flatnonzero(stopped | (self.length[at] == self._budget[at])).tolist():
            self._end_turn(int(rows[index]), stopped=bool(stopped[index]))

    def _admit(self) -> None:
        for slot in np.flatnonzero(self._request < 0).tolist()[: len(self._queue)]:
            place = self._queue.popleft()
            prompt, room = self._requests[place].prompt, int(self._budget[place])
            self._uniforms[place, :room] = uniforms(self._requests[place].seed, room)
            self._request[slot], self._fed[slot] = place, 0
            self._wait(slot, prompt)

    def _wait(self, slot: int, ids: tuple[int, ...]) -> None:
        self._chunks[slot], self._pending[slot] = ids[:-1], ids[-1]
        self._ready[slot] = len(ids) == 1

    def _feed(self, waiting: Iterable[int]) -> None:
        """Feed the chunks, equal prompts once; each slot's last token stays pending."""
        owner: dict[tuple[int, ...], int] = {}
        distinct, source, target = [], [], []
        for slot in waiting:
            first = owner.setdefault(self._chunks[slot], slot) if self._fed[slot] == 0 else slot
            if first == slot:
                distinct.append(slot)
            else:
                source.append(first)
                target.append(slot)
        distinct.sort(key=lambda slot: len(self._chunks[slot]))
        for start in range(0, len(distinct), PREFILL_ROWS):
            group = distinct[start : start + PREFILL_ROWS]
            counts = np.array([len(self._chunks[slot]) for slot in group])
            tokens = np.zeros((len(group), counts.max()), np.int64)
            for row, slot in enumerate(group):
                tokens[row, : counts[row]] = self._chunks[slot]
            self._extend(np.array(group), tokens, counts)
            self._fed[group] += counts
        if target:
            used = int(self._fed[source].max())
            for tensor in (*self._cache.keys, *self._cache.values):
                tensor[target, :, :used] = tensor[source, :, :used]
            self._fed[target] = self._fed[source]
        self._ready[list(waiting)] = True

    def _extend(self, rows: Integers, tokens: Integers, counts: Integers) -> Tensor:
        cache, device = self._cache, self._device
        cache.lengths.copy_(torch.from_numpy(self._fed))
        host = (torch.from_numpy(array).to(device) for array in (rows, tokens, counts))
        return self._model.extend(cache, *host)

    def _compact(self) -> None:
        """Close the gaps once a quarter of the slots has nothing more to do."""
        kept = np.flatnonzero(self._request >= 0)
        if self._queue or len(kept) * 4 > len(self._request) * 3:
            return
        self._request, self._ready = self._request[kept], self._ready[kept]
        self._fed, self._pending = self._fed[kept], self._pending[kept]
        self._chunks = [self._chunks[slot] for slot in kept.tolist()]
        index = torch.from_numpy(kept).to(self._device)
        cache = self._cache
        self._cache = KeyValueCache(
            [keys[index] for keys in cache.keys],
            [values[index] for values in cache.values],
            cache.lengths[index],
        )

    def _end_turn(self, slot: int, *, stopped: bool) -> None:
        place = int(self._request[slot])
        length, start = int(self.length[place]), int(self._turn_start[place])
        forced: tuple[int, ...] = ()
        if stopped and self._answer_turn is not None:
            forced = self._answer_turn(self.ids[place, start:length].tolist())
        end = length + len(forced)
        if not stopped:
            self._finish(slot, "length")
        elif not forced:
            self._finish(slot, "stop")
        elif self._tool_calls[place] == self._max_tool_calls:
            self._finish(slot, "tool_limit")
        elif end >= self._budget[place]:
            self._finish(slot, "length")
        else:
            self.ids[place, length:end] = forced
            self.length[place] = self._turn_start[place] = end
            self._tool_calls[place] += 1
            self._wait(slot, (int(self._pending[slot]), *forced))

    def _finish(self, slot: int, reason: FinishReason) -> None:
        place = int(self._request[slot])
        length = int(self.length[place])
        self.completions[place] = Completion(
            ids=tuple(self.ids[place, :length].tolist()),
            sampled=tuple(self._sampled[place, :length].tolist()),
            logprobs=tuple(self._logprobs[place, :length].tolist()),
            finish_reason=reason,
            tool_calls=int(self._tool_calls[place]),
        )
        self._request[slot], self._fed[slot], self._ready[slot] = -1, 0, False


def _budget(place: int, request: Request, context: int) -> int:
    """Tokens that may follow the prompt."""
    room = context - len(request.prompt)
    if not request.prompt or room < 1:
        raise DataError(
            f"request {place}: its prompt has {len(request.prompt)} tokens; the model reads "
            f"1 to {context - 1} and one more for the answer: shorten the prompt"
        )
    return min(request.sampling.max_new_tokens, room)
