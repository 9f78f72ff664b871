"""Why samples are in quarantine, as the audit log has it: codes that stand where the trouble is found, never words."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diffpriv.errors import DetectorError
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.face_settings import BoxSettings
from diffpriv.pipelines.formats.base import Shard
from diffpriv.pipelines.pictures.codec import PictureLimits
from diffpriv.pipelines.quarantine import Code
from diffpriv.pipelines.records.arrow import from_table, to_table
from diffpriv.pipelines.records.results import SampleResult
from diffpriv.pipelines.records.samples import Picture, QuarantinedSample, Sample, ShardEnd
from diffpriv.pipelines.run.worker import read_shard
from diffpriv.pipelines.run_context import RunContext
from diffpriv.pipelines.steps.detect import detect
from diffpriv.pipelines.steps.policy import FacePolicy
from diffpriv.pipelines.storage import Folder
from tests.pipelines.datasets import encoded, gradient, tar_bytes
from tests.pipelines.test_hostile import OneFace

JPEG = encoded(gradient(1, 48), "JPEG")
GHOST = np.dstack([gradient(1, 64), np.where(np.indices((64, 64))[0] < 32, 80, 200)]).astype(np.uint8)


class Refusing(OneFace):
    def detect(self, images: Any) -> Any:
        raise DetectorError("its session for /home/jane.doe ended")


LIMITS = PictureLimits()


def quarantined(data: bytes, detector: Any = None, limits: PictureLimits = LIMITS, **policy: Any) -> QuarantinedSample:
    sample = Sample("s", 0, "jane.doe", (Picture("jpg", data),), {"boxes": [[5, 5, 5, 5]]})
    (found,) = detect([sample], detector, limits, FacePolicy(**policy))
    assert isinstance(found, QuarantinedSample)
    return found


@pytest.mark.parametrize(
    ("data", "options", "code"),
    [
        (b"no picture, and 4096 bytes of pixels named frames", {}, Code.NOT_A_PICTURE),
        (JPEG[: len(JPEG) // 2], {}, Code.UNREADABLE),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), {}, Code.UNSUPPORTED),
        (JPEG, {"limits": PictureLimits(max_pixels=10)}, Code.TOO_LARGE),
        (encoded(GHOST, "PNG"), {"detector": OneFace()}, Code.HIDDEN_FACE),
        (JPEG, {"detector": Refusing()}, Code.DETECTOR),
        (JPEG, {"boxes": BoxSettings(field="boxes", format="xyxy", detect="never")}, Code.BOX),
    ],
)
def test_a_picture_that_cannot_be_published_has_the_code_of_what_is_wrong_with_it(
    data: bytes, options: dict[str, Any], code: Code
) -> None:
    assert quarantined(data, **options).problem.code is code


def codes(folder: Path, name: str, format: str, data: bytes) -> list[Code]:
    """Of what a reader alone puts into quarantine."""
    (folder / name).write_bytes(data)
    source = Folder(str(folder))
    config = JobConfig.from_mapping(
        {"src": source.url, "dst": "d", "audit": "a", "dataset": "x", "transform": {"transform": "fill", "recovery": "none"}}
    )
    shard = Shard(name, format, (source.facts(name),))
    records = [one for block in read_shard(RunContext(config, source.url, "run"), shard) for one in block]
    assert isinstance(records[-1], ShardEnd)
    return [one.problem.code for one in records if isinstance(one, QuarantinedSample)]


def test_readers_name_what_is_wrong_with_members_rows_and_files(tmp_path: Path) -> None:
    members = [("ok.jpg", JPEG), ("../bytes.jpg", JPEG), ("twice.jpg", JPEG), ("twice.jpg", JPEG)]
    assert codes(tmp_path, "a.tar", "webdataset", tar_bytes(members)) == [Code.NAME, Code.AMBIGUOUS]
    spread = [("far.jpg", JPEG), *((f"{n}.txt", b"x") for n in range(300)), ("far.json", b"{}")]
    assert codes(tmp_path, "b.tar", "webdataset", tar_bytes(spread)) == [Code.SCATTERED]
    assert codes(tmp_path, "Thumbs.db", "folder", b"x") == [Code.UNKNOWN_CONTENT]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    elsewhere = pa.array([{"bytes": None, "path": "/home/jane.jpg"}], kind)
    pq.write_table(pa.table({"image": elsewhere}), tmp_path / "c.parquet")
    assert codes(tmp_path, "c.parquet", "parquet", (tmp_path / "c.parquet").read_bytes()) == [Code.NOT_PLAIN]


def test_the_code_travels_with_its_sample_through_an_engine_and_staging() -> None:
    bad = quarantined(JPEG, detector=Refusing())
    assert from_table(to_table([bad])) == [bad]
    result = SampleResult.quarantined(bad)
    assert SampleResult.from_mapping(json.loads(json.dumps(dataclasses.asdict(result)))).code == Code.DETECTOR
    assert "jane" in result.reason
    assert all("jane" not in code for code in Code)
