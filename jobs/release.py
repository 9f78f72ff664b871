"""From an approved case to recovered pictures on disk: look, log, open, rebuild, write, sign the receipt.

What can fail without opening anything (the published picture, the model, the recipient key) is tried before the release is
logged, so that it does not use the case up; every failure is in the log.
"""

import contextlib
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jobs.published import PublishedFace, find_face
from keys.errors import DiffPrivError, MisuseError, RecoveryRefusedError
from keys.release import ReleasedFace, make_receipt, release_faces
from keys.requests import FaceRef
from keys.store import KeyStore
from pipelines.images import decode
from pipelines.published import read_picture
from pipelines.steps import TRANSFORM_LABEL

if TYPE_CHECKING:
    from diffpriv.recovery import RecoveredFace
    from keys.audit.log import AuditLog
    from keys.recipients import Unwrapper
    from keys.recovery import RecoveryCase

PictureName = tuple[str, str, str]  # shard, sample, field


@dataclass(frozen=True)
class RecoveredFile:
    """One face on disk, and how close it is to what was recorded at protection."""

    face: FaceRef
    tier: str
    bit_exact: bool
    hash_bits_agreeing: int
    closeness: str
    crop_file: str


@dataclass(frozen=True)
class Recovery:
    """What `recover run` wrote. `as_recorded` is false if a face of tier exact is not bit-exact."""

    case: str
    faces: tuple[RecoveredFile, ...]
    pictures: tuple[str, ...]
    receipt: str

    @property
    def as_recorded(self) -> bool:
        return all(one.bit_exact for one in self.faces if one.tier == "exact")

    def to_json(self) -> dict[str, Any]:
        faces = [{**one.face._asdict(), **{k: v for k, v in vars(one).items() if k != "face"}} for one in self.faces]
        return {"case": self.case, "faces": faces, "pictures": list(self.pictures), "receipt": self.receipt}


def recover_case(
    case: "RecoveryCase",
    log: "AuditLog",
    open_recipient_key: Callable[[], "Unwrapper"],
    *,
    keys: str,
    data: str,
    out: Path,
    model: str = "builtin",
) -> Recovery:
    """Run an approved case.

    Args:
        open_recipient_key: called once; its failure (a wrong passphrase) is an attempt, and logged.
        out: new folder; recovered pictures show people, so it is made for this user alone.
    Raises:
        RecoveryRefusedError: the case may not release (logged).
        DiffPrivError: any other failure, logged as "recovery failed" with its kind.
    """
    now = int(time.time())
    if case.status(now).state != "approved":
        case.release(now)  # refuses, and logs why
    with _failures_logged(case, now):
        places = [_place(data, face) for face in case.request.faces]
        names = dict.fromkeys(_name(place) for place in places)
        pictures = {name: decode(read_picture(data, *name)).pixels for name in names}
        _check_model(places, model)
        _make_folder(out)
        recipient_key = open_recipient_key()
    release, released = release_faces(case, log, KeyStore(keys), recipient_key, now)
    with _failures_logged(case, now):
        files = []
        for number, (place, one) in enumerate(zip(places, released, strict=True)):
            recovered = _rebuild(one, pictures[_name(place)], model)
            if recovered.picture is not None:
                pictures[_name(place)] = recovered.picture
            files.append(_write_face(out, number, one.face, recovered))
        written = [_write_png(out / f"picture-{number:03d}.png", pixels) for number, pixels in enumerate(pictures.values())]
        receipt = make_receipt(log, case, release, [_result(one) for one in files], int(time.time()))
        (out / "receipt.txt").write_bytes(receipt)
    return Recovery(case.case, tuple(files), tuple(written), str(out / "receipt.txt"))


def _place(data: str, face: FaceRef) -> PublishedFace:
    place = find_face(data, face.shard, face.sample, face.face_index)
    if place.dataset != face.dataset:
        raise MisuseError(
            f"{data} holds dataset {place.dataset}; the request is for dataset {face.dataset}.",
            advice="Give the DST that the request names.",
        )
    return place


def _name(place: PublishedFace) -> PictureName:
    return place.shard, place.sample, place.field


def _check_model(places: list[PublishedFace], model: str) -> None:
    """The model at hand must be the one that protected; found out before the case is used up."""
    wanted = {place.made_by for place in places if place.made_by.startswith("diffprivacy")}
    if not wanted:
        return
    from diffpriv.weights import resolve_model, weights_digest

    digest = weights_digest(resolve_model(model))[:16]
    if not all(digest in identity for identity in wanted):
        raise MisuseError(
            f"the faces were protected by {', '.join(sorted(wanted))}; --model {model} has weights {digest}.",
            advice="Give the model folder that the dataset was made with.",
        )


def _rebuild(one: ReleasedFace, published: np.ndarray, model: str) -> "RecoveredFace":
    from diffpriv.recovery import recover_face

    return recover_face(one.opened.payload, one.opened.key.derive(TRANSFORM_LABEL), published, model=model)


def _write_face(out: Path, number: int, face: FaceRef, recovered: "RecoveredFace") -> RecoveredFile:
    crop = _write_png(out / f"face-{number:03d}.png", recovered.crop)
    agreeing = 64 - recovered.hash_distance
    return RecoveredFile(face, recovered.tier, recovered.bit_exact, agreeing, recovered.closeness(), crop)


def _result(one: RecoveredFile) -> dict[str, Any]:
    """What the receipt says of a face."""
    facts = asdict(one)
    return {name: facts[name] for name in ("tier", "bit_exact", "hash_bits_agreeing")} | {"file": Path(one.crop_file).name}


def _write_png(path: Path, pixels: np.ndarray) -> str:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(stored.getvalue())
    return str(path)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        taken = any(out.iterdir())
    except OSError as error:
        raise MisuseError(f"{out} can't be written: {error.strerror or error}.") from error
    if taken:
        raise MisuseError(f"{out} is not empty.", advice="Give a new folder for the recovered pictures.")


@contextlib.contextmanager
def _failures_logged(case: "RecoveryCase", now: int) -> Iterator[None]:
    try:
        yield
    except RecoveryRefusedError:
        raise  # is in the log
    except DiffPrivError as error:
        case.fail(type(error).__name__, now)
        raise
