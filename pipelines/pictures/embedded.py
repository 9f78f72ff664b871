"""What a picture's file carries besides its picture: embedded pictures, EXIF, XMP, IPTC, comments.

Two rules. A picture that was changed may carry nothing but orientation, resolution and colour profile, and on
demand what `pipelines.pictures.camera` writes. One that was not may
also carry what says nothing about who or where (camera model, exposure, software); tags, chunks and segments that hold places,
names, serial numbers or free text are named here.
"""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from diffpriv.pipelines.errors import BadImageError
from diffpriv.pipelines.pictures.camera import is_camera_alone
from diffpriv.pipelines.pictures.codec import READ_FORMATS, PictureLimits, decode
from diffpriv.pipelines.pictures.mark import JPEG_XMP, is_mark
from diffpriv.pipelines.quarantine import Code

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
_MOST_STARTS = 200
_EMBEDDED_LIMITS = PictureLimits(max_pixels=50_000_000)
_ALWAYS_KEPT = {ExifTags.Base.Orientation, ExifTags.Base.XResolution, ExifTags.Base.YResolution, ExifTags.Base.ResolutionUnit}
_TELLING = {
    ExifTags.Base.Artist: "artist",
    ExifTags.Base.Copyright: "copyright",
    ExifTags.Base.ImageDescription: "description",
    ExifTags.Base.DocumentName: "document name",
    ExifTags.Base.HostComputer: "host computer",
    ExifTags.Base.XPTitle: "title",
    ExifTags.Base.XPComment: "comment",
    ExifTags.Base.XPAuthor: "author",
    ExifTags.Base.XPKeywords: "keywords",
    ExifTags.Base.XPSubject: "subject",
    ExifTags.Base.UserComment: "user comment",
    ExifTags.Base.CameraOwnerName: "camera owner",
    ExifTags.Base.BodySerialNumber: "serial number",
    ExifTags.Base.LensSerialNumber: "serial number",
    ExifTags.Base.ImageUniqueID: "unique ID",
    ExifTags.Base.MakerNote: "maker note",
    700: "XMP",
    33723: "IPTC",
    34377: "Photoshop resources",
    37724: "Photoshop resources",
}
# TIFF tags that lay the pixels out; every TIFF has them, and Pillow lists them with EXIF.
_TIFF_LAYOUT = {254, 255, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 282, 283, 284, 292, 296, 297, 317, 320}
_TIFF_LAYOUT |= {322, 323, 324, 325, 338, 339, 34675}
_BLOCKS = {"xmp": "XMP", "XML:com.adobe.xmp": "XMP", "photoshop": "IPTC or Photoshop resources", "comment": "comment"}


def embedded_pictures(data: bytes) -> Iterator[np.ndarray]:
    """Every JPEG or PNG that starts after a file's first byte and can be decoded, (height, width, 3) uint8 RGB.

    Found wherever it lies: in EXIF, maker notes, Photoshop resources, XMP in binary, after the picture's end.

    Raises:
        BadImageError: there are more starts than anybody's picture has.
    """
    starts = 0
    for start in _STARTS:
        place = data.find(start, 1)
        while place >= 0:
            starts += 1
            if starts > _MOST_STARTS:
                raise BadImageError("its file holds more beginnings of pictures than can be looked at", code=Code.TOO_LARGE)
            if data[place + 3 : place + 4] > b"\xbf" or start != _STARTS[0]:  # a JPEG goes on with a marker
                with contextlib.suppress(BadImageError):  # bytes that only look like a start: no viewer opens them either
                    yield decode(data[place:], _EMBEDDED_LIMITS).pixels
            place = data.find(start, place + 1)


def metadata_findings(data: bytes, *, changed: bool, camera: bool = False) -> list[str]:
    """What the file says besides its picture, by the rule for changed or unchanged pictures; sorted names, no values.

    Args:
        camera: a changed picture may say which camera took it and how.
    Raises:
        BadImageError: the file cannot be opened.
    """
    try:
        with Image.open(io.BytesIO(data), formats=READ_FORMATS) as image:
            image.load()
            return sorted(_findings(image, changed, camera))
    except Exception as error:  # whatever Pillow raises on hostile bytes
        raise BadImageError(f"its metadata cannot be read ({type(error).__name__})", code=Code.METADATA) from None


def _findings(image: Image.Image, changed: bool, camera: bool) -> set[str]:
    found = set(_text_blocks(image, changed))
    exif = image.getexif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    if exif.get_ifd(ExifTags.IFD.GPSInfo):
        found.add("GPS position")
    tags = {*exif, *details}
    found |= {name for tag, name in _TELLING.items() if tag in tags}
    if changed and not (camera and is_camera_alone(image)):
        kept = _ALWAYS_KEPT | (_TIFF_LAYOUT if image.format == "TIFF" else set())
        # Pointers to the sub-directories themselves are no information.
        kept |= {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop}
        if tags - kept - set(_TELLING):
            found.add("EXIF")
    return found


def _text_blocks(image: Image.Image, changed: bool) -> Iterator[str]:
    for name, what in _BLOCKS.items():
        if image.info.get(name) and not is_mark(image.info[name]):
            yield what
    for name in getattr(image, "text", {}) or {}:
        if str(name).lower().startswith("raw profile type"):
            yield "EXIF, IPTC or XMP in a text chunk"
        elif name not in _BLOCKS and (changed or str(name).lower() not in ("software", "date:create", "date:modify")):
            yield "text chunk"
    for marker, content in getattr(image, "applist", []) or []:
        if marker == "APP1" and content.startswith(b"http://ns.adobe.com/") and not is_mark(content.removeprefix(JPEG_XMP)):
            yield "XMP"
        elif marker in ("APP13", "COM"):
            yield "IPTC or Photoshop resources" if marker == "APP13" else "comment"
