"""The report as one self-contained HTML page; nothing in it is fetched and no script runs."""

import re
from html import escape
from importlib.resources import files

from penjing.report.blocks import Block, Cell, Charts, Table, visible
from penjing.report.collect import RunReport
from penjing.report.figures import Chart, svg
from penjing.report.sections import compose

NUMBER = re.compile(r"[–+\-\d].{0,15}")  # how a cell of a right-aligned column begins


def render_html(report: RunReport) -> str:
    """The page as text; every string from models, data and files is escaped."""
    content = compose(report)
    style = files("penjing.report").joinpath("page.css").read_text("utf-8")
    contents = "".join(f'<a href="#{_anchor(s)}">{_text(s)}</a>' for s in content.sections)
    facts = "".join(
        f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in content.facts.items()
    )
    body = "".join(_section(title, blocks) for title, blocks in content.sections.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{_text(content.title)} · Penjing</title><style>{style}</style></head><body>"
        f'<header><p class="brand">Penjing · training report</p><h1>{_text(content.title)}</h1>'
        f'<p class="date">{_text(content.date)}</p><p class="verdict">{_text(content.verdict)}</p>'
        f"<dl>{facts}</dl></header><nav>{contents}</nav><main>{body}</main></body></html>\n"
    )


def _text(text: str) -> str:
    return escape(visible(text))


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _section(title: str, blocks: tuple[Block, ...]) -> str:
    body = "".join(map(_block, blocks))
    return f'<section id="{_anchor(title)}"><h2>{_text(title)}</h2>{body}</section>'


def _block(block: Block) -> str:
    if isinstance(block, Charts):
        return f'<div class="charts">{"".join(map(_chart, block.charts))}</div>'
    if isinstance(block, Table):
        return _table(block)
    if block.kind == "code":
        return f"<pre>{_text(block.text)}</pre>"
    return f'<p class="{block.kind}">{_text(block.text)}</p>'


def _chart(chart: Chart) -> str:
    names = "".join(
        f'<span class="c{series.color}">{_text(series.name)}</span>'
        for series in chart.series
        if series.points
    )
    unit = f" <small>{_text(chart.y_label)}</small>" if chart.y_label else ""
    caption = f"<figcaption>{_text(chart.title)}{unit}<i>{names}</i></figcaption>"
    return f"<figure>{caption}{svg(chart)}</figure>"


def _table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.head)
    kinds = [
        " class=n" if all(NUMBER.fullmatch(c.text) for c in cells) else "" for cells in columns
    ]
    head = "".join(f"<th{k}>{_text(word)}</th>" for k, word in zip(kinds, table.head, strict=True))
    rows = (zip(kinds, row, strict=True) for row in table.rows)
    lines = "".join(f"<tr>{''.join(_cell(k, cell) for k, cell in row)}</tr>" for row in rows)
    body = f'<div class="table"><table><tr>{head}</tr>{lines}</table></div>'
    if table.folded:
        return f"<details><summary>{_text(table.title)}</summary>{body}</details>"
    return (f"<h3>{_text(table.title)}</h3>" if table.title else "") + body


def _cell(kind: str, cell: Cell) -> str:
    parts = [_text(cell.text)]
    if cell.tag:
        parts.append(f'<b class="tag {cell.tag.split()[0]}">{_text(cell.tag)}</b>')
    if cell.note:
        parts.append(f"<small>{_text(cell.note)}</small>")
    if cell.bar is not None:
        parts.append(f'<span class="bar" style="width:{100 * cell.bar:.1f}%"></span>')
    return f"<td{kind}>{''.join(parts)}</td>"
