"""Metadata of pictures without a face goes when asked for, and not one of their pixels changes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from pipelines.config import JobConfig
from pipelines.errors import BadImageError
from pipelines.gate.embedded import embedded_pictures, metadata_findings
from pipelines.images import decode
from pipelines.ray_driver import run
from pipelines.strip import strip_metadata
from tests.pipelines.conftest import published
from tests.pipelines.datasets import coffee, encoded, gradient, write_shards

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">a person</x:xmpmeta>'


def telling(format: str, orientation: int = 6) -> bytes:
    """A picture whose file says where it was taken, by whom, and shows another picture."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Artist] = "a person"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    out = io.BytesIO()
    options: dict[str, Any] = {"exif": exif, "icc_profile": b"profile of some sort"}
    if format == "JPEG":
        options |= {"comment": b"a person", "progressive": True, "dpi": (300, 300), "xmp": XMP}
    elif format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("Author", "a person")
    else:
        options |= {"xmp": XMP, "lossless": True}
    Image.fromarray(coffee(121)).save(out, format=format, **options)
    return out.getvalue() + encoded(gradient(1, 32), "JPEG") * (format != "WEBP")  # after the end, as phones do


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_metadata_goes_and_pixels_orientation_and_profile_stay(format: str) -> None:
    data = telling(format)
    assert metadata_findings(data, changed=True)
    bare = strip_metadata(data)
    assert bare is not None
    assert metadata_findings(bare, changed=True) == []
    assert list(embedded_pictures(bare)) == []
    assert b"a person" not in bare
    before, after = Image.open(io.BytesIO(data)), Image.open(io.BytesIO(bare))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    assert np.array_equal(decode(data).pixels, decode(bare).pixels), "it is shown the other way up"
    assert after.info["icc_profile"] == before.info["icc_profile"]
    assert strip_metadata(bare) == bare


def test_a_picture_without_metadata_keeps_its_bytes() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
        data = encoded(gradient(2), format)
        assert strip_metadata(data) == data


def test_what_cannot_be_taken_out_is_written_anew_and_a_cut_file_is_refused() -> None:
    out = io.BytesIO()
    Image.fromarray(gradient(1)).save(out, format="GIF", comment=b"a person")
    assert strip_metadata(out.getvalue()) is None
    for format in ("JPEG", "PNG", "WEBP"):
        data = encoded(gradient(3), format)
        with pytest.raises(BadImageError):
            strip_metadata(data[: len(data) * 2 // 3])


def test_a_job_strips_all_pictures_when_asked(
    tmp_path: Path, config_for: Callable[..., JobConfig], derived: Any, ray_session: None
) -> None:
    picture, plain = telling("JPEG"), encoded(gradient(1), "PNG")
    src = write_shards(tmp_path / "src", {"a.tar": [("a.jpg", picture), ("a.txt", b"text"), ("b.png", plain)]})
    kept, stripped = config_for(src, "kept"), config_for(src, "stripped", strip_metadata="all")
    assert run(kept, key_source=derived).counts["pictures_changed"] == 0
    assert run(stripped, key_source=derived).counts["pictures_changed"] == 1
    assert picture in published(kept.dst)["a.tar"]
    out = published(stripped.dst)["a.tar"]
    assert picture not in out
    assert strip_metadata(picture) in out
    assert plain in out
