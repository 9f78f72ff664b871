"""From a published dataset to the document of its page: list, look, choose, cut small pictures."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from diffpriv.detectors import load_detector
from diffpriv.pipelines.destination.published import records
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.evaluation.labels import Labels
from diffpriv.pipelines.review.entries import (
    FILLED,
    LEFT,
    MISSED,
    FaceEntry,
    choose_to_look,
    choose_to_show,
    list_faces,
    pick_order,
)
from diffpriv.pipelines.review.looking import by_picture, look_at, read_pairs
from diffpriv.pipelines.review.page import PageFacts, page_data
from diffpriv.pipelines.threads import fix_threads

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PageSettings:
    """Args of both pages.

    Attributes:
        limit: how many faces are shown; 0 is all. measured: how many are opened to choose from; 0 is all.
        lowest: detections from this score on may be missed faces. near_limit: similarity from which a face is uncertain.
        similarity_limit: what the recogniser calls the same person, for the page's words.
        group, labels: field or manifest column to group by, and the manifest (CSV), if any.
    """

    format: str = "auto"
    detector: str = "centerface"
    lowest: float = 0.25
    near_limit: float = 1.0
    similarity_limit: float | None = None
    limit: int = 300
    measured: int = 600
    group: str = ""
    labels: str = ""
    seed: int = 0


def gallery_page(dst: str, src: str, settings: PageSettings, progress: Progress = lambda text: None) -> dict[str, Any]:
    """The document of a page with a sample of all faces, the worst by each measure among them.

    Raises:
        MisuseError: nothing is published at DST, or SRC is not what it was made from.
        DetectorError: the detector's weights are missing.
    """
    facts, faces = _facts(dst, "gallery", settings), list(list_faces(dst))
    chosen = choose_to_look(faces, settings.measured or len(faces), settings.seed)
    share = len(chosen) / max(1, facts.samples)
    with_faces = {(face.shard, face.sample) for face in faces}

    def opened(shard: str, key: str) -> bool:
        if (shard, key) in with_faces:
            return (shard, key) in chosen
        return not settings.measured or pick_order(settings.seed, shard, key) < share  # somebody may be missed there

    looked = list(_look(dst, src, faces, settings, opened, progress))
    shown = choose_to_show(looked, settings.limit or len(looked), settings.seed)
    facts = dataclasses.replace(facts, faces=len(faces), looked=sum(face.kind != MISSED for face in looked))
    return _finish(dst, src, facts, shown, settings, progress)


def review_page(dst: str, src: str | None, settings: PageSettings, progress: Progress = lambda text: None) -> dict[str, Any]:
    """The document of a page with everything that a person should look at: uncertain, perhaps missed, filled, left.

    Args:
        src: the originals; without them no missed face can be seen.
    Raises:
        MisuseError: a shard has no faces table, or SRC is not what DST was made from.
    """
    faces = list(list_faces(dst, table_needed=True))
    facts = dataclasses.replace(_facts(dst, "review", settings), faces=len(faces), looked=len(faces))
    looked: Iterator[FaceEntry]
    if src is None:
        looked = (face.judged(settings.near_limit) for face in faces)
    else:
        looked = _look(dst, src, faces, settings, lambda shard, key: True, progress)
    shown = [face for face in looked if face.uncertain or face.kind in (MISSED, FILLED, LEFT)]
    return _finish(dst, src, facts, shown, settings, progress)


def published_page(dst: str, settings: PageSettings, progress: Progress = lambda text: None) -> dict[str, Any]:
    """The document of a page to share: replaced faces as they are published, and nothing of the job's state.

    Raises:
        MisuseError: nothing is published at DST, or its shards have no faces table.
    """
    faces = [face for face in list_faces(dst, table_needed=True) if face.kind != LEFT]
    facts = dataclasses.replace(_facts(dst, "published", settings), faces=len(faces), group="", limit=None)
    shown = choose_to_show(faces, settings.limit or len(faces), settings.seed)
    return _finish(dst, None, facts, shown, settings, progress)


def _facts(dst: str, mode: Any, settings: PageSettings) -> PageFacts:
    names, samples = set(), 0
    for record in records(dst):
        names.add(record.dataset)
        samples += record.counts["samples_out"]
    name = ", ".join(sorted(names))
    title = {"gallery": f"{name}, before and after", "review": f"Review of {name}", "published": name}[mode]
    return PageFacts(title, mode, name, 0, samples, 0, settings.group, settings.similarity_limit)


def _look(
    dst: str,
    src: str,
    faces: Sequence[FaceEntry],
    settings: PageSettings,
    opened: Callable[[str, str], bool],
    progress: Progress,
) -> Iterator[FaceEntry]:
    fix_threads()
    finder = load_detector(settings.detector, threshold=settings.lowest)
    labels = Labels(settings.labels, (settings.group,) if settings.group else ())
    fields = labels.fields | ({settings.group} if settings.group and not settings.labels else set())
    places, count = by_picture(faces), 0
    for pair in read_pairs(dst, src, settings.format, opened, frozenset(fields)):
        yield from (face.judged(settings.near_limit) for face in look_at(pair, places, finder, labels, settings.group))
        count += 1
        if count % 50 == 0:
            progress(f"{count:,} samples measured")
    if not count and faces:
        raise MisuseError(f"no sample of {dst} was found in {src}.", advice="Give the SRC that DST was made from, then DST.")


def _finish(
    dst: str, src: str | None, facts: PageFacts, shown: Sequence[FaceEntry], settings: PageSettings, progress: Progress
) -> dict[str, Any]:
    wanted = {(face.shard, face.sample) for face in shown}
    progress(f"{len(shown):,} faces chosen; cutting their pictures")
    return page_data(facts, shown, read_pairs(dst, src, settings.format, lambda shard, key: (shard, key) in wanted))
