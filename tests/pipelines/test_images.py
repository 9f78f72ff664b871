"""Pictures keep their codec, quality and profile, and lose their metadata; nothing unreadable gets through."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.codec import PictureLimits, decode, encode, later_frames, sniff_format, written_anew
from diffpriv.pipelines.pictures.plain import oddity
from diffpriv.pipelines.pictures.profiles import rebuilt_profile
from tests.pipelines.datasets import astronaut, encoded

HOLE = (slice(60, 120), slice(90, 150))


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def changed(data: bytes) -> tuple[bytes, np.ndarray]:
    """The picture with a grey hole, and the pixels it should show."""
    picture = decode(data)
    pixels = picture.pixels.copy()
    pixels[HOLE] = 128
    return encode(picture, pixels), pixels


def in_mode(mode: str) -> Image.Image:
    return Image.fromarray(astronaut()).convert(mode)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=format, **options)
    return out.getvalue()


LOSSLESS = {
    "png rgb": encoded(astronaut(), "PNG"),
    "png rgba": saved(in_mode("RGBA"), "PNG"),
    "png grey and alpha": saved(in_mode("LA"), "PNG"),
    "png palette": saved(in_mode("P"), "PNG"),
    "png bilevel": saved(in_mode("1"), "PNG"),
    "webp": encoded(astronaut(), "WEBP", lossless=True),
    "tiff": encoded(astronaut(), "TIFF", compression="tiff_lzw"),
    "bmp": encoded(astronaut(), "BMP"),
}


@pytest.mark.parametrize("data", LOSSLESS.values(), ids=LOSSLESS)
def test_lossless_codecs_show_exactly_the_new_pixels(data: bytes) -> None:
    new, pixels = changed(data)
    assert opened(new).format == opened(data).format
    assert np.array_equal(decode(new).pixels, pixels)


@pytest.mark.parametrize("quality", [35, 75, 96])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpeg_keeps_its_quantisation_tables_and_subsampling(quality: int, subsampling: int) -> None:
    data = encoded(astronaut(), "JPEG", quality=quality, subsampling=subsampling)
    new, pixels = changed(data)
    assert opened(new).quantization == opened(data).quantization  # type: ignore[attr-defined]
    assert [layer[1:3] for layer in opened(new).layer] == [layer[1:3] for layer in opened(data).layer]  # type: ignore[attr-defined]
    assert 0.8 < len(new) / len(data) < 1.1
    far = np.ones(pixels.shape[:2], bool)
    far[50:130, 80:160] = False
    assert np.abs(decode(new).pixels.astype(int) - decode(data).pixels)[far].mean() < 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_grey_or_cmyk_jpeg_stays_one(mode: str) -> None:
    new, _ = changed(saved(in_mode(mode), "JPEG", quality=95))
    assert opened(new).mode == mode
    assert np.abs(decode(new).pixels[70:110, 100:140].astype(int) - 128).max() < 12


def test_a_progressive_jpeg_stays_one() -> None:
    new, _ = changed(encoded(astronaut(), "JPEG", progressive=True))
    assert opened(new).info.get("progressive")


def test_sixteen_bit_grey_keeps_its_depth_outside_the_change() -> None:
    deep = astronaut()[..., 1].astype(np.uint16) * 16 + 5  # 12 bits, as cameras have them
    data = saved(Image.fromarray(deep), "PNG")
    assert decode(data).pixels.max() > 250, "a dark reading would hide faces from the detector"
    new, _ = changed(data)
    after = np.asarray(opened(new))
    outside = np.ones(deep.shape, bool)
    outside[HOLE] = False
    assert opened(new).mode == "I;16"
    assert np.array_equal(after[outside], deep[outside])
    assert not np.array_equal(after[HOLE], deep[HOLE])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_seen_and_kept_and_the_rest_of_exif_goes(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x013B] = orientation, "a camera", "a photographer"
    data = encoded(astronaut()[:200], format, exif=exif.tobytes(), quality=95)
    upright = np.asarray(_transposed(data))
    picture = decode(data)
    assert np.array_equal(picture.pixels, upright)
    new, pixels = changed(data)
    assert opened(new).size == opened(data).size, "boxes in other fields of the sample would be wrong"
    assert dict(opened(new).getexif()) == ({0x0112: orientation} if orientation != 1 else {})
    assert np.abs(np.asarray(_transposed(new)).astype(int) - pixels).mean() < 3


def _transposed(data: bytes) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(opened(data))


def test_the_colour_profile_stays_and_xmp_comment_and_thumbnail_go() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    thumbnail = encoded(astronaut(64), "JPEG")
    data = encoded(
        astronaut(), "JPEG", icc_profile=profile, exif=exif.tobytes() + thumbnail, xmp=b"<x:xmpmeta/>", comment=b"who"
    )
    assert data.count(b"\xff\xd8\xff") > 1
    new, _ = changed(data)
    assert opened(new).info["icc_profile"] == profile
    assert new.count(b"\xff\xd8\xff") == 1
    for trace in (b"xmpmeta", b"a camera", b"who", b"Exif"):
        assert trace not in new


def test_later_frames_are_shown_and_not_written() -> None:
    frames = [Image.fromarray(astronaut()).rotate(angle) for angle in (0, 90, 180)]
    for format in ("GIF", "WEBP", "PNG"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        picture = decode(data)
        assert picture.frames == 3
        assert len(list(later_frames(picture))) == 2
        assert getattr(opened(changed(data)[0]), "n_frames", 1) == 1


def test_same_bytes_and_pixels_in_same_bytes_out() -> None:
    for data in [*LOSSLESS.values(), encoded(astronaut(), "JPEG"), encoded(astronaut(), "WEBP")]:
        assert changed(data)[0] == changed(data)[0]


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header promises a size that its data do not have."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


BAD = {
    "empty": b"",
    "text": b"this is no picture",
    "html": b"<html><body>404</body></html>",
    "cut jpeg": encoded(astronaut(), "JPEG")[:4000],
    "cut png": encoded(astronaut(), "PNG")[:4000],
    "cut webp": encoded(astronaut(), "WEBP")[:4000],
    "cut header": encoded(astronaut(), "JPEG")[:20],
    "bomb": png_of_size(50_000, 50_000),
    "large": png_of_size(12_000, 12_000),
    "lying png": png_of_size(500, 500),
    "float tiff": saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"),
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "jpeg 2000": saved(Image.fromarray(astronaut()), "JPEG2000"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_refused_with_a_reason_that_repeats(data: bytes) -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(BadImageError) as refused:
            decode(data)
        reasons.add(str(refused.value))
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


def test_limits_are_kept() -> None:
    with pytest.raises(BadImageError, match="256 × 256"):
        decode(encoded(astronaut(), "PNG"), PictureLimits(max_pixels=65_535))
    frames = [Image.fromarray(astronaut(64)).rotate(angle) for angle in range(5)]
    with pytest.raises(BadImageError, match="5 frames"):
        decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), PictureLimits(max_frames=4))


def test_one_pixel_is_a_picture() -> None:
    assert decode(encoded(np.zeros((1, 1, 3), np.uint8), "PNG")).pixels.shape == (1, 1, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_damaged_bytes_never_crash(format: str) -> None:
    whole = bytearray(encoded(astronaut(64), format))
    chance = np.random.default_rng(7)
    for _ in range(60):
        data = whole.copy()
        for _ in range(chance.integers(1, 8)):
            data[chance.integers(len(data))] = chance.integers(256)
        data = data[: chance.integers(1, len(data) + 1)] if chance.random() < 0.3 else data
        try:
            picture = decode(bytes(data))
            encode(picture, picture.pixels)
        except BadImageError:
            pass


def test_formats_are_told_by_their_first_bytes() -> None:
    for format in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        assert sniff_format(encoded(astronaut(32), format)[:16]) == format
    assert sniff_format(b"BMW is a car, not a bitmap") is None
    assert sniff_format(b"") is None


def test_a_long_strip_is_a_picture() -> None:
    data = encoded(np.zeros((20_000, 12, 3), np.uint8), "PNG")
    picture = decode(data)
    assert picture.pixels.shape == (20_000, 12, 3)
    assert np.array_equal(decode(encode(picture, picture.pixels)).pixels, picture.pixels)


def test_a_picture_written_anew_keeps_its_pixels_and_nothing_else() -> None:
    """Every codec: what is proved plain is ours, and what somebody adds is not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    alpha = in_mode("RGBA")
    alpha.putalpha(Image.fromarray(np.roll(astronaut()[..., 0], 40)))
    sources = {
        **LOSSLESS,
        "jpeg": encoded(astronaut(), "JPEG", quality=85, exif=exif.tobytes(), comment=b"who", progressive=True),
        "jpeg grey": saved(in_mode("L"), "JPEG"),
        "jpeg cmyk": saved(in_mode("CMYK"), "JPEG"),
        "webp lossy with alpha": saved(alpha, "WEBP"),
        "16 bits": saved(Image.fromarray(astronaut()[..., 0].astype(np.uint16) << 4), "PNG"),
        "tiff": encoded(astronaut(), "TIFF", tiffinfo={0x0112: 6, 0x010F: "Camera"}),
    }
    for name, data in sources.items():
        made = written_anew(decode(data))
        before, after = decode(data), decode(made)
        assert oddity(made, after) == "", name
        assert after.orientation == before.orientation
        assert b"who" not in made
        assert b"Camera" not in made
        if name in LOSSLESS or name in ("16 bits", "tiff"):
            assert np.array_equal(after.stored, before.stored), name
        for more in (made + bytes(20), made[:-2] + b"\1\2\3" * 20 + made[-2:]):
            with contextlib.suppress(BadImageError):
                assert oddity(more, decode(more)), name


def test_a_jpeg_written_anew_changes_by_rounding_only() -> None:
    for options in ({}, {"quality": 60}, {"quality": 95, "subsampling": 0}, {"progressive": True}):
        data = encoded(astronaut(320), "JPEG", **options)
        made = written_anew(decode(data))
        error = decode(made).pixels.astype(float) - decode(data).pixels
        assert 10 * np.log10(255**2 / (error**2).mean()) >= 45
        assert len(made) <= 1.1 * len(data)


def test_a_colour_profile_is_rebuilt_from_its_numbers() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rebuilt = rebuilt_profile(srgb)
    assert rebuilt is not None
    assert rebuilt_profile(rebuilt) == rebuilt
    same = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(rebuilt)), ImageCms.ImageCmsProfile(io.BytesIO(srgb)), "RGB", "RGB"
    )
    shown = ImageCms.applyTransform(Image.fromarray(astronaut()), same)
    assert shown is not None
    assert np.abs(np.asarray(shown).astype(int) - astronaut()).max() <= 1
    assert rebuilt_profile(b"a face" * 100) is None
