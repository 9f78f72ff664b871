"""`diffpriv review`: a page of uncertain cases for a person; `sanitize --decisions` then redoes the shards decided about."""

import base64
import html
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.output import OUTPUT
from keys.errors import MisuseError

if TYPE_CHECKING:
    from pipelines.review import Case

NEAR = 0.1  # below the builtin recogniser's limit


def review(
    dst: Annotated[str, typer.Argument(metavar="DST", help="A protected dataset, made with --faces-table.")],
    out: Annotated[Path, typer.Option(help="Folder for the page; with originals it shows faces, so keep it as they are kept.")],
    originals: Annotated[str | None, typer.Option(help="SRC, to look for faces that were missed.")] = None,
    format: Annotated[str, typer.Option(help="Format of SRC: auto, webdataset, parquet or folder.")] = "auto",
    detector: Annotated[str, typer.Option(help="centerface or insightface:FOLDER.")] = "centerface",
    lowest: Annotated[float, typer.Option(min=0.05, max=1, help="Show missed faces from this score on.")] = 0.25,
    similarity: Annotated[float | None, typer.Option(help="Show protected faces from this similarity on.")] = None,
) -> None:
    """Write review.html, one self-contained page: what may have been missed, filled, left, or is still rather alike."""
    from pipelines.review import find_cases

    place = Path(dst).resolve() if "://" not in dst else None
    if place is not None and out.resolve().is_relative_to(place):
        raise MisuseError(f"{out} lies in DST, which is to be released.", advice="Give a folder apart from it.")
    limit = similarity if similarity is not None else _near_the_limit()
    cases = list(find_cases(dst, originals, format=format, detector=detector, lowest=lowest, similar=limit))
    out.mkdir(parents=True, exist_ok=True)
    page = out / "review.html"
    handle = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(render(cases, dst))
    kinds = dict(sorted(Counter(case.kind for case in cases).items()))
    text = f"{page}: {', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'nothing to look at'}"
    OUTPUT.result({"page": str(page), "cases": kinds}, lambda console: console.print(text, markup=False))


def _near_the_limit() -> float:
    from diffpriv.weights import resolve_model

    config = json.loads((Path(resolve_model("builtin")) / "recognizer" / "config.json").read_text())
    return float(config["thresholds"]["0.001"]) - NEAR


def render(cases: "Sequence[Case]", title: str) -> str:
    """The page: no link leads out of it, and it works from a file."""
    parts = [_card(number, case) for number, case in enumerate(cases)]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return _PAGE.format(policy=policy, title=html.escape(title), count=len(cases), cards="\n".join(parts))


def _card(number: int, case: "Case") -> str:
    picture = base64.b64encode(case.crop).decode()
    image = f'<img src="data:image/jpeg;base64,{picture}" alt="">' if case.crop else "<div class=none>no picture</div>"
    box = [round(value, 2) for value in case.box]
    data = json.dumps({"shard": case.shard, "sample": case.sample, "field": case.field, "box": box})
    options = "".join(f'<option value="{value}">{label}</option>' for value, label in _CHOICES[case.kind])
    where = html.escape(f"{case.shard} / {case.sample} / {case.field}")
    written = ",".join(str(value) for value in box)
    return (
        f'<figure data-case="{html.escape(data, quote=True)}" id="c{number}">{image}'
        f"<figcaption><b>{html.escape(case.kind)}</b> {html.escape(case.detail)}<br><small>{where}</small><br>"
        f'<select>{options}</select> <input value="{written}" title="box x0,y0,x1,y1"></figcaption></figure>'
    )


_NOTHING = ("", "nothing to do")
_CHOICES = {
    "perhaps missed": (_NOTHING, ("add", "a face: add this box")),
    "near the similarity limit": (_NOTHING, ("redo", "redo its shard"), ("drop", "no face: drop this box")),
    "filled": (_NOTHING, ("redo", "redo its shard"), ("drop", "no face: drop this box")),
    "left as it is": (_NOTHING, ("add", "treat it: add this box")),
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<title>Review of {title}</title>
<style>
body {{ font: 14px sans-serif; margin: 1em; background: #f6f6f4; color: #222 }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(260px, 1fr)); gap: 10px }}
figure {{ margin: 0; padding: 8px; background: #fff; border: 1px solid #ddd; display: flex; gap: 8px; overflow-wrap: anywhere }}
figure.decided {{ border-color: #c60 }}
img, .none {{ width: 112px; height: 112px; object-fit: contain; flex: none; background: #eee }}
header {{ position: sticky; top: 0; background: #f6f6f4; padding: 6px 0 }}
input {{ width: 9em; font-size: 11px }}
</style></head><body>
<header><h1>Review of {title}</h1>{count} cases. Decide where something is wrong, save the file, and give it to
<code>diffpriv sanitize ... --decisions decisions.json</code>. <button id="save">Save decisions</button> <span id="told"></span>
</header><main>
{cards}
</main><script>
const figures = [...document.querySelectorAll("figure")];
function decisions() {{
  const shards = {{}};
  for (const figure of figures) {{
    const action = figure.querySelector("select").value;
    figure.classList.toggle("decided", action !== "");
    if (!action) continue;
    const one = JSON.parse(figure.dataset.case);
    const box = action === "redo" ? [] : figure.querySelector("input").value.split(",").map(Number);
    (shards[one.shard] ??= []).push({{sample: one.sample, field: one.field, action: action, box: box}});
  }}
  return {{format: "diffpriv decisions", version: 1, dataset: "", shards: shards}};
}}
function tell() {{
  const shards = decisions().shards;
  document.getElementById("told").textContent = Object.values(shards).flat().length + " decisions about "
    + Object.keys(shards).length + " shards";
}}
for (const figure of figures) figure.addEventListener("change", tell);
document.getElementById("save").addEventListener("click", () => {{
  const link = document.createElement("a");
  link.href = "data:application/json," + encodeURIComponent(JSON.stringify(decisions(), null, 1));
  link.download = "decisions.json";
  link.click();
}});
tell();
</script></body></html>
"""
