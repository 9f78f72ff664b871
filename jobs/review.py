"""`diffpriv review`: a page of uncertain cases for a person; `sanitize --decisions` then redoes the shards decided about."""

from pathlib import Path
from typing import Annotated

import typer

from diffpriv.jobs.gallery import NEAR, answer, check_out, same_person_limit, write_page
from diffpriv.jobs.output import OUTPUT


def review(
    dst: Annotated[str, typer.Argument(metavar="DST", help="A protected dataset, made with --faces-table.")],
    out: Annotated[Path, typer.Option(help="Folder for the page; with originals it shows faces, so keep it as they are kept.")],
    originals: Annotated[str | None, typer.Option(help="SRC, to look for faces that were missed.")] = None,
    format: Annotated[str, typer.Option(help="Format of SRC: auto, webdataset, parquet or folder.")] = "auto",
    detector: Annotated[str, typer.Option(help="centerface or insightface:FOLDER.")] = "centerface",
    lowest: Annotated[float, typer.Option(min=0.05, max=1, help="Show missed faces from this score on.")] = 0.25,
    similarity: Annotated[float | None, typer.Option(help="Show protected faces from this similarity on.")] = None,
) -> None:
    """Write review.html: what may have been missed, was filled or left, or is still rather alike, with decisions to save."""
    from diffpriv.pipelines.review.build import PageSettings, review_page

    check_out(out, dst, *([originals] if originals else []))
    strict = same_person_limit()
    settings = PageSettings(
        format=format,
        detector=detector,
        lowest=lowest,
        near_limit=similarity if similarity is not None else strict - NEAR,
        similarity_limit=strict,
    )
    document = review_page(dst, originals, settings, OUTPUT.note)
    answer(write_page(out / "review.html", document), document)
