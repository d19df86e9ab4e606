"""The report in words: the one source of the page and of the Markdown.

What a heading or a table looks like is their duty. Text from models and data is kept as it is:
the renderers escape it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penjing.artifacts.records import (
    CompressionRecord,
    RolloutRecord,
    TaskResult,
    TokenizerEvaluation,
)
from penjing.report.blocks import (
    ABSENT,
    Block,
    Cell,
    Charts,
    Content,
    Text,
    count,
    decimal,
    duration,
    percent,
    size,
    table,
    total,
)
from penjing.report.collect import STATUSES, TRAINED, RunReport
from penjing.report.curves import curves
from penjing.report.figures import evenly
from penjing.report.findings import chance, last_scores, warnings


def compose(report: RunReport) -> Content:
    """Word the report; an empty section is left out."""
    charts = curves(report)
    sections: dict[str, Iterable[Block]] = {
        "Stages": _stages(report),
        "Warnings": (Text(message, "warning") for message in warnings(report)),
        "Scores": _scores(report),
        "Curves": [Charts(charts)] if charts else [],
        "Samples through time": _samples(report),
        "Rollouts of RL": _rollouts(report),
        "Tokens and mixture": _tokens(report),
        "Tokenizer": _tokenizer(report),
        "Data": _data(report),
        "Environment": _environment(report),
        "Reproduction": _reproduction(report),
    }
    filled = {title: tuple(blocks) for title, blocks in sections.items()}
    begun = [m.started for m in report.manifests] + [event.time for event in report.events]
    return Content(
        title=report.name,
        date=min(begun, default=ABSENT)[:16].replace("T", " "),
        verdict=_verdict(report),
        facts=_facts(report),
        sections={title: blocks for title, blocks in filled.items() if blocks},
    )


def _verdict(report: RunReport) -> str:
    rest = [stage for stage in report.stages if stage.status != "ok"]
    if rest:
        worst = min(rest, key=lambda stage: STATUSES.index(stage.status))
        text = f"{len(report.manifests)} of {len(report.stages)} stages finished; {worst.state}."
    else:
        wall = duration(total(stage.seconds for stage in report.stages))
        text = f"All {len(report.stages)} stages finished in {wall}."
    scores = [r for r in last_scores(report) if r.random_baseline is not None]
    if scores:
        above = sum(not chance(result) for result in scores)
        text += f" After {scores[0].stage}, {above} of {len(scores)} scores lie above chance."
    number = len(warnings(report))
    return f"{text} {number or 'No'} warning{'' if number == 1 else 's'}."


def _facts(report: RunReport) -> dict[str, str]:
    bits = [(s.name, s.validation_bpb) for s in report.trained if s.validation_bpb is not None]
    name, value = bits[-1] if bits else ("not measured", None)
    peaks = [s.peak_memory_bytes for s in report.stages if s.peak_memory_bytes is not None]
    return {
        "parameters": count(report.parameters),
        "training tokens": count(total(stage.tokens for stage in report.trained)),
        f"bits per byte ({name})": decimal(value),
        "wall time": duration(total(stage.seconds for stage in report.stages)),
        "CPU time": duration(total(stage.cpu_seconds for stage in report.stages)),
        "peak memory": size(max(peaks, default=None)),
    }


def _stages(report: RunReport) -> Iterator[Block]:
    longest = max((stage.seconds or 0.0 for stage in report.stages), default=0.0) or 1.0
    rows = []
    for s in report.stages:
        start, planned = s.result("start_stage"), report.config.get(s.name, {}).get("steps")
        row = (
            Cell(s.name, note=f"from {start}" if start else ""),
            Cell("", note=s.reason, tag=s.status),
            Cell(duration(s.seconds), bar=s.seconds and s.seconds / longest),
            duration(s.cpu_seconds),
            f"{s.steps[-1].step if s.steps else 0} / {planned}" if planned else ABSENT,
            count(s.tokens if s.name in TRAINED else None),
            decimal(s.final_loss),
            decimal(s.validation_bpb),
            size(s.peak_memory_bytes),
        )
        rows.append(row)
    head = "stage,status,wall,CPU,steps,tokens,final loss,bits per byte,peak memory"
    yield from table(head, rows)


def _score(value: float | None, metric: str) -> str:
    return decimal(value) if "bits" in metric or "bpb" in metric else percent(value)


def _scores(report: RunReport) -> Iterator[Block]:
    by_score: dict[tuple[str, str], dict[str, TaskResult]] = {}
    for result in report.results:
        by_score.setdefault((result.task, result.metric), {})[result.stage] = result
    columns = [n for n in TRAINED if any(result.stage == n for result in report.results)]
    rows = []
    for (task, metric), row in sorted(by_score.items()):
        one = next((r for r in row.values() if r.random_baseline is not None), None)
        baseline = Cell(ABSENT)
        if one:
            majority = _score(one.majority_baseline, metric)
            baseline = Cell(_score(one.random_baseline, metric), note=f"majority {majority}")
        scores = (_score_cell(row.get(column)) for column in columns)
        rows.append([Cell(task, note=metric), *scores, baseline])
    if rows:
        yield Text(
            "Each score with its 95 % interval and number of problems. “At chance” means that the "
            "interval includes the better of the random and the majority baseline."
        )
    yield from table(",".join(["score", *columns, "random"]), rows)
    changes = []
    for d in report.deltas:
        sign = "" if d.low <= 0 <= d.high else "better" if d.low > 0 else "worse"
        change = Cell(f"{d.value:+.3f}", note=f"{d.low:+.3f} to {d.high:+.3f}", tag=sign)
        changes.append((Cell(d.task, note=d.metric), f"{d.before} → {d.after}", change, count(d.n)))
    title = "Changes from stage to stage, paired by problem"
    yield from table("score,stages,change,problems", changes, title, folded=True)


def _score_cell(result: TaskResult | None) -> Cell:
    if result is None:
        return Cell(ABSENT)
    if result.value is None:
        return Cell(ABSENT, note=f"not run: {result.reason or 'no reason recorded'}")
    low, high = (_score(bound, result.metric) for bound in (result.low, result.high))
    interval = f"{low.rstrip('%').rstrip()}–{high} · " if result.low is not None else ""
    note = f"{interval}n {count(result.n)}"
    return Cell(_score(result.value, result.metric), note=note, tag=chance(result))


def _samples(report: RunReport) -> Iterator[Block]:
    limit = int(report.config.get("report", {}).get("samples_shown", 6))
    by_prompt: dict[str, list[tuple[str, Cell]]] = {}
    for stage in report.trained:
        for key in dict.fromkeys((sample.prompt_set, sample.prompt) for sample in stage.samples):
            alike = [s for s in stage.samples if (s.prompt_set, s.prompt) == key]
            title = f"{key[0]}: {key[1]}" if key[0] else key[1]
            for s in evenly(alike, limit):
                answer = Cell(s.text, note="cut here" if s.finish_reason == "length" else "")
                by_prompt.setdefault(title, []).append((f"{s.stage} {s.step}", answer))
    for number, (prompt, rows) in enumerate(by_prompt.items()):
        yield from table("step,answer", rows, prompt, folded=number > 0)


def _rollouts(report: RunReport) -> Iterator[Block]:
    def row(r: RolloutRecord) -> tuple[Cell | str, ...]:
        note = f"{r.tokens} tokens, {r.tool_calls} tool calls, ended by {r.finish_reason}"
        reward = Cell(decimal(r.reward, 2), note=f"advantage {r.advantage:+.2f}")
        return str(r.step), r.prompt, Cell(r.text, note=note), reward

    chosen, head = report.rollouts, "step,problem,answer,reward"
    if chosen.count:
        yield Text(f"{count(chosen.count)} answers were sampled and graded.")
    yield from table(head, map(row, chosen.good), "Good: highest reward of the last quarter")
    yield from table(head, map(row, chosen.bad), "Bad: lowest reward of the last quarter")
    yield from table(head, map(row, chosen.drawn), "Drawn by lot from all", folded=True)


def _tokens(report: RunReport) -> Iterator[Block]:
    rows, shares = [], []
    for s in report.trained:
        per_parameter = s.tokens / report.parameters if s.tokens and report.parameters else None
        counts = [s.result("planned_tokens"), s.tokens, s.result("targets")]
        used = percent(s.result("utilization"))
        waited = percent(s.data_share)
        rows.append([s.name, *map(count, counts), used, decimal(per_parameter, 2), waited])
        for share in s.result("mixture") or ():
            wanted = percent((share["requested_start"], share["requested_end"]))
            mean, got = percent(share.get("requested")), percent(share["realised"])
            epochs = decimal(share["epochs"], 2)
            shares.append((s.name, share["source"], wanted, mean, got, epochs))
    head = "stage,planned tokens,consumed tokens,targets,positions used,tokens per parameter"
    yield from table(f"{head},waiting for data", rows)
    yield from table(
        "stage,source,requested from and to,on average,realised,epochs", shares, "Mixture"
    )
    if text := _tool_share(report):
        yield Text(text)


def _tool_share(report: RunReport) -> str:
    sources = report.config.get("sources", {})
    mixture = report.config.get("sft", {}).get("mixture", {})
    found = {name: sources.get(name, {}).get("tool_share") for name in mixture}
    shares = {name: share for name, share in found.items() if share is not None}
    if not shares:
        return ""
    said = ", ".join(f"{percent(share)} in source {name}" for name, share in shares.items())
    text = f"SFT shows the calculator in a fixed share of the products ({said})."
    if "rl" in report.config and max(shares.values()) < 0.5:
        text += " It was kept low on purpose, so that RL has something to find: the tool pays."
    return text


def _tokenizer(report: RunReport) -> Iterator[Block]:
    stage, measured = report.stage("tokenizer"), report.compression
    if stage and stage.manifest:
        facts = stage.manifest.results.items()
        numbers = {key.replace("_", " "): v for key, v in facts if isinstance(v, int | float)}
        said = (f"{k} {count(v) if isinstance(v, int) else decimal(v)}" for k, v in numbers.items())
        yield Text(f"The tokenizer: {', '.join(said) or ABSENT}.")
    if measured is None:
        return
    caps = (measured.max_chars, "characters"), (measured.doc_cap, "characters of each text")
    read = ", ".join(f"at most {count(cap)} {what}" for cap, what in caps if cap) or "all text"
    yield Text(
        f"Of {count(measured.vocab_size)} ids {count(measured.num_special_tokens)} are special "
        f"tokens. The others stand for {measured.token_bytes_min} to {measured.token_bytes_max} "
        f"bytes, {decimal(measured.token_bytes_mean)} in the mean (standard deviation "
        f"{decimal(measured.token_bytes_std)}). Read for training: {read}."
    )
    yield from _compression(measured)


def _compression(measured: TokenizerEvaluation) -> Iterator[Block]:
    by_text: dict[str, dict[str, CompressionRecord]] = {}
    for record in measured.texts:
        by_text.setdefault(record.text, {})[record.vocabulary] = record
    columns = list(dict.fromkeys(record.vocabulary for record in measured.texts))
    rows: list[list[Cell | str]] = []
    for name, found in by_text.items():
        size_of = next(iter(found.values())).bytes
        rows.append([Cell(name), count(size_of), *(_compressed(found.get(c)) for c in columns)])
    if len(columns) > 1:
        yield Text(
            "Bytes per token, and below it how many fewer tokens the run’s tokenizer needs, in % "
            "of the other’s: above 0 the run’s is better."
        )
    yield from table(",".join(["text", "bytes", *columns]), rows, "Bytes per token")
    for name, reason in measured.absent.items():
        yield Text(f"Not compared with {name}: {reason}.")


def _compressed(record: CompressionRecord | None) -> Cell:
    if record is None:
        return Cell(ABSENT)
    note = f"{count(record.tokens)} tokens"
    if record.difference_percent is not None:
        note += f" · {record.difference_percent:+.1f}\u202f%"
    return Cell(decimal(record.bytes_per_token, 2), note=note)


def _data(report: RunReport) -> Iterator[Block]:
    cleaned: list[list[Cell | str]] = []
    clean = report.stage("clean")
    for source in (clean.result("sources") if clean else None) or ():
        reasons = (f"{reason} {count(number)}" for reason, number in source["dropped"].items())
        left_out = count(source["documents"] - source["kept"])
        cleaned.append([source["name"], count(source["documents"]), left_out, ", ".join(reasons)])
    yield from table("source,documents,left out,why", cleaned, "Cleaning")
    shards = report.stage("shards")
    found: list[dict[str, Any]] = (shards.result("sources") if shards else None) or []
    keys = ("documents", "tokens", "bytes", "validation_documents", "bad_rows")
    rows: list[list[Cell | str]] = []
    for source in found:
        declared = report.config.get("sources", {}).get(source.get("name"), {})
        forms = (f"{name} {count(number)}" for name, number in (source.get("forms") or {}).items())
        words = (source.get("kind"), *forms, declared.get("language"), declared.get("licence"))
        name = Cell(str(source.get("name", ABSENT)), note=" · ".join(w for w in words if w))
        rows.append([name, *(count(source.get(key)) for key in keys), _ratio(source)])
    if len(rows) > 1:
        whole = {key: total(source.get(key) for source in found) for key in keys}
        rows.append([Cell("all"), *map(count, whole.values()), _ratio(whole)])
    yield from table("source,documents,tokens,bytes,held out,quarantined,bytes per token", rows)


def _ratio(source: Mapping[str, Any]) -> str:
    num_bytes, tokens = source.get("bytes"), source.get("tokens")
    return decimal(num_bytes / tokens, 2) if num_bytes and tokens else ABSENT


def _environment(report: RunReport) -> Iterator[Block]:
    machine = dict(report.machine)
    speeds = machine.pop("measurements", None) or {}
    if "dtype" in machine:
        measured = ", ".join(f"{dtype} {speed:.0f}" for dtype, speed in speeds.items())
        why = f", chosen by measurement: {measured} GFLOP/s" if measured else ""
        yield Text(f"Matrix products ran in {machine['dtype']}{why}.")
    yield from table("machine,", ((key, str(value)) for key, value in machine.items()))
    if report.manifests:
        yield from table("software,", report.manifests[-1].versions.items())


def _reproduction(report: RunReport) -> Iterator[Block]:
    commits = {manifest.versions.get("git_commit", "").rstrip("+") for manifest in report.manifests}
    lines = [f"git checkout {commit}" for commit in sorted(commits - {"", "unknown"})]
    lines.append(f"penjing train {report.name}.toml    # the resolved file below")
    yield Text("\n".join([*lines, f"penjing report {report.name}.toml"]), "code")
    rows = []
    for m in report.manifests:
        inputs = ", ".join(f"{name} {digest[:12]}" for name, digest in m.inputs.items())
        rows.append((m.stage, m.identity_digest[:16], str(m.seed), inputs or ABSENT))
    yield from table("stage,identity,seed,inputs", rows, "Digests", folded=True)
    if report.config_text:
        yield Text(report.config_text, "code")
