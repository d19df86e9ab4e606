"""The report as Markdown, with the same content as the page."""

import re
from html import escape

from penjing.report.blocks import Block, Cell, Charts, Table, visible
from penjing.report.collect import RunReport
from penjing.report.figures import Chart, evenly, smooth
from penjing.report.sections import compose

ACTIVE = re.compile(r"([\\`*_\[\]|~#$@])")


def render_markdown(report: RunReport) -> str:
    """GitHub Markdown: tables, and the loss curves as mermaid charts."""
    content = compose(report)
    parts = [f"# {_text(content.title)}", _text(content.date), f"**{_text(content.verdict)}**"]
    parts.append(_rows(tuple(content.facts), [[_text(v) for v in content.facts.values()]]))
    for title, blocks in content.sections.items():
        parts += [f"## {title}", *map(_block, blocks)]
    return "\n\n".join(parts) + "\n"


def _text(text: str) -> str:
    """Inert text: no HTML, no Markdown, one line."""
    return ACTIVE.sub(r"\\\1", escape(visible(text), quote=False)).replace("\n", "<br>")


def _rows(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [[_text(word) for word in head], ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _block(block: Block) -> str:
    if isinstance(block, Charts):
        return "\n\n".join([_summary(block), *(_mermaid(c) for c in block.charts if c.raw)])
    if isinstance(block, Table):
        table = _rows(block.head, [[_cell(cell) for cell in row] for row in block.rows])
        return f"**{_text(block.title)}**\n\n{table}" if block.title else table
    if block.kind == "code":
        return "    " + visible(block.text).replace("\n", "\n    ")
    return f"- ⚠ {_text(block.text)}" if block.kind == "warning" else _text(block.text)


def _cell(cell: Cell) -> str:
    parts = (_text(cell.text), f"**{cell.tag}**" if cell.tag else "", _text(cell.note))
    return "<br>".join(part for part in parts if part)


def _summary(block: Charts) -> str:
    rows = []
    for chart in block.charts:
        for series in chart.series:
            values = [y for _, y in series.points]
            if values:
                numbers = (values[0], values[-1], min(values), max(values))
                words = [_text(chart.title), _text(series.name), _text(chart.y_label)]
                rows.append(words + [f"{number:.4g}" for number in numbers])
    return _rows(("curve", "series", "unit", "first", "last", "lowest", "highest"), rows)


def _mermaid(chart: Chart) -> str:
    points = evenly(smooth(chart.series[0].points), 40)
    if len(points) < 2:
        return ""
    values = ", ".join(f"{y:.4g}" for _, y in points)
    span = f'"step" {points[0][0]:g} --> {points[-1][0]:g}'
    return (
        f'```mermaid\nxychart-beta\n    title "{chart.title}"\n    x-axis {span}\n'
        f'    y-axis "loss"\n    line [{values}]\n```'
    )
