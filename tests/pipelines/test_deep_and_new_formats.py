"""AVIF, HEIC and 16 bits a channel: kept as they are or refused by name, never cut, and never with more than their picture."""

import contextlib
import io
import struct
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from diffpriv.faces.types import Face
from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.codec import READ_FORMATS, PictureLimits, decode, encode, other_views, written_anew
from diffpriv.pipelines.pictures.plain import oddity
from diffpriv.pipelines.records.samples import DetectedSample, Picture, Sample
from diffpriv.pipelines.steps.detect import detect
from tests.pipelines.datasets import astronaut, coffee

HOLE = (slice(60, 120), slice(90, 150))
NEW = [
    pytest.param(name, marks=pytest.mark.skipif(name not in READ_FORMATS, reason=f"no codec for {name} is installed"))
    for name in ("AVIF", "HEIF")
]


class Nobody:
    identity = "nobody/1"

    def detect(self, images: Sequence[np.ndarray]) -> list[list[Face]]:
        return [[] for _ in images]


def saved(pixels: np.ndarray, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


def deep(channels: int = 3) -> np.ndarray:
    """12 bits of a camera in 16, as few of them equal to 257 times a byte as chance has it."""
    pixels = astronaut().astype(np.uint16) * 16 + np.arange(256, dtype=np.uint16)[:, None, None] % 16
    alpha = np.full((256, 256, channels - 3), 65535, np.uint16)
    return np.concatenate([pixels, alpha], axis=2)


def deep_png(values: np.ndarray, chunks: Sequence[tuple[bytes, bytes]] = (), **options: object) -> bytes:
    order = [2, 1, 0, 3][: values.shape[2]]
    data = cv2.imencode(".png", np.ascontiguousarray(values[..., order]))[1].tobytes()
    info = PngImagePlugin.PngInfo()
    for kind, body in chunks:
        info.add(kind, body)
    with_chunks = io.BytesIO()
    Image.new("RGB", (1, 1)).save(with_chunks, "PNG", pnginfo=info, **options)
    more = with_chunks.getvalue()
    return data[:33] + more[33 : more.index(b"IDAT") - 4] + data[33:]


def stored(data: bytes) -> np.ndarray:
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colour_stay_outside_the_change(channels: int) -> None:
    values = deep(channels)
    picture = decode(deep_png(values))
    assert picture.pixels.max() > 250, "a dark reading would hide faces from the detector"
    pixels = picture.pixels.copy()
    pixels[HOLE] = 128
    new = encode(picture, pixels)
    after = stored(new)
    outside = np.ones(values.shape[:2], bool)
    outside[HOLE] = False
    assert after.dtype == np.uint16
    assert np.array_equal(after[outside], values[outside])
    assert np.abs(decode(new).pixels[HOLE].astype(int) - 128).max() <= 3
    assert np.array_equal(after[..., 3:], values[..., 3:])


def test_a_deep_png_keeps_its_colour_chunks_and_orientation_and_nothing_else() -> None:
    chunks = [
        (b"gAMA", struct.pack(">I", 45455)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"cICP", bytes((9, 16, 0, 1))),
        (b"teXt", b"somebody"),
    ]
    exif = Image.Exif()
    exif[0x0112] = 6
    data = deep_png(deep(), chunks, exif=exif.tobytes())
    assert b"somebody" in data
    picture = decode(data)
    assert picture.orientation == 6
    for made in (written_anew(picture), encode(picture, 255 - picture.pixels)):
        assert [kind for kind in (b"gAMA", b"cHRM", b"cICP", b"eXIf") if kind not in made] == []
        assert b"somebody" not in made
        assert decode(made).orientation == 6
    made = written_anew(picture)
    assert np.array_equal(stored(made), stored(data))
    assert oddity(made, decode(made)) == ""
    assert oddity(data, picture) != ""
    assert oddity(made + b"more", decode(made + b"more")) != ""


def test_a_face_in_the_low_bytes_of_a_deep_png_is_shown() -> None:
    hidden = np.concatenate([astronaut(), np.zeros((256, 256, 1), np.uint8)], axis=2)
    values = np.full((256, 256, 4), 0x8000, np.uint16) | hidden
    views = dict(other_views(decode(deep_png(values))))
    assert np.array_equal(views["low bytes"], astronaut())
    assert "alpha channel's low bytes" in views


def test_more_than_eight_bits_that_would_be_cut_are_refused_by_name() -> None:
    tiff = cv2.imencode(".tiff", deep()[..., ::-1])[1].tobytes()
    with pytest.raises(BadImageError, match="more than 8 bits a channel"):
        decode(tiff)
    transparent = deep_png(deep(), transparency=(0, 0, 0))
    with pytest.raises(BadImageError, match="transparent colour"):
        decode(transparent)


@pytest.mark.parametrize("format", NEW)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_avif_and_heic_stay_what_they_are(format: str, mode: str) -> None:
    pixels = np.asarray(Image.fromarray(astronaut()).convert(mode))
    data = saved(pixels, format, quality=85)
    picture = decode(data)
    new = picture.pixels.copy()
    new[HOLE] = 128
    after = decode(encode(picture, new))
    assert after.format == format
    assert after.stored.mode == picture.stored.mode
    assert np.abs(after.pixels[70:110, 100:140].astype(int) - 128).max() < 12
    assert np.abs(after.pixels[200:].astype(int) - picture.pixels[200:]).mean() < 2.5


@pytest.mark.parametrize("format", NEW)
def test_avif_and_heic_written_anew_hold_nothing_but_their_picture(format: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"
    small = coffee(120)
    for pixels in (small, np.dstack([small, small[..., 0]]), np.full((40, 40, 3), 90, np.uint8)):
        data = saved(pixels, format, exif=exif.tobytes(), xmp=b"<x:xmpmeta>somebody</x:xmpmeta>")
        picture = decode(data)
        made = written_anew(picture)
        assert oddity(made, decode(made)) == ""
        assert decode(made).pixels.shape == picture.pixels.shape
        assert not [word for word in (b"a camera", b"somebody") if word in made]
        assert oddity(data, picture) != ""
        for more in (made + bytes(600), made + struct.pack(">I4s", 600, b"free") + bytes(592), _in_data(made)):
            with contextlib.suppress(BadImageError):
                assert oddity(more, decode(more)) != ""


def _in_data(data: bytes) -> bytes:
    """Something at the end of the last box, the data, which becomes so much longer."""
    place = data.index(b"mdat") - 4
    (size,) = struct.unpack_from(">I", data, place)
    return data[:place] + struct.pack(">I", size + 600) + data[place + 4 :] + saved(astronaut(48), "JPEG")[:600]


@pytest.mark.parametrize("format", NEW)
def test_a_second_picture_in_an_avif_or_heic_goes_and_is_counted(format: str) -> None:
    data = saved(coffee(), format, append_images=[Image.fromarray(255 - coffee())], save_all=True)
    picture = decode(data)
    assert picture.frames + picture.others == 2
    sample = Sample("s", 0, "k", (Picture(format.lower(), data),))
    (found,) = detect([sample], Nobody(), PictureLimits(), strip=True)
    assert isinstance(found, DetectedSample)
    assert found.found[0].frames_dropped == 1
    assert decode(found.found[0].picture.data).frames == 1


@pytest.mark.parametrize("format", NEW)
def test_damaged_avif_and_heic_never_crash(format: str) -> None:
    whole = bytearray(saved(astronaut(64), format))
    chance = np.random.default_rng(7)
    for _ in range(60):
        data = whole.copy()
        for _ in range(chance.integers(1, 8)):
            data[chance.integers(len(data))] = chance.integers(256)
        data = data[: chance.integers(1, len(data) + 1)] if chance.random() < 0.3 else data
        with contextlib.suppress(BadImageError):
            oddity(bytes(data), decode(bytes(data)))


@pytest.mark.skipif("HEIF" in READ_FORMATS, reason="pillow-heif is installed")
def test_heic_without_its_codec_is_refused_and_the_extra_named() -> None:
    with pytest.raises(BadImageError, match=r"diffpriv\[heic\]"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))


@pytest.mark.skipif("HEIF" not in READ_FORMATS, reason="no codec for HEIF is installed")
def test_a_thumbnail_in_a_heic_that_nobody_can_look_at_goes_and_is_counted() -> None:
    import pillow_heif

    file = pillow_heif.from_pillow(Image.fromarray(astronaut()))
    file.info["thumbnails"] = [64]
    out = io.BytesIO()
    file.save(out, save_all=True)
    picture = decode(out.getvalue())
    assert (picture.frames, picture.others) == (1, 1)
    sample = Sample("s", 0, "k", (Picture("heic", out.getvalue()),))
    (found,) = detect([sample], Nobody(), PictureLimits())
    assert isinstance(found, DetectedSample)
    assert found.found[0].first_frame_only
    assert found.found[0].frames_dropped == 1
    assert decode(written_anew(picture)).others == 0


def test_the_loss_of_a_gain_map_is_counted() -> None:
    """Ultra HDR: a JPEG with a second one behind it, and XMP that says so."""
    xmp = b'<x:xmpmeta xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"/>'
    data = saved(coffee(), "JPEG", xmp=xmp) + saved(coffee()[..., 0], "JPEG")
    sample = Sample("s", 0, "k", (Picture("jpg", data),))
    (found,) = detect([sample], Nobody(), PictureLimits(), strip=True)
    assert isinstance(found, DetectedSample)
    assert found.found[0].gain_maps_dropped == 1
    assert b"hdrgm" not in found.found[0].picture.data
    (kept,) = detect([sample], Nobody(), PictureLimits())
    assert isinstance(kept, DetectedSample)
    assert kept.found == (), "a picture that is not written anew keeps its bytes and its gain map"
