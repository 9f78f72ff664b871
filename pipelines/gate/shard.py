"""One published shard against its originals.

For every published picture, in this order:
    1. its file: metadata and embedded pictures (`embedded`), and whether it is proved to hold nothing else (`plain`)
    2. where its original has a face: is that face's detail still there (`copies.likeness`)? Independent of any detector
    3. where a detector sees a face now: one the original has no face at? A copy of another original? Does a recogniser know it?
    4. as a whole: is it a version of another original, with that one's faces unprotected?
Whatever cannot be looked at is a finding too.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.gate.contents import FieldWitness
from diffpriv.pipelines.gate.copies import (
    NEAR_FACE,
    NEAR_PICTURE,
    SAME_DETAIL,
    distances,
    face_chip,
    likeness,
    perceptual_hash,
)
from diffpriv.pipelines.gate.findings import GateFinding, GateSettings
from diffpriv.pipelines.gate.originals import LIMITS, OriginalFace, OriginalPicture, Originals, crops
from diffpriv.pipelines.gate.recognition import similarity_limits
from diffpriv.pipelines.pictures.camera import camera_names
from diffpriv.pipelines.pictures.codec import DecodedPicture, decode, later_frames, other_views
from diffpriv.pipelines.pictures.embedded import embedded_pictures, metadata_findings
from diffpriv.pipelines.pictures.plain import oddity
from diffpriv.pipelines.records.samples import Picture, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.steps.lookout import SAME_FACE, Lookout
from diffpriv.recognition import Recognizer

MOST_CAMERAS = 2048  # characters of all their names in a shard: more could be data
OWN, OTHER = "to its original", "to another original"


@dataclass
class ShardResult:
    """What the gate found in a shard, what it counted, and the highest similarities."""

    findings: list[GateFinding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    highest: dict[str, float] = field(default_factory=dict)

    def similarity(self, which: str, value: float) -> None:
        self.highest[which] = max(value, self.highest.get(which, -1.0))


class ShardGate:
    """Args:
    recognizer: None compares by region only.
    settings: limits (see `recognition.similarity_limits`), and fields that pass by name.
    """

    def __init__(self, shard: str, lookout: Lookout, recognizer: Recognizer | None, settings: GateSettings) -> None:
        self._shard, self._lookout, self._recognizer = shard, lookout, recognizer
        self._limit, self._allowed = settings.similarity_limit, settings.allowed_fields
        self._camera_kept = settings.camera
        self._cameras: set[str] = set()
        self.result = ShardResult()

    def check(
        self, originals: Originals, published: Iterator[Sample | QuarantinedSample | ShardEnd], by_rows: list[str]
    ) -> None:
        """Examine every record of the published shard.

        Args:
            by_rows: for Parquet, the source's key of each published row; empty where samples keep their keys.
        Raises:
            DetectorError, ModelError: a model failed; nothing about this shard is known then.
        """
        known = set(originals.samples)
        self._originals = originals
        self.result.counts["faces of the originals"] += len(originals.faces)
        for row, record in enumerate(published):
            if isinstance(record, ShardEnd):
                self._sidecars(record)
            elif isinstance(record, QuarantinedSample):
                self._find("not checked", record.key, detail=record.problem.text)
            else:
                self.result.counts["samples"] += 1
                key = record.key if not by_rows else by_rows[row] if row < len(by_rows) else ""
                if key not in known:
                    self._find("added", record.key, detail="a sample that the original shard does not have")
                for place, picture in enumerate(record.pictures):
                    self._picture(key, record.key, picture, place)

    def beside(self, witness: FieldWitness) -> None:
        """Take in what was found beside the pictures."""
        witness.close()
        for (kind, place, reason), times in sorted(witness.problems.items()):
            self._find(kind, field=place, detail=reason, times=times)
        if sum(map(len, self._cameras)) > MOST_CAMERAS:
            detail = f"{len(self._cameras)} names of cameras and lenses, more than there are"
            self._find("not checked", field="EXIF", detail=detail)

    def container(self, reason: str) -> None:
        """The file around the samples is not proved to hold nothing else."""
        self._find("not checked", detail=reason)

    def _find(self, kind: str, sample: str = "", field: str = "", detail: str = "", times: int = 1) -> None:
        if field in self._allowed and (kind == "not checked" or kind.startswith("sidecar: ")):
            kind = "allowed field"
        self.result.findings.append(GateFinding(kind, self._shard, sample, field, detail, times))

    def _sidecars(self, end: ShardEnd) -> None:
        if end.problem:
            self._find("not checked", detail=end.problem)
        for what, times in end.sidecars:
            kind, _, place = what.partition(" in ")
            self._find(f"sidecar: {kind}", field=place, times=times)

    def _picture(self, key: str, name: str, picture: Picture, place: int) -> None:
        self.result.counts["pictures"] += 1
        original = self._originals.pictures.get((key, picture.field))
        changed = original is not None and hashlib.sha256(picture.data).digest() != original.sha256
        label = picture.field + (f" (picture {place + 1} of its sample)" if place else "")
        if original is None:
            self._find("added", name, label, "a picture that the original sample does not have")
        try:
            for what in metadata_findings(picture.data, changed=changed, camera=self._camera_kept):
                self._find("metadata", name, label, what + (", of a changed picture" if changed else ""))
            decoded = decode(picture.data, LIMITS)
            self._camera(decoded)
            self._thumbnails(name, label, picture.data, decoded, changed)
            if odd := oddity(picture.data, decoded):
                self._find("not checked", name, label, f"{odd}; with strip_metadata: all every picture is written anew")
            self._pixels(name, label, decoded.pixels, original)
            self._views(name, label, decoded, original)
            for frame in later_frames(decoded):
                if self._lookout.faces(frame):
                    self._find("unprotected face", name, label, "in a later frame")
                    break
        except BadImageError as error:
            self._find("not checked", name, label, error.message)

    def _camera(self, decoded: DecodedPicture) -> None:
        if decoded.camera_exif:
            self.result.counts["pictures that name a camera"] += 1
            self._cameras |= camera_names(decoded.camera_exif)

    def _thumbnails(self, name: str, label: str, data: bytes, decoded: DecodedPicture, changed: bool) -> None:
        own = perceptual_hash(decoded.pixels)
        for pixels in embedded_pictures(data):
            if self._lookout.sees_one(pixels):
                self._find("thumbnail", name, label, "it shows a face")
            elif changed:
                self._find("thumbnail", name, label, "of a changed picture")
            elif int(distances(own, np.array([perceptual_hash(pixels)], np.uint64))[0]) > NEAR_PICTURE:
                self._find("thumbnail", name, label, "it shows something else than its picture")

    def _views(self, name: str, label: str, decoded: DecodedPicture, original: OriginalPicture | None) -> None:
        """What other viewers see, and what lies beside the picture that is seen."""
        here = _placed(original, decoded.pixels) if original is not None else []
        seen: list[Face] | None = None
        for place, view in other_views(decoded):
            if place:
                if self._lookout.sees_one(view):
                    self._find("unprotected face", name, label, f"in its {place}")
                continue
            seen = self._lookout.faces(decoded.pixels) if seen is None else seen
            for face in self._lookout.faces(view):
                known = _match(face, here) is not None or any(overlap(face.box, one.box) >= SAME_FACE for one in seen)
                if not known:
                    self._find("unexplained face", name, label, "on another ground than its own")

    def _pixels(self, name: str, label: str, pixels: np.ndarray, original: OriginalPicture | None) -> None:
        here = _placed(original, pixels) if original is not None else []
        seen = self._lookout.faces(pixels)
        self.result.counts["faces seen in the output"] += len(seen)
        reported: set[int] = set()
        for one, face in here:
            alike = likeness(one.chip, face_chip(pixels, face.landmarks))
            if alike >= SAME_DETAIL:
                reported.add(one.number)
                self._find("unprotected face", name, label, f"its detail is the original's ({alike:.2f})")
        matched = [_match(face, here) for face in seen]
        for face, mine in zip(seen, matched, strict=True):
            copies = self._copies(pixels, face, mine, reported)
            if mine is None and not copies:
                self._find("unexplained face", name, label, f"detector score {face.score:.2f}")
            elif mine is None:
                self._find("unprotected face", name, label, "where the original has none")
            for one in copies:
                reported.add(one.number)
                self._find("copy of an original", name, label, f"of a face of {one.sample} / {one.field}")
        self._versions(name, label, pixels, original, reported)
        self._recognise(name, label, pixels, here, list(zip(seen, matched, strict=True)))

    def _copies(self, pixels: np.ndarray, face: Face, mine: OriginalFace | None, reported: set[int]) -> list[OriginalFace]:
        """Originals other than its own that a face is a copy of, mirrored ones included."""
        found = []
        chip = face_chip(pixels, face.landmarks)
        for version in (chip, np.ascontiguousarray(chip[:, ::-1])):
            near = distances(perceptual_hash(version), self._originals.face_hashes) <= NEAR_FACE
            for number in np.flatnonzero(near):
                one = self._originals.faces[number]
                if one is not mine and one.number not in reported and likeness(one.chip, version) >= SAME_DETAIL:
                    found.append(one)
        return found

    def _versions(
        self, name: str, label: str, pixels: np.ndarray, original: OriginalPicture | None, reported: set[int]
    ) -> None:
        """Faces of other original pictures of which this one as a whole is a version, detected or not."""
        for version in (pixels, pixels[:, ::-1]):
            near = distances(perceptual_hash(np.ascontiguousarray(version)), self._originals.picture_hashes) <= NEAR_PICTURE
            for number in np.flatnonzero(near):
                other = self._originals.with_faces[number]
                if other is original and version is pixels:
                    continue
                for one, face in _placed(other, pixels):
                    if one.number in reported:
                        continue
                    if likeness(one.chip, face_chip(np.ascontiguousarray(version), face.landmarks)) >= SAME_DETAIL:
                        reported.add(one.number)
                        self._find("copy of an original", name, label, f"a version of {one.sample} / {one.field}")

    def _recognise(
        self,
        name: str,
        label: str,
        pixels: np.ndarray,
        here: list[tuple[OriginalFace, Face]],
        seen: list[tuple[Face, OriginalFace | None]],
    ) -> None:
        """Similarity of what is seen, and of what stands where the originals were, to all originals of the shard."""
        looked = [*seen, *((face, one) for one, face in here)]
        if self._recognizer is None or not looked or not len(self._originals.faces):
            return
        own_limit, other_limit = similarity_limits(self._recognizer, self._limit, len(self._originals.faces))
        embedded = self._recognizer.embed(crops(pixels, [face for face, _ in looked]))
        similarities = embedded @ self._originals.embeddings.T
        self.result.counts["faces compared by recogniser"] += len(looked)
        worst: dict[tuple[str, int], tuple[float, str]] = {}
        for row, (_, mine) in zip(similarities, looked, strict=True):
            others = row.copy()
            if mine is not None:
                self._note(worst, "similar to its original", OWN, mine.number, float(row[mine.number]), own_limit)
                others[mine.number] = -1.0
            if len(others) > (mine is not None):
                nearest = int(others.argmax())
                self._note(worst, "similar to another original", OTHER, nearest, float(others[nearest]), other_limit)
        for (kind, number), (_, detail) in worst.items():
            one = self._originals.faces[number]
            where = "" if kind == "similar to its original" else f", {one.sample} / {one.field}"
            self._find(kind, name, label, detail + where)

    def _note(
        self, worst: dict[tuple[str, int], tuple[float, str]], kind: str, which: str, number: int, value: float, limit: float
    ) -> None:
        """Keep the strongest answer per original: a face is looked at where it is seen and where it was."""
        self.result.similarity(which, value)
        if value > limit and value > worst.get((kind, number), (-2.0, ""))[0]:
            worst[kind, number] = (value, f"{value:.3f}, limit {limit:.3f}")


def _placed(original: OriginalPicture, pixels: np.ndarray) -> list[tuple[OriginalFace, Face]]:
    """The original's faces in the coordinates of a version of it that may have another size."""
    x, y = pixels.shape[1] / original.size[0], pixels.shape[0] / original.size[1]
    placed = []
    for one in original.faces:
        x0, y0, x1, y1 = one.face.box
        landmarks = (one.face.landmarks + 0.5) * (x, y) - 0.5
        placed.append((one, Face((x0 * x, y0 * y, x1 * x, y1 * y), landmarks, one.face.score)))
    return placed


def _match(face: Face, here: list[tuple[OriginalFace, Face]]) -> OriginalFace | None:
    """The original's face at the same place."""
    best = max(here, key=lambda pair: overlap(face.box, pair[1].box), default=None)
    return best[0] if best is not None and overlap(face.box, best[1].box) >= SAME_FACE else None
