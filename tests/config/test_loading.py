"""The run file: strict, every mistake at once, each with its place."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penjing.config.loading import dump_run, identity, load_run, parse_run, section_of
from penjing.config.model import ModelConfig
from penjing.config.training import MixtureShare, ScheduleConfig
from penjing.errors import ConfigError

GOOD = """\
seed = 7
[model]
depth = 2
max_position_embeddings = 64
[sources.stories]
synthetic = "stories"
rows = 100
[sources.chats]
kind = "conversations"
paths = ["chats/*.jsonl"]
[sources.taste]
kind = "preferences"
synthetic = "taste"
rows = 50
[pretrain]
steps = 9
tokens_per_step = 128
mixture = { stories = 1 }
[pretrain.optimizer]
kind = "adamw"
learning_rate = 1
[sft]
steps = 400
tokens_per_step = 128
[sft.mixture]
stories = [0.9, 0.4]
chats = 0.1
[dpo]
source = "taste"
"""


def mistakes(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_run(text, "run.toml", overrides)
    return str(caught.value).splitlines()


def test_a_good_file_becomes_a_run_named_after_its_stem() -> None:
    run = parse_run(GOOD, "some/where/bonsai.toml")
    assert run.name == "bonsai"
    assert run.seed == 7
    assert run.model.depth == 2
    assert [source.name for source in run.sources] == ["stories", "chats", "taste"]
    assert run.source("chats").paths == ("chats/*.jsonl",)
    assert run.pretrain is not None
    assert run.pretrain.mixture == (MixtureShare("stories", 1.0, 1.0),)
    assert run.pretrain.optimizer.learning_rate == 1.0
    assert isinstance(run.pretrain.optimizer.learning_rate, float)
    assert run.sft is not None
    assert run.sft.mixture[0] == MixtureShare("stories", 0.9, 0.4)
    assert run.midtrain is None
    assert section_of(run, "rl") is None


@pytest.mark.parametrize(
    ("line", "replacement", "expected"),
    [
        ("seed = 7", "seed = -1", "run.toml:1: seed: found -1; wanted a whole number, at least 0"),
        ("seed = 7", "seed = true", "run.toml:1: seed: found true; wanted a whole number"),
        ("seed = 7", "seed = 1.0", "run.toml:1: seed: found 1.0; wanted a whole number"),
        ("seed = 7", 'name = "../x"', 'run.toml:1: name: found "../x"; wanted letters'),
        ("depth = 2", "depth = 201", "run.toml:3: model.depth: found 201; wanted"),
        ("depth = 2", "n_layer = 2", "write depth in [model]"),
        ("depth = 2", "detph = 2", "did you mean depth?"),
        ("depth = 2", "rope_theta = nan", "found NaN; wanted a finite number, above 1"),
        ("depth = 2", "rope_theta = inf", "found Infinity; wanted a finite number"),
        ("depth = 2", "rope_theta = 1", "found 1; wanted a finite number, above 1"),
        ("depth = 2", "head_dim = 63", "run.toml:3: model.head_dim: found 63; 63 is odd"),
        ("depth = 2", "tie_word_embeddings = 1", "found 1; wanted true or false"),
        ("depth = 2", "steps = 2", "write steps in [pretrain]"),
        ("depth = 2", "licence = 2", "write licence in [sources.NAME]"),
        ('kind = "adamw"', 'kind = "adam"', 'did you mean "adamw"?'.replace('"', "")),
        ('kind = "adamw"', "batch_size = 3", "write tokens_per_step in [pretrain]"),
        ('kind = "adamw"', "lr = 3", "write learning_rate in [pretrain.optimizer]"),
        ("rows = 100", "rows = 0", "run.toml:7: sources.stories.rows: found 0; wanted"),
        ("rows = 100", "", "run.toml:5: sources.stories.rows: found nothing; a synthetic"),
        ("rows = 100", 'name = "x"', "sources.stories.name: found a name; wanted none"),
        ('paths = ["chats/*.jsonl"]', 'paths = "x"', 'found "x"; wanted a list of texts, ["..."]'),
        ('paths = ["chats/*.jsonl"]', "", "give either paths or synthetic"),
        ("{ stories = 1 }", "{ storeis = 1 }", "run.toml:18: pretrain.mixture.storeis: found no"),
        ("{ stories = 1 }", "{ stories = -1 }", "found -1; wanted a share of at least 0"),
        ("{ stories = 1 }", "{ stories = [1, 2, 3] }", "found [1, 2, 3]; wanted a share"),
        ("{ stories = 1 }", "{ stories = true }", "found true; wanted a share"),
        ("{ stories = 1 }", "{ stories = 0 }", "found no share above 0 at the start"),
        ("{ stories = 1 }", "{ stories = [1, 0] }", "found no share above 0 at the end"),
        ("{ stories = 1 }", "{ stories = { epochs = 2, max_epochs = 3 } }", "NOTHING"),
        ("{ stories = 1 }", "{ stories = { points = [[0, 1], [9, 2]] } }", "NOTHING"),
        ("{ stories = 1 }", "{ stories = { points = [[9, 1], [9, 2]] } }", "tokens rising"),
        ("{ stories = 1 }", "{ stories = { points = [[0, -1]] } }", "shares at least 0"),
        ("{ stories = 1 }", "{ stories = { epochs = 2, share = 1 } }", "give exactly one of"),
        ("{ stories = 1 }", "{ stories = { epochs = 0 } }", "epochs is a number above 0"),
        ("{ stories = 1 }", "{ stories = { share = 1, blend = 'cos' } }", 'blend is "linear" or'),
        ("{ stories = 1 }", "{ stories = { share = 1, max_epochs = 0 } }", "at least 1"),
        ("{ stories = 1 }", "{ stories = { shares = 1 } }", "unknown key shares; known: share"),
        ("steps = 9", "tokens = 9000", "NOTHING"),
        ("steps = 9", "", "no length: give exactly one of steps, tokens, flops,"),
        ("steps = 9", "steps = 9\nepochs = 1.5", "steps and epochs: give exactly one of"),
        ("{ stories = 1 }", "{ taste = 1 }", "found a source of kind preferences; wanted doc"),
        ("{ stories = 1 }", "{}", "pretrain.mixture: found no mixture; wanted at least one"),
        ("{ stories = 1 }", "1", "found 1; wanted a table, [pretrain.mixture]"),
        ("steps = 9\ntokens_per_step = 128", "steps = 9\ntokens_per_step = 100", "64 and 128"),
        ('source = "taste"', 'source = "test"', 'found no source "test"; wanted a source of'),
        ('source = "taste"', 'source = "chats"', "found a source of kind conversations; wanted"),
        ("[dpo]", "[rl]\nretention_rows = 3\n[dpo]", "NOTHING"),
        ("[dpo]", "[rl]\nretention = { chats = 1 }\n[dpo]", "NOTHING"),
        ("[dpo]", "[rl]\nretention = { chat = 1 }\n[dpo]", "rl.retention.chat: found no such"),
        ("[dpo]", "[runtime]\ntrackers = ['x']\n[dpo]", "found 'x': wanted some of tensorboard"),
        ("[dpo]", "[rl]\nsample_sets = ['x']\n[dpo]", "found 'x': wanted some of base-v1"),
        (
            "[dpo]",
            "[dpo]\nsample_sets = ['x']",
            "dpo.sample_sets: found [\"x\"]; found 'x': wanted",
        ),
        ("[dpo]", "[rl]\nretention = { chats = 0 }\n[dpo]", "found no share above 0 at the start"),
    ],
)
def test_a_mistake_is_named_with_its_place(line: str, replacement: str, expected: str) -> None:
    text = GOOD.replace(line, replacement, 1)
    assert text != GOOD
    if expected == "NOTHING":
        run = parse_run(text, "run.toml")
        assert parse_run(dump_run(run), "config.toml") == run
        return
    found = mistakes(text)
    assert any(expected in message for message in found), found
    assert len(found) == 1, found


def test_all_mistakes_come_at_once_in_the_order_of_the_file() -> None:
    text = GOOD.replace("depth = 2", "depth = 0").replace("rows = 50", "rows = -5")
    found = mistakes(text + "[pretrian]\n")
    assert [message.split(": ")[0] for message in found] == [
        "run.toml:3",
        "run.toml:14",
        "run.toml:30",
    ]
    assert found[2].endswith("did you mean pretrain?")


def test_later_stages_need_pretraining() -> None:
    text = GOOD[: GOOD.index("[pretrain]")] + GOOD[GOOD.index("[sft]") :]
    assert mistakes(text) == [
        "run.toml:15: sft: found no training stage before it; "
        "wanted [pretrain], which makes the weights"
    ]


def test_retention_needs_sft_and_a_run_needs_sources() -> None:
    found = mistakes(GOOD[: GOOD.index("[sft]")] + "[rl]\nretention_rows = 3\n")
    assert found == [
        "run.toml:23: rl.retention_rows: found 3; wanted 0; there is no [sft] and no [rl.retention]"
    ]
    assert mistakes("") == ["run.toml:1: sources: found none; wanted at least one [sources.NAME]"]


def test_keys_inside_strings_and_comments_do_not_move_line_numbers() -> None:
    text = '[model]\n# depth = 1\nrope_theta = """\ndepth = 3\n"""\ndepth = 0\n' + GOOD[9:]
    text = text.replace("[model]\ndepth = 2\nmax", "max")
    found = mistakes(text)
    assert any(message.startswith("run.toml:6: model.depth") for message in found)


def test_broken_toml_names_its_line() -> None:
    assert mistakes("seed = 1\nseed = = 2\n")[0].startswith("run.toml:2: not TOML")
    assert mistakes("seed = [1,\n")[0].startswith("run.toml:2: not TOML")


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8 at byte 8"):
        load_run(tmp_path / "latin.toml")


def test_overrides_are_toml_or_bare_words() -> None:
    run = parse_run(
        GOOD, "run.toml", ["model.depth=3", "name=other", "rl.steps=9", "sft.mixture.chats=0.5"]
    )
    assert (run.name, run.model.depth) == ("other", 3)
    assert run.rl is not None
    assert run.rl.steps == 9
    assert run.sft is not None
    assert run.sft.mixture[1].start == 0.5


def test_mistakes_in_overrides_name_the_override() -> None:
    found = mistakes(GOOD, "model.depth=x", "seed", "seed.x=3", "midtrain.steps=4")
    assert [message.split(":")[0] for message in found] == [
        "--set midtrain.steps",
        "--set model.depth",
        "--set seed.x",
        "--set seed",
    ]
    assert 'found "x"; wanted a whole number' in found[1]


shares = st.one_of(
    st.floats(0.001, 5), st.tuples(st.floats(0.001, 5), st.floats(0.001, 5)).map(list)
)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    theta=st.floats(1.5, 1e8),
    share=shares,
    prompts=st.lists(st.text(max_size=8), max_size=3),
    language=st.none() | st.text(max_size=4),
)
def test_a_dumped_run_reads_back_equal(
    seed: int, theta: float, share: object, prompts: list[str], language: str | None
) -> None:
    import tomli_w

    extra = {"seed": seed, "model.rope_theta": theta, "sft.mixture.chats": share}
    extra |= {"sft.sample_prompts": prompts}
    if language is not None:
        extra["sources.stories.language"] = language
    overrides = [f"{key}={tomli_w.dumps({'v': value})[4:]}" for key, value in extra.items()]
    run = parse_run(GOOD, "run.toml", overrides)
    assert run.model.rope_theta == theta
    assert parse_run(dump_run(run), "config.toml") == run


def test_identity_holds_what_changes_the_result_and_no_conduct() -> None:
    run = parse_run(GOOD, "run.toml")
    fields = identity(run.sft)
    assert fields["mixture"] == [["stories", 0.9, 0.4], ["chats", 0.1, 0.1]]
    assert fields["optimizer.matrix_learning_rate"] == 0.028  # by width
    assert fields["steps"] == 400
    assert not any("cadence" in key or "sample" in key for key in fields)
    assert "microbatch_rows" not in fields
    assert identity(run.source("chats"))["paths"] == ["chats/*.jsonl"]


def test_a_key_that_is_a_word_of_python_is_written_without_its_underscore() -> None:
    run = parse_run(GOOD, "run.toml", ["tokenizer.from=gpt2/tokenizer.json"])
    assert run.tokenizer.from_ == "gpt2/tokenizer.json"
    assert identity(run.tokenizer)["from"] == "gpt2/tokenizer.json"
    assert parse_run(dump_run(run), "config.toml") == run
    assert "write from in [tokenizer]" in mistakes(GOOD, "tokenizer.tokenizer_file=x")[0]
    assert "an unknown key" in mistakes(GOOD, "tokenizer.from_=x")[0]


def test_a_younger_setting_is_no_identity_while_it_has_its_default() -> None:
    plain, changed = ScheduleConfig(), ScheduleConfig(kind="cosine")
    assert "kind" not in identity(plain)
    assert identity(changed)["kind"] == "cosine"
    assert identity(ModelConfig()).keys() == {
        "depth",
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "intermediate_size",
        "max_position_embeddings",
        "rope_theta",
        "rms_norm_eps",
        "tie_word_embeddings",
        "logit_softcap",
    }
