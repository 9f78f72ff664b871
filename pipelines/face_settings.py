"""Parts of a job's settings that have a block of their own in `job.yaml`. Light: no models, no engine, nothing secret."""

from typing import Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Unknown keys are refused; what was read never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class BoxSettings(Strict):
    """Faces that the dataset brings along (`pipelines.steps.boxes`).

    Attributes:
        field: where the boxes are: a key of the sample's JSON sidecar or a Parquet column; dots go into nested objects.
        format: what four numbers mean. "xyxy", "xywh" (left, top, width, height) and "cxcywh" (centre, width, height) are
            pixels; "albumentations" is xyxy divided by the picture's width and height (img2dataset's, DataComp's layout).
        landmarks: a field beside it with five points per box, in the same order and units; none by default.
        detect: "also" unites them with what the detector finds, the wider one wins; "never" trusts them alone.
        grid: of a picture with an EXIF orientation: "stored" counts pixels as they lie in the file, "upright" as it is shown.
    """

    field: str = Field(min_length=1)
    format: Literal["xyxy", "xywh", "cxcywh", "albumentations"] = "xyxy"
    landmarks: str | None = None
    detect: Literal["also", "never"] = "also"
    grid: Literal["stored", "upright"] = "stored"


class PseudonymSettings(Strict):
    """Whose synthetic face a face gets.

    Attributes:
        source: "" gives every face one of its own. Else all faces of one person share one: "folder" (the sample's folder names
            the person), a CSV file with the columns sample and person (a path that ends in .csv), or a field.
        root: file of the release's identity root (`diffpriv keys identity-root`), secret, apart from SRC and DST.
        root_id: public name of that root. Filled in from the file: another root is another release.
    """

    source: str = ""
    root: str = ""
    root_id: str = ""

    @pydantic.model_validator(mode="after")
    def _complete(self) -> "PseudonymSettings":
        if bool(self.source) != bool(self.root):
            raise ValueError("a pseudonym per identity needs both: where identities are named, and an identity root")
        return self

    @property
    def field(self) -> str:
        """The field that names the person, where one does."""
        return "" if self.source == "folder" or self.source.endswith(".csv") else self.source


Region = tuple[float, float, float, float]


class RuleSettings(Strict):
    """Faces that are left as they are, on purpose (`pipelines.steps.policy`, which says which rule wins).

    Attributes:
        min_size: a face whose shorter box side has fewer pixels is left.
        min_score: a face of which the detector is less sure is left.
        leave: regions (x0, y0, x1, y1) as shares of width and height; a face whose centre lies in one is left.
        treat: regions that are always treated: faces whose centre lies in one whatever the other rules say, and the region
            itself as one face where none was found in it.
        consent: "FIELD=VALUE": faces of samples whose field has this value are left.
        gallery: folder of photos of people who consented; a face that matches one is left. Needs `gallery_similarity`.
        gallery_similarity: similarity from which a face is one of the gallery's; at or above the recogniser's strictest limit.
    """

    min_size: float = Field(0, ge=0)
    min_score: float = Field(0, ge=0, le=1)
    leave: tuple[Region, ...] = ()
    treat: tuple[Region, ...] = ()
    consent: str = ""
    gallery: str = ""
    gallery_similarity: float | None = Field(None, gt=0, lt=1)

    @pydantic.field_validator("leave", "treat")
    @classmethod
    def _inside(cls, regions: tuple[Region, ...]) -> tuple[Region, ...]:
        for x0, y0, x1, y1 in regions:
            if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
                raise ValueError("a region is (left, top, right, bottom) as shares of width and height, from 0 to 1")
        return regions

    @pydantic.field_validator("consent")
    @classmethod
    def _field_and_value(cls, consent: str) -> str:
        field, equals, value = consent.partition("=")
        if consent and not (field and equals and value):
            raise ValueError('write consent as "FIELD=VALUE"')
        return consent

    @property
    def consent_field(self) -> str:
        return self.consent.partition("=")[0]
