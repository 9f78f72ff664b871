"""What replaces the faces of a job and seals their keys: transformation, pseudonyms, key source and recipients."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from diffpriv.keys.context import ShardContext
from diffpriv.keys.quorum import ShardLock
from diffpriv.keys.recipients import Recipient
from diffpriv.keys.sealing import FaceSecret, SealedPart, seal_part
from diffpriv.keys.sources import KeySource
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.pictures.mark import mark_of
from diffpriv.pipelines.records.samples import DetectedSample, ProtectedSample, QuarantinedSample
from diffpriv.pipelines.steps.people import load_pseudonyms
from diffpriv.pipelines.steps.protect import protect
from diffpriv.pipelines.threads import one_thread

KeySourceFactory = Callable[[], KeySource]


class Replacer:
    """Made once per process, from settings alone. Secrets are made and sealed inside it, and never leave it.

    Args:
        key_source: makes the source of face keys. It is pickled, so it must hold no secret: a class, or a partial over a path.
    Raises:
        MisuseError, ModelError: a recipient, root or model that the settings name cannot be loaded.
    """

    def __init__(self, config: JobConfig, key_source: KeySourceFactory) -> None:
        from diffpriv.transforms import load_transform

        with one_thread():
            self._recipients = [Recipient.load(path) for path in config.recipients] if config.keeps_keys else []
            self._keys = key_source()
            self._pseudonyms = load_pseudonyms(config)
            self._transform = load_transform(config.transform)
        self._mark = mark_of(config.transform.transform) if config.mark == "xmp" else b""
        self.fingerprint = self._transform.identity

    def replace(
        self, samples: Sequence[DetectedSample], context: ShardContext
    ) -> tuple[list[ProtectedSample | QuarantinedSample], SealedPart | None]:
        """One result per sample, in order, and the faces' records, sealed as one part; None where nothing is kept.

        Args:
            samples: all with the same lock, which the part is sealed under.
        """
        outcomes, secrets = self._protect(samples, context)
        return outcomes, seal_part(context, self._recipients, secrets, _lock_of(samples)) if secrets else None

    def replace_each(
        self, samples: Sequence[DetectedSample], context: ShardContext
    ) -> tuple[list[ProtectedSample | QuarantinedSample], dict[str, SealedPart]]:
        """The same with a sealed part per sample: key -> part, of samples that have faces with a record."""
        outcomes, secrets = self._protect(samples, context)
        by_sample: dict[str, list[FaceSecret]] = {}
        for secret in secrets:
            by_sample.setdefault(secret.sample, []).append(secret)
        lock = _lock_of(samples)
        return outcomes, {key: seal_part(context, self._recipients, many, lock) for key, many in by_sample.items()}

    def _protect(
        self, samples: Sequence[DetectedSample], context: ShardContext
    ) -> tuple[list[ProtectedSample | QuarantinedSample], list[FaceSecret]]:
        outcomes, secrets = protect(samples, self._transform, self._keys, context, self._pseudonyms, self._mark)
        if self._recipients:
            return outcomes, secrets
        # Recovery "none" has no recipients and keeps nothing: the keys end with this frame.
        return [one if isinstance(one, QuarantinedSample) else _unrecoverable(one) for one in outcomes], []


def _lock_of(samples: Sequence[DetectedSample]) -> ShardLock | None:
    (lock,) = {sample.lock for sample in samples}
    return ShardLock.decode(lock) if lock else None


def _unrecoverable(sample: ProtectedSample) -> ProtectedSample:
    return replace(sample, faces=tuple(replace(face, recoverable=False) for face in sample.faces))
