"""Replace the faces of detected samples, pure: records in, records out, safe to run twice. No engine, no files.

A face that cannot be transformed is filled; a picture that cannot be written again sends its sample to quarantine. Nothing is
passed on because something failed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face
from diffpriv.keys.context import ShardContext
from diffpriv.keys.sealing import FaceSecret
from diffpriv.keys.secrets import FaceKey
from diffpriv.keys.sources import KeySource
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.codec import (
    DecodedPicture,
    PictureLimits,
    count_pixels,
    decode,
    encode,
)
from diffpriv.pipelines.quarantine import Problem
from diffpriv.pipelines.records.samples import (
    DetectedSample,
    FaceOutcome,
    Picture,
    PictureFaces,
    ProtectedSample,
    QuarantinedSample,
)
from diffpriv.transforms import FaceRequest, FaceResult, FaceTransform, fill_face

TRANSFORM_LABEL = "diffpriv/v1/transform"
PIXELS_AT_ONCE = 40_000_000  # decoded at a time, 120 MB: bounds an actor's memory whatever its batch size


class Pseudonyms(Protocol):
    """What this module asks of `pipelines.steps.people`."""

    def seed(self, person: str) -> bytes: ...


@dataclass(eq=False)
class _Work:
    """A picture on its way through `protect`: opened, with one request per face."""

    found: PictureFaces
    decoded: DecodedPicture
    requests: list[FaceRequest]  # of the faces that are not left


def protect(
    samples: Sequence[DetectedSample],
    transform: FaceTransform,
    key_source: KeySource,
    context: ShardContext,
    pseudonyms: Pseudonyms | None = None,
    mark: bytes = b"",
) -> tuple[list[ProtectedSample | QuarantinedSample], list[FaceSecret]]:
    """Replace the faces of samples of one shard. One result per sample, in order, and the secrets of what was replaced.

    The secrets go to `keys.sealing.seal_part` in this process and nowhere else. A face whose result has no payload cannot be
    recovered, so its key is forgotten here.

    Args:
        pseudonyms: where pseudonyms are per identity: the largest face of each picture of a sample that names its person gets
            that person's synthetic identity; others in the picture are somebody else.
        mark: what pictures with a replaced face say of it (`pipelines.pictures.mark`).
    """
    results: list[ProtectedSample | QuarantinedSample] = []
    secrets: list[FaceSecret] = []
    for group in _bounded(samples):
        for sample, outcome in zip(group, _protect_group(group, transform, key_source, context, pseudonyms, mark), strict=True):
            if isinstance(outcome, Problem):
                results.append(QuarantinedSample(sample.shard, sample.index, sample.key, outcome))
            else:
                results.append(outcome[0])
                secrets += outcome[1]
    return results, secrets


def _bounded(samples: Sequence[DetectedSample]) -> Iterator[list[DetectedSample]]:
    """Runs of samples whose pictures may be open together; a result never depends on the cut."""
    group: list[DetectedSample] = []
    size = 0
    for sample in samples:
        pixels = sum(count_pixels(found.picture.data) for found in sample.found)
        if group and size + pixels > PIXELS_AT_ONCE:
            yield group
            group, size = [], 0
        group.append(sample)
        size += pixels
    if group:
        yield group


def _protect_group(
    samples: Sequence[DetectedSample],
    transform: FaceTransform,
    key_source: KeySource,
    context: ShardContext,
    pseudonyms: Pseudonyms | None,
    mark: bytes,
) -> list[Problem | tuple[ProtectedSample, list[FaceSecret]]]:
    opened: list[Problem | list[_Work]] = []
    keys: dict[tuple[int, int], FaceKey] = {}
    for sample in samples:
        works: list[_Work] = []
        number = 0
        try:
            for found in sample.found:
                decoded = decode(found.picture.data, PictureLimits(max_frames=1 << 30))
                work = _Work(found, decoded, [])
                person = _main_face(found) if pseudonyms is not None and sample.person else None
                for place, face in enumerate(found.faces):
                    if not found.reason(place):
                        key = keys[sample.index, number] = key_source.face_key(context, sample.key, number)
                        identity = pseudonyms.seed(sample.person) if pseudonyms is not None and place == person else None
                        work.requests.append(FaceRequest(decoded.pixels, face, key.derive(TRANSFORM_LABEL), identity))
                    number += 1
                works.append(work)
            opened.append(works)
        except BadImageError as error:
            opened.append(Problem(error.code, str(error)))
    requests = [request for works in opened if not isinstance(works, Problem) for work in works for request in work.requests]
    faces = iter(_transform_all(transform, requests))
    outcomes: list[Problem | tuple[ProtectedSample, list[FaceSecret]]] = []
    for sample, state in zip(samples, opened, strict=True):
        if isinstance(state, Problem):
            outcomes.append(state)
            continue
        done = [(work, [next(faces) for _ in work.requests]) for work in state]
        try:
            changed = tuple(
                Picture(work.found.picture.field, _redraw(work, results, mark))
                for work, results in done
                if results or work.found.first_frame_only or work.found.stripped
            )
        except BadImageError as error:
            outcomes.append(Problem(error.code, str(error)))
            continue
        fates = [fate for work, results in done for fate in _fates(work, results)]
        faces_of = tuple(_outcome(number, *fate) for number, fate in enumerate(fates))
        secrets = [
            FaceSecret(sample.key, number, keys[sample.index, number], result.payload)
            for number, (_, _, result) in enumerate(fates)
            if not isinstance(result, str) and result.payload
        ]
        protected = ProtectedSample(
            *(sample.shard, sample.index, sample.key, sample.pictures, changed, faces_of),
            frames_dropped=sum(found.frames_dropped for found in sample.found),
            gain_maps_dropped=sum(found.gain_maps_dropped for found in sample.found),
        )
        outcomes.append((protected, secrets))
    return outcomes


def _main_face(found: PictureFaces) -> int | None:
    """Place of the largest face: whom a photo of one person is of."""
    return max(range(len(found.faces)), key=lambda place: found.faces[place].width * found.faces[place].height, default=None)


def _fates(work: _Work, results: list[FaceResult]) -> Iterator[tuple[str, Face, FaceResult | str]]:
    """(field, face, its result or why it was left) of every face of a picture, in order."""
    replaced = iter(results)
    for place, face in enumerate(work.found.faces):
        yield work.found.picture.field, face, work.found.reason(place) or next(replaced)


def _outcome(number: int, field: str, face: Face, result: FaceResult | str) -> FaceOutcome:
    if isinstance(result, str):
        return FaceOutcome(field, number, "left", result, 0, None, False, face.box, face.score)
    recoverable = bool(result.payload)
    return FaceOutcome(
        field, number, result.status, result.reason, result.attempts, result.similarity, recoverable, face.box, face.score
    )


def _redraw(work: _Work, results: Sequence[FaceResult], mark: bytes) -> bytes:
    if work.found.stripped:
        return work.found.picture.data
    pixels = apply_patches(work.decoded.pixels, [result.patch for result in results])
    return encode(work.decoded, pixels, anew=work.found.anew, camera=work.found.camera, mark=mark if results else b"")


def _transform_all(transform: FaceTransform, requests: list[FaceRequest]) -> list[FaceResult]:
    """All faces together; if that fails, one by one, and what fails alone is filled."""
    if not requests:
        return []
    try:
        return _checked(requests, transform.protect(requests))
    except Exception:
        return [_transform_one(transform, request) for request in requests]


def _transform_one(transform: FaceTransform, request: FaceRequest) -> FaceResult:
    try:
        return _checked([request], transform.protect([request]))[0]
    except Exception as error:
        # The class only: a message could quote what it failed on.
        return fill_face(request, f"the transformation failed ({type(error).__name__})")


def _checked(requests: Sequence[FaceRequest], results: list[FaceResult]) -> list[FaceResult]:
    """A transformation that breaks its contract must not leave a face as it was."""
    if len(results) != len(requests):
        raise ValueError(f"{len(results)} results for {len(requests)} faces")
    for request, result in zip(requests, results, strict=True):
        height, width = request.image.shape[:2]
        rows, columns = result.patch.alpha.shape
        if result.patch.y + rows > height or result.patch.x + columns > width:
            raise ValueError("a patch reaches outside its picture")
        if not result.patch.alpha.any():
            raise ValueError("a patch covers nothing")
    return results
