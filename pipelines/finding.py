"""What finds the faces of a job: detector, own boxes, rules and decisions as the settings put them together."""

from collections.abc import Mapping, Sequence

from pipelines.config import JobConfig
from pipelines.policy import Decision, FacePolicy
from pipelines.pseudonyms import person_namer
from pipelines.samples import DetectedSample, QuarantinedSample, Sample
from pipelines.steps import detect


class Finder:
    """Made once per process, from settings alone.

    Raises:
        MisuseError, DetectorError: a detector, mapping or gallery that the settings name cannot be loaded.
    """

    def __init__(self, config: JobConfig, decisions: Mapping[str, Sequence[Decision]] = {}) -> None:
        from diffpriv.detectors import load_detector

        gallery = None
        if config.rules.gallery:
            from pipelines.gallery import load_gallery

            gallery = load_gallery(config)
        self._policy = FacePolicy(config.boxes, config.aligned, config.rules, decisions, gallery)
        self._limits, self._strip = config.limits, config.strip_metadata == "all"
        self._name = person_namer(config.pseudonym)
        self._detector = load_detector(config.detector, **config.detector_options) if self._policy.detects else None
        parts = [] if config.boxes is None else [f"own boxes/1 {config.boxes.format}"]
        parts += ["aligned crops/1"] if config.aligned else []
        parts += [self._detector.identity] if self._detector is not None else []
        self.identity = " + ".join(parts)

    def detect(self, samples: Sequence[Sample]) -> list[DetectedSample | QuarantinedSample]:
        return detect(samples, self._detector, self._limits, self._policy, self._name, self._strip)
