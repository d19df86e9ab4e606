"""The report stage: one page, one Markdown file and one JSON file about the run."""

from typing import Any

from penjing.artifacts.directories import staged
from penjing.report.collect import collect, to_json
from penjing.report.markdown import render_markdown
from penjing.report.page import render_html
from penjing.stages.context import StageContext


def run(context: StageContext) -> dict[str, Any]:
    """Writes `report/report.html`, `.md` and `.json` from what the other stages left on disk."""
    found = collect(context.run_dir)
    with staged(context.directory("report")) as partial:
        (partial / "report.html").write_text(render_html(found), encoding="utf-8")
        (partial / "report.md").write_text(render_markdown(found), encoding="utf-8")
        (partial / "report.json").write_text(to_json(found), encoding="utf-8")
    return {}
