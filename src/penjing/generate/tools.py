"""The calculator inside generation: what follows a finished assistant turn, and its last words.

The engine knows ids only; this module reads a turn's ids and renders the tool's answer.
"""

from collections.abc import Callable, Sequence

from penjing.generate.engine import Completion
from penjing.tasks.calculator import run_tool
from penjing.text.template import parse_assistant, render_tool_response
from penjing.text.tokenizer import Tokenizer


def calculator_turn(
    tokenizer: Tokenizer, tell: Callable[[str, str], None] | None = None
) -> Callable[[Sequence[int]], tuple[int, ...]]:
    """The engine's `answer_turn`: a turn with a tool call is answered, any other gives ().

    `tell` hears of each call and its result.
    """

    def answer(turn_ids: Sequence[int]) -> tuple[int, ...]:
        called = tokenizer.tool_call in turn_ids
        calls = parse_assistant(tokenizer, turn_ids).tool_calls if called else ()
        if not calls:
            return ()
        result = run_tool(calls[0])
        if tell:
            tell(calls[0], result)
        return tuple(render_tool_response(tokenizer, result))

    return answer


def last_answer(tokenizer: Tokenizer, completion: Completion) -> str:
    """The text of the completion's last assistant turn, without its end token."""
    ids = list(completion.ids)
    forced = [place for place, sampled in enumerate(completion.sampled) if not sampled]
    turn = ids[forced[-1] + 1 :] if forced else ids
    ends = {tokenizer.im_end, tokenizer.end_of_text}
    return tokenizer.decode([token for token in turn if token not in ends]).strip()
