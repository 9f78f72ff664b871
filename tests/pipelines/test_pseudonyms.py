"""Consistent pseudonyms: whose identity a face gets, and how its secret is kept through runs."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from diffpriv.config import TransformConfig
from diffpriv.keys.context import ShardContext
from diffpriv.keys.identity import IdentityRoot, open_identity_root
from diffpriv.keys.sources import RandomKeySource
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.records.samples import DetectedSample, Picture, Sample
from diffpriv.pipelines.run.job import open_job
from diffpriv.pipelines.steps.finder import Finder
from diffpriv.pipelines.steps.people import Pseudonyms
from diffpriv.pipelines.steps.protect import protect
from diffpriv.transforms import FaceRequest, FaceResult, load_transform
from tests.pipelines.conftest import Keyring
from tests.pipelines.datasets import astronaut, encoded, group, sample, write_shards

METHOD = {"transform": "diffprivacy", "recovery": "keys"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    IdentityRoot.generate().save(tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "src", {"s.tar": sample("a", 0, encoded(astronaut(), "JPEG"))})


class Noting:
    """Fills faces, and notes which identity each was to get."""

    identity = "noting/1"

    def __init__(self) -> None:
        self.seeds: list[bytes | None] = []
        self._fill = load_transform(TransformConfig("fill", recovery="exact"))

    def protect(self, requests: Sequence[FaceRequest]) -> list[FaceResult]:
        self.seeds += [request.identity_seed for request in requests]
        return self._fill.protect(requests)


def seeds_of(config: JobConfig, samples: Sequence[Sample], root: Path) -> list[bytes | None]:
    found = [one for one in Finder(config).detect(samples) if isinstance(one, DetectedSample)]
    noting = Noting()
    pseudonyms = Pseudonyms(IdentityRoot.load(root), config.dataset)
    protect(found, noting, RandomKeySource(), ShardContext("faces", "s.tar", "0" * 64), pseudonyms)
    return noting.seeds


@pytest.mark.parametrize("source", ["folder", "who", "MAPPING"])
def test_photos_of_one_person_share_an_identity_and_bystanders_do_not(
    source: str, tmp_path: Path, root: Path, config_for: Callable[..., JobConfig]
) -> None:
    if source == "MAPPING":
        source = str(tmp_path / "people.csv")
        Path(source).write_text("sample,person\nada/1,Ada\nada/2,Ada\neve/1,Eve\n")
    photo, six = encoded(astronaut(), "JPEG"), encoded(group(), "JPEG")

    def one(index: int, key: str, person: str, data: bytes) -> Sample:
        return Sample("s.tar", index, key, (Picture("jpg", data),), {"who": person})

    samples = [one(0, "ada/1", "Ada", photo), one(1, "ada/2", "Ada", six), one(2, "eve/1", "Eve", photo)]
    samples.append(Sample("s.tar", 3, "unnamed", (Picture("jpg", photo),)))
    config = config_for(tmp_path, transform=METHOD, pseudonym={"source": source, "root": str(root)})
    ada_1, *ada_2, eve, unnamed = seeds_of(config, samples, root)
    assert ada_1 is not None
    assert eve not in (None, ada_1)
    assert unnamed is None
    assert [seed for seed in ada_2 if seed is not None] == [ada_1], "the largest of six faces, and no other"


def test_the_root_is_kept_for_recipients_and_another_root_is_another_release(
    src: Path, root: Path, tmp_path: Path, keyring: Keyring, config_for: Callable[..., JobConfig]
) -> None:
    config = config_for(src, transform=METHOD, pseudonym={"source": "folder", "root": str(root)})
    with open_job(config) as job:
        job.begin()
        digest = job.digest
        job.target.small.write(".diffpriv/commits/s.tar.json", b"{}")  # as if something had been published
    kept = open_identity_root(KeyStore(str(config.keys)), "faces", keyring.recipient_key)
    assert kept.same_as(IdentityRoot.load(root))
    for place in (Path(config.dst), Path(str(config.keys)), Path(config.audit)):
        for file in place.rglob("*"):
            assert not file.is_file() or root.read_bytes() not in file.read_bytes()
    IdentityRoot.generate().save(tmp_path / "other")
    other = config_for(src, transform=METHOD, pseudonym={"source": "folder", "root": str(tmp_path / "other")})
    with pytest.raises(MisuseError, match="other settings"), open_job(other):
        pass
    with open_job(config) as job:
        assert job.digest == digest != config_for(src, transform=METHOD).digest()


def test_what_cannot_be_kept_is_refused_before_a_face_is_touched(
    src: Path, root: Path, tmp_path: Path, config_for: Callable[..., JobConfig]
) -> None:
    def opened(**pseudonym: Any) -> None:
        with open_job(config_for(src, transform=METHOD, pseudonym={"source": "folder", "root": str(root)} | pseudonym)):
            pass

    with pytest.raises(MisuseError, match="needs both"):
        config_for(src, transform=METHOD, pseudonym={"source": "folder"})
    with pytest.raises(MisuseError, match="synthetic face"):
        config_for(src, pseudonym={"source": "folder", "root": str(root)})
    with pytest.raises(MisuseError, match="keys identity-root"):
        opened(root=str(tmp_path / "nothing"))
    IdentityRoot.generate().save(src / "root")
    with pytest.raises(MisuseError, match="lies in SRC"):
        opened(root=str(src / "root"))
    (src / "root").unlink()
    (tmp_path / "m.csv").write_text("a,b\n")
    with pytest.raises(MisuseError, match="no columns"):
        opened(source=str(tmp_path / "m.csv"))
    os.chmod(root, 0o644)
    with pytest.raises(MisuseError, match="others may read"):
        opened()
