"""What a model says to fixed prompts while it trains: the run file's own, and named sets.

Sets with answers are scored as well. A pretrained model continues a prompt as plain text; later
stages answer it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from penjing.artifacts.records import SampleRecord
from penjing.config.training import DpoConfig, RlConfig, TrainingConfig
from penjing.generate.engine import Request, generate
from penjing.generate.sampling import Sampling
from penjing.generate.tools import calculator_turn
from penjing.model.language_model import LanguageModel
from penjing.seeds import seed_for
from penjing.tasks.prompt_sets import Prompt, begins_with, prompt_set, token_f1
from penjing.text.conversation import Conversation, text_message
from penjing.text.template import render_prompt
from penjing.text.tokenizer import Tokenizer
from penjing.train.job import Probe, ProbeResult

SAMPLE_TEMPERATURE = 0.7
"""Of the run file's own prompts; a set brings its own."""


@dataclass(frozen=True)
class _Asked:
    """A prompt of the set of that name ("": the run file's own) and how it is sampled."""

    prompt_set: str
    prompt: Prompt
    sampling: Sampling
    seed: int


def sample_probe(
    stage: str,
    section: TrainingConfig | DpoConfig | RlConfig,
    model: LanguageModel,
    tokenizer: Tokenizer,
    seed: int,
) -> Probe:
    """Samples of all prompts together, and of sets with answers `SET/exact_match` and
    `SET/token_f1`, means over their prompts. The same prompt has the same seed at every step.
    """
    asked = tuple(_asked(section, seed))
    stop_ids = (tokenizer.im_end, tokenizer.end_of_text)

    def ids_of(prompt: Prompt) -> tuple[int, ...]:
        if stage != "pretrain":
            return tuple(render_prompt(tokenizer, prompt.conversation))
        return (tokenizer.end_of_text, *tokenizer.encode(prompt.text))

    def run(step: int) -> ProbeResult:
        completions = generate(
            model,
            [Request(ids_of(one.prompt), one.sampling, one.seed) for one in asked],
            stop_ids=stop_ids,
            answer_turn=calculator_turn(tokenizer),
        )
        samples = tuple(
            SampleRecord(
                stage=stage,
                step=step,
                prompt=one.prompt.text,
                text=tokenizer.decode([id_ for id_ in completion.ids if id_ not in stop_ids]),
                tokens=len(completion.ids),
                finish_reason=completion.finish_reason,
                temperature=one.sampling.temperature,
                seed=one.seed,
                prompt_set=one.prompt_set,
                group=one.prompt.group,
            )
            for one, completion in zip(asked, completions, strict=True)
        )
        return ProbeResult(values=_scores(asked, samples), samples=samples)

    return Probe("samples", section.cadence.sample_every_steps, run)


def _asked(section: TrainingConfig | DpoConfig | RlConfig, seed: int) -> Iterator[_Asked]:
    own = Sampling(temperature=SAMPLE_TEMPERATURE, max_new_tokens=section.sample_tokens)
    for text in section.sample_prompts:
        prompt = Prompt(text, Conversation((text_message("user", text),)))
        yield _Asked("", prompt, own, seed_for(seed, "sample", text))
    for name in section.sample_sets:
        chosen = prompt_set(name)
        sampling = Sampling(
            temperature=chosen.temperature,
            top_k=chosen.top_k,
            max_new_tokens=chosen.max_new_tokens,
        )
        for prompt in chosen.prompts:
            yield _Asked(name, prompt, sampling, seed_for(seed, "sample", name, prompt.text))


def _scores(asked: Sequence[_Asked], samples: Sequence[SampleRecord]) -> dict[str, float]:
    found: dict[str, float] = {}
    pairs = zip(asked, samples, strict=True)
    for name, members in groupby(pairs, key=lambda pair: pair[0].prompt_set):
        scored = [(one.prompt.answers, sample.text) for one, sample in members]
        scored = [(answers, text) for answers, text in scored if answers]
        if scored:
            exact = sum(begins_with(text, answers) for answers, text in scored)
            f1 = sum(token_f1(text, answers) for answers, text in scored)
            found[f"{name}/exact_match"] = exact / len(scored)
            found[f"{name}/token_f1"] = f1 / len(scored)
    return found
