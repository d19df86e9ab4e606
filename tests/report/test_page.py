"""The page and the Markdown."""

import html.parser
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from penjing.artifacts.records import TokenizerEvaluation, to_json
from penjing.report.collect import collect
from penjing.report.findings import warnings
from penjing.report.markdown import render_markdown
from penjing.report.page import render_html
from penjing.text.compression import compression

Write = Callable[..., Path]
VOID = {"meta", "path", "circle"}


class Outline(html.parser.HTMLParser):
    """Tags that are open, and those seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_self_contained_and_runs_nothing(write_run: Write) -> None:
    page = render_html(collect(write_run()))
    outline = Outline()
    outline.feed(page)
    assert not outline.open
    assert not outline.seen & {"script", "img", "link", "iframe", "object"}
    assert "http" not in re.sub(r"http-equiv", "", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_the_contents_lead_to_every_section(write_run: Write) -> None:
    page = render_html(collect(write_run()))
    links = re.findall(r'<a href="#([^"]+)"', page)
    assert links == re.findall(r'<section id="([^"]+)"', page)
    assert len(links) == 11


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_the_report_says_what_must_be_said(write_run: Write, render: Callable[..., str]) -> None:
    text = render(collect(write_run()))
    for words in (
        "All 8 stages finished",
        "at chance",
        "not run: no problems were made",
        "It was kept low on purpose",
        "float32 151, bfloat16 96 GFLOP/s",
        "beyond 4 epochs",
        "3 rows quarantined",
        "7 conversations of chats are longer than a row; their oldest turns are left out",
        "dpo left out 2 pairs longer than the context",
        "90.0\u202f% → 40.0\u202f%",
        "uncommitted changes",
        "git checkout 0123456789abcdef\n",
        "Good: highest reward",
        "28.0–44.0",
    ):
        assert words in text


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_the_tokenizers_chapter_compares_with_other_vocabularies(
    write_run: Write, render: Callable[..., str]
) -> None:
    run = write_run()
    tokens = {"ours": 374, "GPT-2": 404}
    evaluation = TokenizerEvaluation(
        vocab_size=65_536,
        num_special_tokens=16,
        token_bytes_min=1,
        token_bytes_max=32,
        token_bytes_mean=6.924,
        token_bytes_std=2.8765,
        max_chars=2_000_000_000,
        doc_cap=10_000,
        absent={"GPT-4": "bpe_openai is not installed"},
        texts=tuple(compression("news", 1819, tokens)),
    )
    (run / "tokenizer" / "evaluation.json").write_text(to_json(evaluation))
    text = render(collect(run)).replace("\u202f", " ")
    for said in ("4.86", "374 tokens", "4.50", "404 tokens · +7.4 %", "1 to 32", "6.924", "2.877"):
        assert said in text, said
    assert "at most 2 000 000 000 characters, at most 10 000 characters of each text" in text
    assert "Not compared with GPT-4" in text
    assert "above 0 the run’s is better" in text


def test_a_damaged_evaluation_is_a_warning_and_no_failure(write_run: Write) -> None:
    run = write_run()
    (run / "tokenizer" / "evaluation.json").write_text("{")
    report = collect(run)
    assert report.compression is None
    assert any("evaluation.json" in warning for warning in warnings(report))
    assert "Tokenizer" in render_html(report)


@pytest.mark.parametrize("until", ["tokenizer", "shards", "pretrain", "sft", "rl"])
def test_an_unfinished_run_renders(write_run: Write, until: str) -> None:
    report = collect(write_run(until=until, failure="disk <full>"))
    page, text = render_html(report), render_markdown(report)
    assert "disk &lt;full&gt;" in page
    assert "failed: disk" in text
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.lower())


def test_nothing_at_all_renders_as_dashes(tmp_path: Path) -> None:
    page = render_html(collect(tmp_path))
    assert "<dd>–</dd>" in page
    assert "0 of 3 stages finished" in page


def test_markdown_is_inert_and_its_tables_keep_their_columns(write_run: Write) -> None:
    text = render_markdown(collect(write_run()))
    assert "<script" not in text
    assert "[x](" not in text
    assert "xychart-beta" in text
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    for block in blocks:
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1


def test_warnings_name_the_skipped_step_and_the_loss_jump(write_run: Write) -> None:
    found = warnings(collect(write_run()))
    assert "pretrain skipped steps for the reason “not finite” (1): 57" in found
    assert "rl skipped steps for the reason “no targets” (2): 3, 4" in found
    assert any(line.startswith("loss rises from") for line in found)


def test_the_report_loads_no_torch() -> None:
    imports = "penjing.report.page, penjing.report.markdown"
    code = f"import sys; sys.path[:0] = {sys.path}; import {imports}; print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
