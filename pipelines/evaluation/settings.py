"""What `diffpriv evaluate` is asked to do."""

from dataclasses import dataclass

BASELINES = ("blur", "mosaic", "fill")


@dataclass(frozen=True)
class EvaluationSettings:
    """Attributes:
    sample: pictures looked at; 0 is all of them.
    identity: "folder" (the folder a sample lies in names the person), a field of the samples, a .csv manifest, or "" where
        nobody knows who is who.
    group: column of the manifest, or field of the samples, by which all figures are given again.
    attributes: more columns or fields, learned downstream and compared.
    judges: recognisers: "builtin", "dlib", "human:FOLDER", "insightface:FOLDER", or a folder.
    baselines: covered faces made from the same originals, for comparison.
    attacker_minutes: CPU minutes all adaptive attackers have together; 0 leaves them out.
    recovery_faces: faces that the self-test protects and recovers in memory; 0 leaves it out.
    keys_per_face: outputs of one photo under that many keys, for the averaging attack of the self-test.
    task, preset, model: of the self-test.
    """

    sample: int = 500
    identity: str = "folder"
    group: str = ""
    attributes: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    baselines: tuple[str, ...] = BASELINES
    attacker_minutes: float = 3.0
    recovery_faces: int = 8
    keys_per_face: int = 8
    task: str = "anonymize"
    preset: str = "fast"
    model: str = "builtin"
    detector: str = "centerface"
    format: str = "auto"
    seed: int = 0
