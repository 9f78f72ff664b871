"""`diffpriv describe`: a dataset card of what was done, and all faces as COCO detections."""

import json
from pathlib import Path
from typing import Annotated

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.keys.errors import MisuseError


def describe(
    dst: Annotated[str, typer.Argument(metavar="DST", help="The protected dataset.")],
    out: Annotated[Path | None, typer.Option(help="Write the card to this file (README.md) instead of showing it.")] = None,
    coco: Annotated[Path | None, typer.Option(help="Write all faces as COCO detections to this file (.json).")] = None,
) -> None:
    """Say what was done to a dataset: counts, tools, what is kept of the faces, limits. For its dataset card."""
    from diffpriv.pipelines.review.card import coco_detections, dataset_card

    card = dataset_card(dst)
    answer: dict[str, object] = {"card": card}
    if out is not None:
        _write(out, dst, card)
        answer["out"] = str(out)
    if coco is not None:
        detections = coco_detections(dst)
        _write(coco, dst, json.dumps(detections, ensure_ascii=False, separators=(",", ":")))
        answer |= {"coco": str(coco), "pictures": len(detections["images"]), "faces": len(detections["annotations"])}
    shown = card if out is None else f"{out}: the card"
    if coco is not None:
        shown += f"\n{coco}: {answer['faces']} faces on {answer['pictures']} pictures"
    OUTPUT.result(answer, lambda console: console.print(shown, markup=False))


def _write(file: Path, dst: str, text: str) -> None:
    """Raises: MisuseError where it can't be written, or would lie in the dataset, which has the files that runs committed."""
    if "://" not in dst and file.resolve().is_relative_to(Path(dst).resolve()):
        raise MisuseError(f"{file} lies in {dst}: the release gate would take it for a file that nobody committed.")
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise MisuseError(f"{file} can't be written: {error.strerror or error}.") from None
