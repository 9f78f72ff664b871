"""The HTML report: one file, nothing loaded from elsewhere, no script. Faces only where `examples` are given."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.faces import ORIGINAL, EvaluatedFaces
from diffpriv.pipelines.evaluation.plots import plots

PAGE, DATA = "report.html", "report.json"
EXAMPLES = 12
TEMPLATE = Path(__file__).with_name("report.html")


def write_report(folder: str, document: dict[str, Any], faces: EvaluatedFaces | None = None) -> tuple[Path, Path]:
    """Write the page and the document; returns their paths.

    Args:
        faces: give them only if the report may show faces of the dataset.
    Raises:
        MisuseError: the folder can't be written.
    """
    target = Path(folder)
    page = render(document, [] if faces is None else examples(faces, document["made"]["seed"]))
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / DATA).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (target / PAGE).write_text(page, encoding="utf-8")
    except OSError as error:
        raise MisuseError(f"{target} can't be written: {error.strerror or error}.", advice="Give another --report.") from error
    return target / PAGE, target / DATA


def render(document: dict[str, Any], shown: list[dict[str, str]]) -> str:
    """The page as text. Everything from the dataset is escaped: names of groups and labels are the dataset's own words."""
    import jinja2
    import markupsafe

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "number": number, "named": named}
    drawn = {name: markupsafe.Markup(svg) for name, svg in plots(document).items()}  # noqa: S704 - drawn by matplotlib, which escapes text
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(document=document, plots=drawn, examples=shown)


def percent(rate: dict[str, Any] | float | None) -> str:
    """A share as percent; a rate with its interval."""
    if rate is None or (isinstance(rate, dict) and rate["value"] is None):
        return "–"
    if not isinstance(rate, dict):
        return f"{100 * rate:.1f}"
    if rate["low"] is None:
        return f"{100 * rate['value']:.1f}"
    return f"{100 * rate['value']:.1f} ({100 * rate['low']:.1f} to {100 * rate['high']:.1f})"


def number(rate: dict[str, Any] | float | None) -> str:
    """A mean that is no share, with its interval."""
    if rate is None or (isinstance(rate, dict) and rate["value"] is None):
        return "–"
    if not isinstance(rate, dict):
        return f"{rate:.3g}"
    return (
        f"{rate['value']:.3f} ({rate['low']:.3f} to {rate['high']:.3f})" if rate["low"] is not None else f"{rate['value']:.3f}"
    )


def named(variant: str) -> str:
    """What the report calls a variant."""
    return {"protected": "this output", "original": "originals"}.get(variant, variant)


def examples(faces: EvaluatedFaces, seed: int) -> list[dict[str, str]]:
    """Crops of a few faces, every variant, as data URLs."""
    chosen = np.random.default_rng(seed).permutation(len(faces))[:EXAMPLES]
    order = [ORIGINAL, *(name for name in faces.looks if name != ORIGINAL)]
    return [{name: _data_url(faces.looks[name].crops[row]) for name in order} for row in chosen]


def _data_url(crop: np.ndarray) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(crop).save(out, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
