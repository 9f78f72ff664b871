"""Find the faces of samples, pure: records in, records out, safe to run twice. No engine, no files.

A sample in which anything cannot be looked at goes to quarantine as a whole. Nothing is passed on because something failed.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from diffpriv.errors import DetectorError
from diffpriv.faces.types import Face, overlap
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.codec import DecodedPicture, PictureLimits, decode, later_frames, other_views, written_anew
from diffpriv.pipelines.pictures.embedded import embedded_pictures
from diffpriv.pipelines.pictures.heif import has_gain_map
from diffpriv.pipelines.quarantine import Code, Problem
from diffpriv.pipelines.records.samples import DetectedSample, Picture, PictureFaces, QuarantinedSample, Sample
from diffpriv.pipelines.steps.boxes import SAME_FACE, BadBoxError
from diffpriv.pipelines.steps.policy import FacePolicy

DETECTED_FACES = FacePolicy()


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
    camera: bool = False,
) -> list[DetectedSample | QuarantinedSample]:
    """Find the faces of every picture, later frames of animations included. One result per sample, in order.

    Args:
        detector: None where the policy needs none.
        name_person: whose photo a sample is, where pseudonyms are per identity.
        strip: take the metadata out of pictures without a face too.
        camera: of a picture's metadata, keep which camera took it and how.
    """
    results: list[DetectedSample | QuarantinedSample] = []
    for sample in samples:
        try:
            found = tuple(_look_at(sample, picture, detector, limits, policy, strip, camera) for picture in sample.pictures)
            person = name_person(sample) if found else ""
        except _Unusable as error:
            results.append(QuarantinedSample(sample.shard, sample.index, sample.key, Problem(error.code, str(error))))
            continue
        faces = tuple(one for one in found if one.faces or one.first_frame_only or one.stripped)
        results.append(DetectedSample(sample.shard, sample.index, sample.key, len(sample.pictures), faces, person, sample.lock))
    return results


class _Unusable(Exception):
    """Why a sample goes to quarantine."""

    def __init__(self, text: str, code: Code) -> None:
        super().__init__(text)
        self.code = code


def _look_at(
    sample: Sample,
    picture: Picture,
    detector: Detector | None,
    limits: PictureLimits,
    policy: FacePolicy,
    strip: bool,
    camera: bool,
) -> PictureFaces:
    try:
        decoded = decode(picture.data, limits)
        detected = _detect_views(detector, decoded) if detector is not None else []
        chosen = policy.faces(sample, picture.field, decoded, detected)
        # An animation whose later frames show nobody keeps its bytes; one that does is cut to its (protected) first frame.
        # So does a picture whose thumbnail shows somebody who was cropped away: re-encoded, it loses both.
        hidden = itertools.chain(later_frames(decoded), embedded_pictures(picture.data))
        # Where no detector looks, nobody knows, and they go; so do other pictures of an AVIF or HEIC: nobody can look at them.
        later = decoded.others > 0 or any(detector is None or _detect_one(detector, frame) for frame in hidden)
        kept = not later and all(reason for _, reason in chosen)
        bare = written_anew(decoded, camera=camera) if strip and kept else picture.data
    except (BadImageError, BadBoxError, _Unusable) as error:
        raise _Unusable(f"{picture.field or 'picture'}: {error}", error.code) from None
    except DetectorError as error:
        raise _Unusable(f"{picture.field or 'picture'}: the detector failed: {error}", Code.DETECTOR) from None
    except Exception as error:  # the class only: a message could quote pixels
        raise _Unusable(f"{picture.field or 'picture'}: the detector failed ({type(error).__name__})", Code.DETECTOR) from None
    left = tuple(reason for _, reason in chosen)
    stripped = bare != picture.data
    return PictureFaces(
        Picture(picture.field, bare) if stripped else picture,
        tuple(face for face, _ in chosen),
        later,
        left if any(left) else (),
        stripped,
        anew=strip,
        frames_dropped=decoded.frames - 1 + decoded.others if strip or not kept else 0,
        gain_maps_dropped=int((strip or not kept) and has_gain_map(picture.data)),
        camera=camera,
    )


def _detect_views(detector: Detector, decoded: DecodedPicture) -> list[Face]:
    """Faces of a picture and of how it looks on other grounds.

    Raises:
        _Unusable: what lies beside the seen picture in its file, an alpha channel say, shows a face: replacing pixels would
            leave it there.
    """
    faces = _detect_one(detector, decoded.pixels)
    for name, view in other_views(decoded):
        more = _detect_one(detector, view)
        if name and more:
            raise _Unusable(f"its {name} shows a face", Code.HIDDEN_FACE)
        faces += [one for one in more if all(overlap(one.box, other.box) < SAME_FACE for other in faces)]
    return faces


def _detect_one(detector: Detector, pixels: np.ndarray) -> list[Face]:
    (faces,) = detector.detect([pixels])
    return faces
