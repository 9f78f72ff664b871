"""The mark of a changed picture: an XMP packet that says a program made part of it (IPTC Photo Metadata, Digital Source Type).

The packet has the same bytes in every picture, so that the release gate knows it and nothing else can stand in it. JPEG, PNG
and WebP carry it.
"""

_PACKET = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmp:CreatorTool="{tool}"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"  # what an APP1 segment with XMP begins with
GENERATED = _PACKET.format(tool="diffpriv: generated faces", kind="compositeWithTrainedAlgorithmicMedia").encode()
COVERED = _PACKET.format(tool="diffpriv: faces covered", kind="algorithmicallyEnhanced").encode()
MARKS = (GENERATED, COVERED)


def mark_of(transform: str) -> bytes:
    """The packet for what a transformation of this name does."""
    return GENERATED if transform == "diffprivacy" else COVERED


def is_mark(value: object) -> bool:
    """Whether XMP that Pillow read, as bytes or text, is one of the marks."""
    return (value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value) in MARKS
