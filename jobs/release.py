"""From an approved case to recovered pictures on disk: look, log, open, rebuild, write, sign the receipt.

What can fail without opening anything (the published picture, the model, the recipient key) is tried before the release is
logged, so that it does not use the case up; every failure is in the log.
"""

import contextlib
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from diffpriv.jobs.published import PublishedFace, find_face
from diffpriv.keys.errors import DiffPrivError, MisuseError, RecoveryRefusedError, WitnessError
from diffpriv.keys.release import ReleasedFace, make_receipt, release_faces
from diffpriv.keys.requests import FaceRef
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.destination.published import read_picture
from diffpriv.pipelines.pictures.codec import decode
from diffpriv.pipelines.steps.protect import TRANSFORM_LABEL

if TYPE_CHECKING:
    from diffpriv.keys.audit.log import AuditLog
    from diffpriv.keys.notes import NoteKey
    from diffpriv.keys.recipients import Unwrapper
    from diffpriv.keys.recovery import RecoveryCase
    from diffpriv.keys.requests import Decision
    from diffpriv.recovery import RecoveredFace

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
    open_office_key: Callable[[], "NoteKey"],
    *,
    keys: str,
    data: str,
    out: Path,
    model: str = "builtin",
    decisions: "Sequence[Decision]" = (),
    run_key: "Unwrapper | None" = None,
) -> Recovery:
    """Run an approved case.

    Args:
        decisions, run_key: the mailed approvals, and what opens their shares, where shards are locked under a policy.
        open_recipient_key: called once; its failure (a wrong passphrase) is an attempt, and logged.
        open_office_key: the same, for the key that signs the receipt.
        out: new folder; recovered pictures show people, so it is made for this user alone.
    Raises:
        RecoveryRefusedError: the case may not release (logged).
        WitnessError: released, and waiting for witnesses; run it again.
        DiffPrivError: any other failure, logged as "recovery failed" with its kind.
    """
    now = int(time.time())
    if case.status(now).state != "approved" and case.released(now) is None:
        case.release(now)  # refuses, and logs why
    with _failures_logged(case, now):
        places = [_place(data, face) for face in case.request.faces]
        names = dict.fromkeys(_name(place) for place in places)
        pictures = {name: decode(read_picture(data, *name)).pixels for name in names}
        _check_model(places, model)
        _check_folder(out)
        recipient_key, office_key = open_recipient_key(), open_office_key()
    release, released = release_faces(case, log, KeyStore(keys), recipient_key, now, decisions=decisions, run_key=run_key)
    with _failures_logged(case, now):
        _make_folder(out)
        files = []
        for number, (place, one) in enumerate(zip(places, released, strict=True)):
            recovered = _rebuild(one, pictures[_name(place)], model)
            if recovered.picture is not None:
                pictures[_name(place)] = recovered.picture
            files.append(_write_face(out, number, one.face, recovered))
        written = [write_png(out / f"picture-{number:03d}.png", pixels) for number, pixels in enumerate(pictures.values())]
        results = [_result(one) for one in files]
        receipt = make_receipt(log, case, release, results, int(time.time()), key=office_key, decisions=decisions)
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
    crop = write_png(out / f"face-{number:03d}.png", recovered.crop)
    agreeing = 64 - recovered.hash_distance
    return RecoveredFile(face, recovered.tier, recovered.bit_exact, agreeing, recovered.closeness(), crop)


def _result(one: RecoveredFile) -> dict[str, Any]:
    """What the receipt says of a face."""
    facts = asdict(one)
    file = Path(one.crop_file)
    output = {"file": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    return {name: facts[name] for name in ("tier", "bit_exact", "hash_bits_agreeing")} | output


def write_png(path: Path, pixels: np.ndarray) -> str:
    """Write pixels to a new file that only its owner reads; returns its path."""
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "PNG")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
        handle.write(stored.getvalue())
    return str(path)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise MisuseError(f"{out} can't be written: {error.strerror or error}.") from error


def _check_folder(out: Path) -> None:
    """That the pictures can be written, found out before the case is used up."""
    _make_folder(out)
    if any(out.iterdir()):
        raise MisuseError(f"{out} is not empty.", advice="Give a new folder for the recovered pictures.")


@contextlib.contextmanager
def _failures_logged(case: "RecoveryCase", now: int) -> Iterator[None]:
    try:
        yield
    except (RecoveryRefusedError, WitnessError):
        raise  # is in the log, or no failure
    except DiffPrivError as error:
        case.fail(type(error).__name__, now)
        raise
