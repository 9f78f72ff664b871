"""`keep_metadata: camera`: which camera and how it was set stay; who, where, when and which one of them go."""

import io

import numpy as np
import pytest
from PIL import ExifTags, Image

from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.gate.contents import FieldWitness
from diffpriv.pipelines.gate.findings import GateSettings
from diffpriv.pipelines.gate.originals import Originals
from diffpriv.pipelines.gate.shard import MOST_CAMERAS, ShardGate
from diffpriv.pipelines.pictures.codec import decode, encode, written_anew
from diffpriv.pipelines.pictures.embedded import metadata_findings
from diffpriv.pipelines.pictures.plain import oddity
from diffpriv.pipelines.records.samples import DetectedSample, Picture, Sample
from diffpriv.pipelines.steps.finder import Finder
from diffpriv.pipelines.steps.lookout import Lookout
from tests.pipelines.datasets import coffee

TAGS, DETAILS = ExifTags.Base, ExifTags.IFD.Exif
SETTINGS = {TAGS.ExposureTime: 1 / 60, TAGS.FNumber: 2.8, TAGS.FocalLength: 105, TAGS.ExposureBiasValue: -0.33}


def taken(format: str, make: str = "Canon", orientation: int = 6, **options: object) -> bytes:
    """A photo whose EXIF says all that EXIF can say of a person."""
    exif = Image.Exif()
    exif[TAGS.Make], exif[TAGS.Model], exif[TAGS.Artist] = make, "EOS 5D Mark III", "somebody"
    exif[TAGS.Orientation] = orientation
    details = exif.get_ifd(DETAILS)
    details.update(SETTINGS)
    details |= {TAGS.ISOSpeedRatings: 12800, TAGS.Flash: 16, TAGS.LensModel: "EF24-105mm f/4L IS USM"}
    details |= {TAGS.BodySerialNumber: "063024001432", TAGS.CameraOwnerName: "somebody", TAGS.MakerNote: b"somebody"}
    details |= {TAGS.DateTimeOriginal: "2020:01:01 00:00:00", TAGS.ImageUniqueID: "0630240014320630240014320630"}
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (52.0, 31.0, 12.0)})
    out = io.BytesIO()
    Image.fromarray(coffee(96)).save(out, format, exif=exif.tobytes(), **options)
    return out.getvalue()


def said(data: bytes) -> dict[int, object]:
    exif = Image.open(io.BytesIO(data)).getexif()
    assert exif.get_ifd(ExifTags.IFD.GPSInfo) == {}
    return {**exif, **exif.get_ifd(DETAILS)}


@pytest.mark.parametrize(("format", "options"), [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})])
def test_a_camera_is_kept_on_demand_and_the_gate_knows_its_block(format: str, options: dict[str, object]) -> None:
    data = taken(format, **options)
    picture = decode(data)
    pixels = picture.pixels.copy()
    pixels[20:40, 20:40] = 128
    for made in (written_anew(picture, camera=True), encode(picture, pixels, anew=True, camera=True)):
        tags = said(made)
        assert {tag: round(float(tags[tag]), 4) for tag in SETTINGS} == {tag: round(v, 4) for tag, v in SETTINGS.items()}
        assert (tags[TAGS.Make], tags[TAGS.LensModel], tags[TAGS.Orientation]) == ("Canon", "EF24-105mm f/4L IS USM", 6)
        assert not [word for word in (b"somebody", b"06302400", b"2020:01:01") if word in made]
        assert oddity(made, decode(made)) == ""
        assert metadata_findings(made, changed=True, camera=True) == []
        assert metadata_findings(made, changed=True) == ["EXIF"], "nobody asked for it"
    assert oddity(data, picture) != ""
    assert said(written_anew(picture)) == {TAGS.Orientation: 6}


@pytest.mark.parametrize("make", ["x" * 40, "QUJDREVGR0hJSktMTU5PUFFS", "b\xffd", "12345", "a\nb", ""])
def test_a_name_that_may_be_data_is_not_kept(make: str) -> None:
    assert TAGS.Make not in said(written_anew(decode(taken("JPEG", make=make, orientation=1)), camera=True))


def test_more_on_the_block_than_the_camera_is_found() -> None:
    exif = Image.Exif()
    exif[TAGS.Make], exif[TAGS.DateTime] = "Canon", "2020:01:01 00:00:00"
    made = written_anew(decode(taken("JPEG")), camera=True)
    out = io.BytesIO()
    Image.open(io.BytesIO(made)).save(out, "JPEG", quality="keep", exif=exif.tobytes())
    assert metadata_findings(out.getvalue(), changed=True, camera=True) == ["EXIF"]
    assert "segment 0xe1" in oddity(out.getvalue(), decode(out.getvalue()))


def test_more_names_of_cameras_than_there_are_are_not_passed() -> None:
    class Nobody:
        identity = "nobody/1"

        def detect(self, images: list[np.ndarray]) -> list[list[object]]:
            return [[] for _ in images]

    lookout = Lookout([Nobody()])  # type: ignore[list-item]
    chance = np.random.default_rng(1)
    for names in (4, MOST_CAMERAS // 8):
        makes = ["".join(chance.choice(list("abcdefgh"), 12)) for _ in range(names)]
        pictures = [Picture("jpg", written_anew(decode(taken("JPEG", make)), camera=True)) for make in makes]
        samples = [Sample("s", number, str(number), (picture,)) for number, picture in enumerate(pictures)]
        gate = ShardGate("s", lookout, None, GateSettings(recognizer=""))
        gate.check(Originals(samples, lookout, None), iter(samples), [])
        gate.beside(FieldWitness(lookout.sees_one))
        found = [one.field for one in gate.result.findings]
        assert found == ([] if names == 4 else ["EXIF"])
        assert gate.result.counts["pictures that name a camera"] == names


def test_the_job_keeps_it_where_it_is_told_to() -> None:
    job = {"src": "/s", "dst": "/d/f", "audit": "/a", "transform": {"transform": "fill"}, "strip_metadata": "all"}
    sample = Sample("s", 0, "k", (Picture("jpg", taken("JPEG")),))
    for rule, kept in (("none", False), ("camera", True)):
        (found,) = Finder(JobConfig.from_mapping({**job, "keep_metadata": rule})).detect([sample])
        assert isinstance(found, DetectedSample)
        assert (TAGS.Make in said(found.found[0].picture.data)) is kept
