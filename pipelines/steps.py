"""The stages between reading and writing, pure: records in, records out, safe to run twice. They know no engine and no files.

A sample in which anything cannot be looked at goes to quarantine as a whole; a face that cannot be transformed is filled.
Nothing is passed on because something failed.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffpriv.errors import DetectorError
from diffpriv.faces.compositing import apply_patches
from diffpriv.faces.types import Face
from diffpriv.transforms import FaceRequest, FaceResult, FaceTransform, fill_face
from keys.context import ShardContext
from keys.sealing import FaceSecret
from keys.secrets import FaceKey
from keys.sources import KeySource
from pipelines.boxes import BadBoxError
from pipelines.errors import BadImageError
from pipelines.images import DecodedPicture, PictureLimits, count_pixels, decode, encode, later_frames, thumbnails
from pipelines.policy import FacePolicy
from pipelines.samples import (
    DetectedSample,
    FaceOutcome,
    Picture,
    PictureFaces,
    ProtectedSample,
    QuarantinedSample,
    Sample,
)
from pipelines.strip import strip_metadata

TRANSFORM_LABEL = "diffpriv/v1/transform"
DETECTED_FACES = FacePolicy()
PIXELS_AT_ONCE = 40_000_000  # decoded at a time, 120 MB: bounds an actor's memory whatever its batch size


class Identities(Protocol):
    """What this module asks of `pipelines.pseudonyms`."""

    def seed(self, person: str) -> bytes: ...


class Detector(Protocol):
    """What this module asks of `diffpriv.detectors`."""

    @property
    def identity(self) -> str: ...

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]: ...


def detect(
    samples: Sequence[Sample],
    detector: Detector | None,
    limits: PictureLimits,
    policy: FacePolicy = DETECTED_FACES,
    name_person: Callable[[Sample], str] = lambda sample: "",
    strip: bool = False,
) -> list[DetectedSample | QuarantinedSample]:
    """Find the faces of every picture, later frames of animations included. One result per sample, in order.

    Args:
        detector: None where the policy needs none.
        name_person: whose photo a sample is, where pseudonyms are per identity.
        strip: take the metadata out of pictures without a face too.
    """
    results: list[DetectedSample | QuarantinedSample] = []
    for sample in samples:
        try:
            found = tuple(_look_at(sample, picture, detector, limits, policy, strip) for picture in sample.pictures)
            person = name_person(sample) if found else ""
        except _Unusable as error:
            results.append(QuarantinedSample(sample.shard, sample.index, sample.key, str(error)))
            continue
        faces = tuple(one for one in found if one.faces or one.first_frame_only or one.stripped)
        results.append(DetectedSample(sample.shard, sample.index, sample.key, len(sample.pictures), faces, person))
    return results


class _Unusable(Exception):
    """Why a sample goes to quarantine."""


def _look_at(
    sample: Sample, picture: Picture, detector: Detector | None, limits: PictureLimits, policy: FacePolicy, strip: bool
) -> PictureFaces:
    try:
        decoded = decode(picture.data, limits)
        detected = _detect_one(detector, decoded.pixels) if detector is not None else []
        chosen = policy.faces(sample, picture.field, decoded, detected)
        # An animation whose later frames show nobody keeps its bytes; one that does is cut to its (protected) first frame.
        # So does a picture whose thumbnail shows somebody who was cropped away: re-encoded, it loses both.
        hidden = itertools.chain(later_frames(decoded), thumbnails(decoded))
        # Where no detector looks, nobody knows, and they go.
        later = any(detector is None or _detect_one(detector, frame) for frame in hidden)
        bare: bytes | None = picture.data
        if strip and not later and all(reason for _, reason in chosen):
            bare = strip_metadata(picture.data)
            later = bare is None  # written anew, it loses them
    except (BadImageError, BadBoxError) as error:
        raise _Unusable(f"{picture.field or 'picture'}: {error}") from None
    except DetectorError as error:
        raise _Unusable(f"{picture.field or 'picture'}: the detector failed: {error}") from None
    except Exception as error:  # the class only: a message could quote pixels
        raise _Unusable(f"{picture.field or 'picture'}: the detector failed ({type(error).__name__})") from None
    left = tuple(reason for _, reason in chosen)
    stripped = bare is not None and bare != picture.data
    shown = Picture(picture.field, bare) if stripped and bare is not None else picture
    return PictureFaces(shown, tuple(face for face, _ in chosen), later, left if any(left) else (), stripped)


def _detect_one(detector: Detector, pixels: np.ndarray) -> list[Face]:
    (faces,) = detector.detect([pixels])
    return faces


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
    identities: Identities | None = None,
) -> tuple[list[ProtectedSample | QuarantinedSample], list[FaceSecret]]:
    """Replace the faces of samples of one shard. One result per sample, in order, and the secrets of what was replaced.

    The secrets go to `keys.sealing.seal_part` in this process and nowhere else. A face whose result has no payload cannot be
    recovered, so its key is forgotten here.

    Args:
        identities: where pseudonyms are per identity: the largest face of each picture of a sample that names its person gets
            that person's synthetic identity; others in the picture are somebody else.
    """
    results: list[ProtectedSample | QuarantinedSample] = []
    secrets: list[FaceSecret] = []
    for group in _bounded(samples):
        for sample, outcome in zip(group, _protect_group(group, transform, key_source, context, identities), strict=True):
            if isinstance(outcome, str):
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
    identities: Identities | None,
) -> list[str | tuple[ProtectedSample, list[FaceSecret]]]:
    opened: list[str | list[_Work]] = []
    keys: dict[tuple[int, int], FaceKey] = {}
    for sample in samples:
        works: list[_Work] = []
        number = 0
        try:
            for found in sample.found:
                decoded = decode(found.picture.data, PictureLimits(max_frames=1 << 30))
                work = _Work(found, decoded, [])
                person = _main_face(found) if identities is not None and sample.person else None
                for place, face in enumerate(found.faces):
                    if not found.reason(place):
                        key = keys[sample.index, number] = key_source.face_key(context, sample.key, number)
                        identity = identities.seed(sample.person) if identities is not None and place == person else None
                        work.requests.append(FaceRequest(decoded.pixels, face, key.derive(TRANSFORM_LABEL), identity))
                    number += 1
                works.append(work)
            opened.append(works)
        except BadImageError as error:
            opened.append(str(error))
    requests = [request for works in opened if not isinstance(works, str) for work in works for request in work.requests]
    faces = iter(_transform_all(transform, requests))
    outcomes: list[str | tuple[ProtectedSample, list[FaceSecret]]] = []
    for sample, state in zip(samples, opened, strict=True):
        if isinstance(state, str):
            outcomes.append(state)
            continue
        done = [(work, [next(faces) for _ in work.requests]) for work in state]
        try:
            changed = tuple(
                Picture(work.found.picture.field, _redraw(work, results))
                for work, results in done
                if results or work.found.first_frame_only or work.found.stripped
            )
        except BadImageError as error:
            outcomes.append(str(error))
            continue
        fates = [fate for work, results in done for fate in _fates(work, results)]
        faces_of = tuple(_outcome(number, *fate) for number, fate in enumerate(fates))
        secrets = [
            FaceSecret(sample.key, number, keys[sample.index, number], result.payload)
            for number, (_, _, result) in enumerate(fates)
            if not isinstance(result, str) and result.payload
        ]
        outcomes.append((ProtectedSample(sample.shard, sample.index, sample.key, sample.pictures, changed, faces_of), secrets))
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


def _redraw(work: _Work, results: Iterable[FaceResult]) -> bytes:
    if work.found.stripped:
        return work.found.picture.data
    return encode(work.decoded, apply_patches(work.decoded.pixels, [result.patch for result in results]))


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
