"""`mark: xmp`: pictures with a replaced face say so, in the words of IPTC; the gate knows the packet and nothing like it."""

import contextlib
import io
from xml.etree import ElementTree

import pytest
from PIL import Image

from diffpriv.keys.context import ShardContext
from diffpriv.keys.sources import RandomKeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.codec import decode, encode, written_anew
from diffpriv.pipelines.pictures.embedded import metadata_findings
from diffpriv.pipelines.pictures.mark import COVERED, GENERATED, MARKS
from diffpriv.pipelines.pictures.plain import oddity
from diffpriv.pipelines.records.samples import DetectedSample, Picture, ProtectedSample, Sample
from diffpriv.pipelines.steps.finder import Finder
from diffpriv.pipelines.steps.transformer import Replacer
from tests.pipelines.datasets import astronaut, coffee, encoded

FORMATS = [("JPEG", {}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]


def xmp_of(data: bytes) -> object:
    image = Image.open(io.BytesIO(data))
    return image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", b"")


@pytest.mark.parametrize("packet", MARKS)
def test_the_packet_is_xmp_that_names_a_source_type(packet: bytes) -> None:
    (described,) = ElementTree.fromstring(packet).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    said = described.attrib["{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"]
    assert said.startswith("http://cv.iptc.org/newscodes/digitalsourcetype/")


@pytest.mark.parametrize(("format", "options"), FORMATS)
def test_a_marked_picture_passes_the_gate_and_one_with_another_packet_does_not(format: str, options: dict[str, bool]) -> None:
    picture = decode(encoded(coffee(96), format, **options))
    for made in (written_anew(picture, mark=COVERED), encode(picture, 255 - picture.pixels, anew=True, mark=GENERATED)):
        assert GENERATED in made or COVERED in made
        assert oddity(made, decode(made)) == ""
        assert metadata_findings(made, changed=True) == []
    other = written_anew(picture, mark=COVERED.replace(b"faces covered", b"John Smith 1990"))
    assert oddity(other, decode(other)) != ""
    assert metadata_findings(other, changed=True) != []
    twice = written_anew(picture, mark=COVERED).replace(COVERED, COVERED[:-20] + bytes(20))
    with contextlib.suppress(BadImageError):
        assert oddity(twice, decode(twice)) != ""


def test_a_job_marks_what_it_changed_and_nothing_else() -> None:
    pictures = (Picture("jpg", encoded(astronaut(256), "JPEG")), Picture("png", encoded(coffee(), "PNG")))
    job = {"src": "/s", "dst": "/d/f", "audit": "/a", "transform": {"transform": "fill"}, "strip_metadata": "all"}
    for rule, expected in (("none", b""), ("xmp", COVERED)):
        config = JobConfig.from_mapping({**job, "mark": rule})
        (found,) = Finder(config).detect([Sample("s", 0, "k", pictures)])
        assert isinstance(found, DetectedSample)
        ((done,), _) = Replacer(config, RandomKeySource).replace([found], ShardContext("f", "s", config.digest()))
        assert isinstance(done, ProtectedSample)
        changed = {one.field: one.data for one in done.changed}
        assert xmp_of(changed["jpg"]) == expected
        assert not xmp_of(changed.get("png", pictures[1].data)), "nobody is in it"
