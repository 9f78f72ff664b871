"""The faces of a published DST as the commands name them: by shard, sample and face number. Reads only."""

from collections.abc import Iterator
from dataclasses import dataclass

from diffpriv.keys.errors import MisuseError
from diffpriv.pipelines.destination.published import records


@dataclass(frozen=True)
class PublishedFace:
    """Where a face is in the published data.

    Attributes:
        field: the sample's field (member, column) that holds its picture.
        made_by: identity of the transformation.
    """

    dataset: str
    shard: str
    sample: str
    face_index: int
    field: str
    status: str
    recoverable: bool
    made_by: str
    box: tuple[float, ...] = ()


def faces_of(dst: str) -> Iterator[PublishedFace]:
    """Every face that was found in the dataset, in order.

    Raises:
        MisuseError: nothing is published there.
    """
    nothing = True
    for record in records(dst):
        nothing = False
        made_by = record.made_by.get("transform", "")
        for face in record.faces:
            yield PublishedFace(
                record.dataset,
                record.shard,
                face.sample,
                face.face_index,
                face.field,
                face.status,
                face.recoverable,
                made_by,
                face.box,
            )
    if nothing:
        raise MisuseError(f"{dst} holds no published shard.", advice='Give the DST of a "diffpriv sanitize" run.')


def find_face(dst: str, shard: str, sample: str, face_index: int) -> PublishedFace:
    """Raises: MisuseError saying what is there instead."""
    of_sample = [face for face in faces_of(dst) if (face.shard, face.sample) == (shard, sample)]
    for face in of_sample:
        if face.face_index == face_index:
            return face
    raise MisuseError(
        f"{dst} has no face {face_index} of sample {sample} in shard {shard}: {len(of_sample)} faces of it are known.",
        advice='"diffpriv recover faces DST" lists what can be asked for.',
    )
