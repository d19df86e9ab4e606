"""Probes of a training stage: what it looks at between steps, without touching its randomness."""

from collections.abc import Sequence

from penjing.artifacts.records import SampleRecord
from penjing.generate.engine import Request, generate
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn
from penjing.model.transformer import Transformer
from penjing.seeds import seed_for
from penjing.text.conversation import Conversation, text_message
from penjing.text.template import render_prompt
from penjing.text.tokenizer import Tokenizer
from penjing.train.fit import Probe, ProbeResult

SAMPLE_TEMPERATURE = 0.7


def sample_probe(
    stage: str,
    prompts: Sequence[str],
    max_new_tokens: int,
    every_steps: int,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    as_chat: bool,
    seed: int,
) -> Probe:
    """Answers to fixed prompts; the same prompt has the same seed at every step.

    Args:
        stage: named in the records.
        prompts: continued as plain text, or answered as a user's words if `as_chat`.
        max_new_tokens: longest sample.
        every_steps: its cadence.
        model: as it is when the probe runs.
        tokenizer: the model's.
        as_chat: render the prompt with the chat template.
        seed: the run's.
    """

    def ids_of(prompt: str) -> tuple[int, ...]:
        if as_chat:
            return tuple(render_prompt(tokenizer, Conversation((text_message("user", prompt),))))
        return (tokenizer.end_of_text, *tokenizer.encode(prompt))

    stop_ids = (tokenizer.im_end, tokenizer.end_of_text)

    def run(step: int) -> ProbeResult:
        sampling = Sampling(temperature=SAMPLE_TEMPERATURE, max_new_tokens=max_new_tokens)
        seeds = [seed_for(seed, "sample", prompt) for prompt in prompts]
        completions = generate(
            model,
            [Request(ids_of(p), sampling, s) for p, s in zip(prompts, seeds, strict=True)],
            stop_ids=stop_ids,
            answer_turn=calculator_turn(tokenizer),
        )
        return ProbeResult(
            samples=tuple(
                SampleRecord(
                    stage=stage,
                    step=step,
                    prompt=prompt,
                    text=tokenizer.decode(
                        [token for token in completion.ids if token not in stop_ids]
                    ),
                    tokens=len(completion.ids),
                    finish_reason=completion.finish_reason,
                    temperature=SAMPLE_TEMPERATURE,
                    seed=prompt_seed,
                )
                for prompt, prompt_seed, completion in zip(prompts, seeds, completions, strict=True)
            )
        )

    return Probe("samples", every_steps, run)
