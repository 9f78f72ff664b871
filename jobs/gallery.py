"""`diffpriv gallery`: a dataset before and after on one page. `diffpriv review` is the same page where it needs a decision."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.keys.errors import MisuseError

NEAR = 0.1  # below the builtin recogniser's limit


def gallery(
    places: Annotated[
        list[str], typer.Argument(metavar="SRC DST", help="The dataset before and after; with --published only DST.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for gallery.html; it shows faces, so keep it as SRC is kept.")],
    published: Annotated[bool, typer.Option("--published", help="Outputs only, to share.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Faces on the page; 0 is all, with smaller pictures.")] = 300,
    measure: Annotated[
        int, typer.Option(min=0, help="Faces that are measured to find the worst; 0 is all, at 0.1 s a picture or more.")
    ] = 600,
    group: Annotated[str, typer.Option(help="Field, or column of --labels, to filter by and to spread over.")] = "",
    labels: Annotated[str, typer.Option(help="CSV with the columns file, person and that of --group.")] = "",
    format: Annotated[str, typer.Option(help="Format of SRC: auto, webdataset, parquet or folder.")] = "auto",
    detector: Annotated[str, typer.Option(help="centerface or insightface:FOLDER.")] = "centerface",
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
) -> None:
    """Write gallery.html: faces before and after, the worst by each measure among them, and decisions to save."""
    from diffpriv.pipelines.review.build import PageSettings, gallery_page, published_page

    if len(places) != (1 if published else 2):
        wanted = "only DST, the protected dataset" if published else "SRC and DST, the dataset before and after"
        raise MisuseError(f"{len(places)} places were given; gallery{' --published' * published} takes {wanted}.")
    dst = places[-1]
    check_out(out, *places)
    if labels and not group:
        raise MisuseError("--labels names a file, and no --group says which of its columns is wanted.")
    strict = same_person_limit()
    settings = PageSettings(
        format=format,
        detector=detector,
        near_limit=strict - NEAR,
        similarity_limit=strict,
        limit=limit,
        measured=measure,
        group=group,
        labels=labels,
        seed=seed,
    )
    document = published_page(dst, settings, OUTPUT.note) if published else gallery_page(dst, places[0], settings, OUTPUT.note)
    answer(write_page(out / "gallery.html", document), document)


def check_out(out: Path, *places: str) -> None:
    """Raises: MisuseError where the page would lie in a dataset: it may be released with it, or be read as a part of it."""
    for place in places:
        if "://" not in place and out.resolve().is_relative_to(Path(place).resolve()):
            raise MisuseError(f"{out} lies in {place}.", advice="Give a folder apart from the datasets.")


def same_person_limit() -> float:
    """Similarity that the builtin recogniser calls the same person, at a false-accept rate of 1e-3."""
    from importlib.resources import files  # not diffpriv.weights, which loads torch

    config = json.loads((files("diffpriv") / "builtin" / "recognizer" / "config.json").read_text(encoding="utf-8"))
    return float(config["thresholds"]["0.001"])


def write_page(page: Path, document: dict[str, Any]) -> Path:
    """Write the page, for its owner alone. Raises: MisuseError where that is not possible."""
    from diffpriv.pipelines.review.page import render

    text = render(document)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(page, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise MisuseError(f"{page} can't be written: {error.strerror or error}.", advice="Give another --out.") from error
    return page


def answer(page: Path, document: dict[str, Any]) -> None:
    """Say where the page is and what is on it."""
    entries = document["entries"]
    counts = {kind: sum(one["kind"] == kind for one in entries) for kind in ("protected", "missed", "filled", "left")}
    counts["uncertain"] = sum(bool(one.get("uncertain")) for one in entries)
    words = {"missed": "perhaps missed", "left": "left as they were"}
    told = ", ".join(f"{count} {words.get(kind, kind)}" for kind, count in counts.items() if count) or "nothing to look at"
    size = page.stat().st_size
    result = {"page": str(page), "shown": len(entries), "faces": document["faces"], "bytes": size, "kinds": counts}
    OUTPUT.result(result, lambda console: console.print(f"{page} ({size / 1e6:.1f} MB): {told}", markup=False))
