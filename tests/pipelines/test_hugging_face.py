"""Hugging Face's Image columns: encoded ones are protected wherever their bytes are, decoded ones refused with a way out."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.rows.protector import ProtectBatch, Protector
from tests.pipelines.datasets import astronaut, coffee, encoded

SETTINGS = {"dataset": "d", "transform": {"transform": "blur", "recovery": "none"}}


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An image folder: a face, nobody, and a file that is cut short."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "photos"
    (folder / "people").mkdir(parents=True)
    (folder / "people" / "a.png").write_bytes(encoded(astronaut(256), "PNG"))
    (folder / "people" / "b.jpg").write_bytes(encoded(coffee(), "JPEG"))
    (folder / "people" / "c.jpg").write_bytes(encoded(astronaut(256), "JPEG")[:3000])
    return datasets.load_dataset("imagefolder", data_dir=str(folder), split="train")


def test_an_image_folder_is_protected_from_its_paths_and_read_again(pictures: Any, tmp_path: Path) -> None:
    from datasets import Dataset, Image

    encoded_rows = pictures.cast_column("image", Image(decode=False))
    assert encoded_rows[0]["image"]["bytes"] is None, "the rows name files and carry no bytes"
    protect = ProtectBatch(**SETTINGS, paths=tmp_path / "photos")
    done = encoded_rows.map(protect, batched=True, batch_size=2)
    assert [len(json.loads(faces)) for faces in done["diffpriv_faces"]] == [1, 0, 0]
    assert [bool(reason) for reason in done["diffpriv_reason"]] == [False, False, True]
    done.to_parquet(tmp_path / "out.parquet")
    again = Dataset.from_parquet(str(tmp_path / "out.parquet"), cache_dir=str(tmp_path / "again"))
    shown = [row["image"] for row in again.cast_column("image", Image())]
    assert [None if picture is None else picture.size for picture in shown] == [(256, 256), (240, 160), None]
    published = again.cast_column("image", Image(decode=False))[0]["image"]
    assert published["bytes"] != encoded(astronaut(256), "PNG")
    assert published["path"] is None, "a path would still lead to the original"


def test_decoded_pictures_are_refused_and_told_what_to_hand_over(pictures: Any) -> None:
    with pytest.raises(MisuseError, match="decode=False"):
        pictures.select([0, 1]).map(ProtectBatch(**SETTINGS), batched=True)
    with pytest.raises(MisuseError, match="read_binary_files"):
        Protector(**SETTINGS).rows([{"image": astronaut(64)}])


def test_rows_name_files_of_one_folder_only_and_none_by_default(tmp_path: Path) -> None:
    """Whoever writes the rows must not choose what is read here: no other folder, no link out of it, no FIFO."""
    root, secret = tmp_path / "photos", tmp_path / "photos-of-others" / "a.png"
    root.mkdir()
    secret.parent.mkdir()
    for file in (root / "a.png", secret):
        file.write_bytes(encoded(coffee(), "PNG"))
    (root / "link.png").symlink_to(secret)
    (root / "alias.png").symlink_to(root / "a.png")
    os.mkfifo(root / "fifo.png")
    protector = Protector(**SETTINGS, paths=root)
    names = ["a.png", "alias.png", "gone.png", "fifo.png", "", "a\0.png", "link.png", "../photos-of-others/a.png", str(secret)]
    rows = protector.rows([{"image": {"bytes": None, "path": f"{root}/{name}" if name[:1] != "/" else name}} for name in names])
    assert [row["image"] is not None for row in rows] == [True, True, *[False] * (len(names) - 2)]
    assert [row["diffpriv_reason"] for row in rows[2:6]] == ["it names a file that cannot be read"] * 4
    assert {row["diffpriv_reason"] for row in rows[6:]} == {"it names a file outside the folder given as `paths`"}
    (row,) = Protector(**SETTINGS).rows([{"image": {"bytes": None, "path": str(root / "a.png")}}])
    assert row["image"] is None
    assert "give `paths`" in row["diffpriv_reason"]
