"""What finds the faces of a job: detector, own boxes, rules and decisions as the settings put them together."""

from collections.abc import Mapping, Sequence

from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.records.samples import DetectedSample, QuarantinedSample, Sample
from diffpriv.pipelines.steps.detect import Detector, detect
from diffpriv.pipelines.steps.lookout import Lookout
from diffpriv.pipelines.steps.people import person_namer
from diffpriv.pipelines.steps.policy import Decision, FacePolicy
from diffpriv.pipelines.threads import one_thread


class Finder:
    """Made once per process, from settings alone.

    Raises:
        MisuseError, DetectorError: a detector, mapping or gallery that the settings name cannot be loaded.
    """

    def __init__(self, config: JobConfig, decisions: Mapping[str, Sequence[Decision]] = {}) -> None:
        with one_thread():
            self._load(config, decisions)

    def _load(self, config: JobConfig, decisions: Mapping[str, Sequence[Decision]]) -> None:
        from diffpriv.detectors import load_detector

        gallery = None
        if config.rules.gallery:
            from diffpriv.pipelines.steps.gallery import load_gallery

            gallery = load_gallery(config)
        self._policy = FacePolicy(config.boxes, config.aligned, config.rules, decisions, gallery)
        self._limits, self._strip = config.limits, config.strip_metadata == "all"
        self._camera = config.keep_metadata == "camera"
        self._name = person_namer(config.pseudonym)
        detector = load_detector(config.detector, **config.detector_options) if self._policy.detects else None
        self._detector: Detector | None = Lookout([detector]) if detector is not None and config.thorough else detector
        parts = [] if config.boxes is None else [f"own boxes/1 {config.boxes.format}"]
        parts += ["aligned crops/1"] if config.aligned else []
        parts += [self._detector.identity] if self._detector is not None else []
        self.fingerprint = " + ".join(parts)

    def detect(self, samples: Sequence[Sample]) -> list[DetectedSample | QuarantinedSample]:
        return detect(samples, self._detector, self._limits, self._policy, self._name, self._strip, self._camera)
