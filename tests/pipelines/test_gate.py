"""The release gate finds each planted leak, names it, and passes what has none. Real job, real tars, real detector."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffpriv.detectors import load_detector
from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.gate.copies import NEAR_PICTURE, SAME_DETAIL, distances, face_chip, likeness, perceptual_hash
from diffpriv.pipelines.gate.findings import GateReport, GateSettings
from diffpriv.pipelines.gate.manifest import check_copy, withdraw_manifest, write_manifest
from diffpriv.pipelines.gate.recognition import similarity_limits
from diffpriv.pipelines.gate.run import check_release
from diffpriv.pipelines.layout import MANIFEST
from diffpriv.pipelines.pictures.embedded import embedded_pictures, metadata_findings
from diffpriv.pipelines.review.card import coco_detections, dataset_card
from diffpriv.recognizers import load_recognizer
from tests.diffpriv.face_pictures import astronaut as large_astronaut
from tests.pipelines.conftest import Keyring, make_config
from tests.pipelines.datasets import (
    Member,
    astronaut,
    coffee,
    encoded,
    gradient,
    group,
    read_tar,
    sample,
    tar_bytes,
    write_shards,
)

BY_REGION = GateSettings(recognizer="")
SHARD = "shard-000.tar"


def jpeg_with_thumbnail(picture: np.ndarray, thumbnail: bytes) -> bytes:
    """A JPEG whose EXIF holds another picture where cameras put the small version."""
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    header = exif.tobytes()
    out = io.BytesIO()
    Image.fromarray(picture).save(out, format="JPEG", exif=header + thumbnail)
    return out.getvalue()


@pytest.fixture(scope="module")
def scrubbed(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring) -> Path:
    """A folder with src/ and out/data/: one face, six faces, and pictures without one, filled."""
    base = tmp_path_factory.mktemp("scrubbed")
    nobody = encoded(coffee(), "JPEG")
    members = [
        *sample("a/face", 0, encoded(astronaut(256), "PNG"), "png"),
        *sample("a/group", 1, encoded(group(), "JPEG", quality=90)),
        *sample("a/nobody", 2, nobody),
        *[("a/two.left.jpg", nobody), ("a/two.right.jpg", encoded(gradient(2), "JPEG"))],
        *sample("a/cut", 3, nobody[: len(nobody) // 2]),
    ]
    src = write_shards(base / "src", {SHARD: members})
    config = make_config(base, keyring, src, transform={"transform": "fill", "recovery": "none"}, strip_metadata="all")
    report = run(config)
    assert report.ok
    assert report.counts["samples_quarantined"] == 1
    return base


@pytest.fixture
def plant(scrubbed: Path, tmp_path: Path) -> Callable[[Callable[[list[Member]], list[Member]]], GateReport]:
    """Change the published members and let the gate look."""

    def planted(change: Callable[[list[Member]], list[Member]]) -> GateReport:
        dst = tmp_path / "data"
        shutil.copytree(scrubbed / "out/data", dst)
        (dst / SHARD).write_bytes(tar_bytes(change(read_tar(dst / SHARD))))
        return check_release(str(scrubbed / "src"), str(dst), BY_REGION)

    return planted


def put(name: str, data: bytes) -> Callable[[list[Member]], list[Member]]:
    return lambda members: [(member, data if member == name else old) for member, old in members]


def places(report: GateReport, kind: str) -> set[str]:
    return {f"{one.sample}/{one.field}" for one in report.findings if one.kind == kind}


def test_a_clean_output_passes(scrubbed: Path) -> None:
    report = check_release(str(scrubbed / "src"), str(scrubbed / "out/data"), BY_REGION)
    assert report.clean, report.findings
    assert report.counts["samples"] == 4
    assert report.counts["pictures"] == 5
    assert report.counts["faces of the originals"] >= 7


def test_a_card_says_what_was_done_and_every_face_is_a_coco_detection(scrubbed: Path, tmp_path: Path) -> None:
    dst = scrubbed / "out/data"
    card = dataset_card(dst)
    assert "| samples published | 4 |" in card
    assert "| faces covered by a flat colour | 0 |" not in card, "nothing is said of what there is none of"
    assert "| faces replaced | 7 |" in card
    assert "irreversibly transformed by this tool" in card
    assert "anonym" not in card
    found = coco_detections(dst)
    assert [(one["file_name"], one["width"], one["height"]) for one in found["images"]][:1] == [
        (f"{SHARD}/a/face.png", 256, 256)
    ]
    assert len(found["images"]) == 5
    assert [one["image_id"] for one in found["annotations"]] == [1, *[2] * 6]
    for one in found["annotations"]:
        (image,) = [image for image in found["images"] if image["id"] == one["image_id"]]
        x, y, width, height = one["bbox"]
        assert -8 <= x <= x + width <= image["width"] + 8
        assert -8 <= y <= y + height <= image["height"] + 8
    with pytest.raises(MisuseError, match="no published shard"):
        dataset_card(tmp_path)


def test_an_unprotected_face_is_found(plant: Callable[..., GateReport]) -> None:
    report = plant(put("a/face.png", encoded(astronaut(256), "PNG")))
    assert "a/face/png" in places(report, "unprotected face")
    assert "unprotected face" in report.over
    assert "altered" in report.over


def test_one_of_six_faces_unprotected_and_encoded_again_is_found(plant: Callable[..., GateReport], scrubbed: Path) -> None:
    (published,) = [data for name, data in read_tar(scrubbed / "out/data" / SHARD) if name == "a/group.jpg"]
    filled = np.asarray(Image.open(io.BytesIO(published))).copy()
    face = load_detector("centerface").detect([group()])[0][0]
    side = max(face.width, face.height)
    middle = np.array([face.box[0] + face.box[2], face.box[1] + face.box[3]]) / 2
    (left, top), (right, bottom) = (middle - 0.9 * side).astype(int).clip(0), (middle + 0.9 * side).astype(int)
    filled[top:bottom, left:right] = group()[top:bottom, left:right]
    report = plant(put("a/group.jpg", encoded(filled, "JPEG", quality=60)))
    assert places(report, "unprotected face") == {"a/group/jpg"}, report.findings
    assert 1 <= report.found["unprotected face"] <= 2  # a neighbour may stand in the restored square


def test_a_face_in_a_second_image_field_is_found_and_the_field_named(plant: Callable[..., GateReport]) -> None:
    report = plant(put("a/two.right.jpg", encoded(astronaut(200), "JPEG")))
    assert places(report, "copy of an original") == {"a/two/right.jpg (picture 2 of its sample)"}


def test_a_thumbnail_that_shows_a_face_is_found(plant: Callable[..., GateReport]) -> None:
    thumbnail = encoded(astronaut(128), "JPEG")
    report = plant(put("a/nobody.jpg", jpeg_with_thumbnail(coffee(), thumbnail)))
    assert places(report, "thumbnail") == {"a/nobody/jpg"}


@pytest.mark.parametrize("size", [256, 128, 400])
def test_a_duplicate_of_an_original_in_another_size_is_found(plant: Callable[..., GateReport], size: int) -> None:
    duplicate = encoded(astronaut(512).repeat(1, 0) if size == 256 else astronaut(size), "JPEG", quality=70)
    report = plant(lambda members: [*members, ("a/zz.jpg", duplicate)])
    assert places(report, "copy of an original") == {"a/zz/jpg"}
    assert places(report, "added") >= {"a/zz/"}


def test_a_mirrored_duplicate_is_found(plant: Callable[..., GateReport]) -> None:
    report = plant(put("a/nobody.jpg", encoded(astronaut(256)[:, ::-1].copy(), "JPEG")))
    assert places(report, "copy of an original") == {"a/nobody/jpg"}


def test_a_strangers_face_is_unexplained(plant: Callable[..., GateReport]) -> None:
    face = group()[100:260]
    report = plant(put("a/nobody.jpg", encoded(np.ascontiguousarray(face[:, :, ::-1]), "PNG")))
    assert {"unexplained face", "copy of an original"} & set(report.over)


def test_sidecars_that_tell_are_found(plant: Callable[..., GateReport]) -> None:
    telling = {"vector": [0.25] * 128, "bbox": [1, 2, 3, 4], "landmarks": [[1, 2]], "pic": "/9j/" + "A" * 200}
    report = plant(put("a/face.json", json.dumps(telling).encode()))
    assert {"sidecar: embedding", "sidecar: box", "sidecar: landmarks", "sidecar: picture"} <= set(report.over)


def test_metadata_that_tells_is_found(plant: Callable[..., GateReport]) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Some Photographer"
    out = io.BytesIO()
    Image.fromarray(coffee()).save(out, format="JPEG", exif=exif.tobytes(), comment=b"a name", xmp=b"<x:xmpmeta/>")
    report = plant(put("a/nobody.jpg", out.getvalue()))
    details = {one.detail.partition(",")[0] for one in report.findings if one.kind == "metadata"}
    assert {"artist", "comment", "XMP"} <= details


def test_what_cannot_be_looked_at_is_not_clean(plant: Callable[..., GateReport]) -> None:
    assert "not checked" in plant(put("a/nobody.jpg", encoded(coffee(), "JPEG")[:900])).over


def test_files_that_no_run_made_and_shards_that_none_published_are_found(scrubbed: Path, tmp_path: Path) -> None:
    shutil.copytree(scrubbed, tmp_path / "all")
    (tmp_path / "all/out/data/extra.jpg").write_bytes(b"x")
    write_shards(tmp_path / "all/src", {"shard-001.tar": sample("b", 0, encoded(coffee(), "JPEG"))})
    report = check_release(str(tmp_path / "all/src"), str(tmp_path / "all/out/data"), BY_REGION)
    assert {one.shard for one in report.findings} == {"extra.jpg", "shard-001.tar"}
    assert report.over == ["added", "missing"]


def test_without_recogniser_weights_the_gate_fails_and_says_so(scrubbed: Path, tmp_path: Path) -> None:
    settings = GateSettings(recognizer=str(tmp_path / "nothing"))
    report = check_release(str(scrubbed / "src"), str(scrubbed / "out/data"), settings)
    assert report.over == ["not checked"]
    assert "no recogniser weights" in report.findings[0].detail


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recogniser of the real architecture, untrained: equal crops still have similarity 1."""
    import torch

    from diffpriv.models.recognizer import FaceRecognizer

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("recogniser")
    FaceRecognizer(thresholds={"0.01": 0.30, "0.001": 0.36}).save_pretrained(folder)
    return folder


def test_similarity_over_the_limit_is_found(scrubbed: Path, tmp_path: Path, weights: Path) -> None:
    dst = tmp_path / "data"
    shutil.copytree(scrubbed / "out/data", dst)
    members = put("a/face.png", encoded(astronaut(256), "PNG"))(read_tar(dst / SHARD))
    (dst / SHARD).write_bytes(tar_bytes(members))
    report = check_release(str(scrubbed / "src"), str(dst), GateSettings(recognizer=str(weights), similarity_limit=0.9999))
    assert places(report, "similar to its original") == {"a/face/png"}
    assert report.highest_similarity["to its original"] == pytest.approx(1, abs=1e-4)


def test_a_limit_can_be_lifted_and_stands_in_the_report(scrubbed: Path, tmp_path: Path) -> None:
    settings = GateSettings(recognizer=str(tmp_path / "nothing"), allowed={"not checked": 1})
    report = check_release(str(scrubbed / "src"), str(scrubbed / "out/data"), settings)
    assert report.clean
    assert report.to_json()["limits"]["not checked"] == 1


def test_the_manifest_is_signed_and_knows_every_file_of_a_copy(scrubbed: Path, tmp_path: Path, keyring: Keyring) -> None:
    dst = tmp_path / "data"
    shutil.copytree(scrubbed / "out/data", dst)
    report = check_release(str(scrubbed / "src"), str(dst), BY_REGION)
    note = (dst / write_manifest(str(dst), report, keyring.log_key, now=1_800_000_000)).read_bytes()
    copy = tmp_path / "release"
    shutil.copytree(dst, copy, ignore=shutil.ignore_patterns(".diffpriv"))
    verifier = keyring.log_key.verifier
    assert check_copy(str(copy), note, verifier).clean
    (copy / "more.txt").write_text("x")
    altered = bytearray((copy / SHARD).read_bytes())
    altered[700] ^= 1
    (copy / SHARD).write_bytes(altered)
    found = check_copy(str(copy), note, verifier)
    assert (found.altered, found.missing, found.extra) == ((SHARD,), (), ("more.txt",))
    assert check_copy(str(dst), note, verifier).extra  # the job's own folder is not for release
    withdraw_manifest(str(dst))
    assert not (dst / MANIFEST).exists()


def test_an_embedding_column_is_found(tmp_path: Path, keyring: Keyring) -> None:
    (tmp_path / "src").mkdir()
    pictures = pa.array([encoded(coffee(), "JPEG"), encoded(gradient(1), "PNG")], pa.binary())
    plain = pa.table({"image": pictures, "label": [1, 2]})
    pq.write_table(plain.append_column("vec", pa.array([[0.5] * 96] * 2, pa.list_(pa.float32()))), tmp_path / "src/a.parquet")
    config = make_config(
        tmp_path, keyring, tmp_path / "src", transform={"transform": "fill", "recovery": "none"}, strip_metadata="all"
    )
    assert run(config).ok
    report = check_release(config.src, config.dst, BY_REGION)
    assert report.over == ["sidecar: embedding"], report.findings
    assert [one.field for one in report.findings] == ["vec"]


def test_a_shard_with_telling_fields_is_not_published_where_they_are_refused(tmp_path: Path, keyring: Keyring) -> None:
    members = [("a.jpg", encoded(coffee(), "JPEG")), ("a.json", json.dumps({"landmarks": [[1, 2]]}).encode())]
    src = write_shards(tmp_path / "src", {"bad.tar": members, "good.tar": sample("b", 0, encoded(coffee(), "JPEG"))})
    blur = {"transform": "blur", "recovery": "none"}
    config = make_config(tmp_path, keyring, src, transform=blur, sidecars="refuse")
    report = run(config)
    assert "landmarks in json: landmarks" in report.shards_failed["bad.tar"]
    assert sorted(path.name for path in Path(config.dst).glob("*.tar")) == ["good.tar"]
    assert config.digest() != make_config(tmp_path, keyring, src, transform=blur).digest()


@pytest.mark.parametrize("change", ["jpeg", "half", "double"])
def test_detail_survives_encoding_and_resizing(change: str) -> None:
    picture = large_astronaut()
    scale = {"jpeg": 1.0, "half": 0.5, "double": 2.0}[change]
    size = round(512 * scale)
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)
    version = np.asarray(Image.open(io.BytesIO(encoded(np.asarray(resized), "JPEG", quality=50))))
    landmarks = np.array([[200, 100], [245, 100], [222, 125], [205, 145], [240, 145]], float)
    assert likeness(face_chip(picture, landmarks), face_chip(version, landmarks * scale)) > 0.9 > SAME_DETAIL
    assert distances(perceptual_hash(picture), np.array([perceptual_hash(version)], np.uint64))[0] <= NEAR_PICTURE


def test_flat_chips_are_alike_to_nothing() -> None:
    flat = np.full((64, 64), 90, np.uint8)
    assert likeness(flat, flat) == 0


def test_pictures_are_found_wherever_they_lie_in_a_file() -> None:
    hidden = encoded(gradient(3), "JPEG")
    assert len(list(embedded_pictures(encoded(coffee(), "JPEG") + hidden))) == 1
    assert len(list(embedded_pictures(jpeg_with_thumbnail(coffee(), hidden)))) == 1
    assert list(embedded_pictures(encoded(coffee(), "PNG"))) == []


def test_a_changed_picture_may_say_nothing_but_its_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = io.BytesIO()
    Image.fromarray(coffee()).save(turned, format="JPEG", exif=exif.tobytes(), dpi=(72, 72))
    assert metadata_findings(turned.getvalue(), changed=True) == []
    exif[0x010F] = "Camera"
    camera = io.BytesIO()
    Image.fromarray(coffee()).save(camera, format="JPEG", exif=exif.tobytes())
    assert metadata_findings(camera.getvalue(), changed=False) == []
    assert metadata_findings(camera.getvalue(), changed=True) == ["EXIF"]


def test_the_limit_to_others_grows_with_their_number(weights: Path) -> None:
    recognizer = load_recognizer(str(weights))
    limits = [similarity_limits(recognizer, None, originals) for originals in (1, 100, 10_000)]
    assert [own for own, _ in limits] == [0.36] * 3
    assert limits[0][1] == pytest.approx(0.36)
    assert limits[0][1] < limits[1][1] < limits[2][1]
    assert similarity_limits(recognizer, 0.4, 10_000) == (0.4, 0.4)
