"""Every example in examples/ is run, inside the pipeline that it shows; each face it publishes can be opened again."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.segments import AuditSegments
from diffpriv.keys.audit.verify import verify_log
from diffpriv.keys.keyfile import KeyFile
from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.destination.commit import segment_id
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.rows.protector import Protector, key_file, protect_image
from tests.pipelines.conftest import Keyring
from tests.pipelines.datasets import astronaut, coffee, encoded, group

FILL = {"transform": {"transform": "fill", "recovery": "exact"}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures with faces, one without, one that is cut short, one without a licence."""
    one, six, nobody = encoded(astronaut(256), "PNG"), encoded(group(), "JPEG"), encoded(coffee(), "JPEG")
    table = pa.table(
        {
            "name": ["one", "six", "nobody", "cut", "unlicensed"],
            "image": pa.array([one, six, nobody, six[:2000], one], pa.binary()),
            "licence": ["CC0", "CC0", "CC0", "CC0", None],
        }
    )
    path = tmp_path_factory.mktemp("photos") / "photos.parquet"
    pq.write_table(table, path)
    return path


def check_rows(rows: list[dict[str, Any]], photos: Path) -> None:
    originals = {row["name"]: row["image"] for row in pq.read_table(photos).to_pylist()}
    assert {row["name"]: row["faces"] for row in rows} == {"one": 1, "six": 6, "nobody": 0}
    for row in rows:
        assert (row["image"] == originals[row["name"]]) == (row["name"] == "nobody")


def check_sink(keys: Path, audit: Path, keyring: Keyring) -> None:
    """Seven faces with an openable record each, and a log that fits."""
    store = KeyStore(keys)
    opened = 0
    for dataset, shard in store.list():
        file = KeyFile.parse(store.get(dataset, shard), dataset=dataset, shard=shard)
        for sample, index in file.faces():
            assert file.open_face(sample, index, keyring.recipient_key).payload
            opened += 1
    assert opened == 7
    log = AuditLog(audit, keyring.log_key)
    segments = AuditSegments(f"{audit}/segments")
    log.integrate(segments, segments.list())
    assert verify_log(log, key_store=store).ok


def test_ray_data_example(ray_session: None, photos: Path, tmp_path: Path, keyring: Keyring) -> None:
    from examples.ray_data import main

    main(
        str(photos),
        str(tmp_path / "out"),
        str(tmp_path / "keys"),
        str(tmp_path / "audit"),
        str(keyring.files.recipient),
        **FILL,
    )
    check_rows(pq.read_table(tmp_path / "out").to_pylist(), photos)
    check_sink(tmp_path / "keys", tmp_path / "audit", keyring)


def test_beam_example(photos: Path, tmp_path: Path, keyring: Keyring) -> None:
    from examples.beam_pipeline import main

    out = tmp_path / "out" / "part"
    out.parent.mkdir()
    main(str(photos), str(out), str(tmp_path / "keys"), str(tmp_path / "audit"), str(keyring.files.recipient), **FILL)
    check_rows(pq.read_table(out.parent).to_pylist(), photos)
    check_sink(tmp_path / "keys", tmp_path / "audit", keyring)


def test_one_image_example(tmp_path: Path, keyring: Keyring, capsys: pytest.CaptureFixture[str]) -> None:
    from examples.one_image import main

    picture, out = tmp_path / "a.png", tmp_path / "b.png"
    picture.write_bytes(encoded(astronaut(256), "PNG"))
    main(str(picture), str(out), str(keyring.files.recipient), **FILL)
    assert capsys.readouterr().out == "face 0: protected \n"
    assert (np.asarray(Image.open(out)) == 128).mean() > 0.05
    ((place, data),) = key_file([{"diffpriv_sealed": (tmp_path / "b.png.sealed").read_bytes()}]).items()
    assert KeyFile.parse(data, dataset=place[0], shard=place[1]).open_face(str(picture), 0, keyring.recipient_key).payload
    (tmp_path / "c.png").write_bytes(picture.read_bytes()[:999])
    with pytest.raises(SystemExit, match="cannot be published"):
        main(str(tmp_path / "c.png"), str(out), str(keyring.files.recipient), **FILL)


def test_hugging_face_example(
    photos: Path,
    tmp_path: Path,
    keyring: Keyring,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    from examples.hugging_face import main

    out = tmp_path / "out.parquet"
    main(str(photos), str(out), str(tmp_path / "keys"), str(keyring.files.recipient), **FILL)
    rows = pq.read_table(out).to_pylist()
    assert {row["name"]: len(json.loads(row["diffpriv_faces"])) for row in rows} == {
        "one": 1,
        "six": 6,
        "nobody": 0,
        "unlicensed": 1,
    }
    store = KeyStore(tmp_path / "keys")
    files = [KeyFile.parse(store.get(*place), dataset=place[0], shard=place[1]) for place in store.list()]
    assert sum(len(list(file.faces())) for file in files) == 8


def test_a_protector_needs_both_stores_or_none_and_a_name() -> None:
    with pytest.raises(MisuseError, match="both"):
        Protector(dataset="d", keys="somewhere")
    with pytest.raises(MisuseError, match="dataset"):
        protect_image(b"", recipients=[])


KILLED = """
import json, sys
from pathlib import Path
from diffpriv.pipelines.rows.protector import Protector
settings, picture, out = json.loads(sys.argv[1]), Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])
protector = Protector(**settings)
while True:
    (row,) = protector.rows([{"name": "a", "image": picture}])
    with out.open("a") as handle:
        handle.write(row["diffpriv_shard"] + "\\n")
"""


def test_a_kill_in_the_middle_leaves_no_protected_row_without_its_record(
    tmp_path: Path,
    keyring: Keyring,
) -> None:
    """Rows are handed on as fast as they come, and the process is killed at some moment of it."""
    picture, out = tmp_path / "a.png", tmp_path / "rows"
    picture.write_bytes(encoded(astronaut(128)[:120, :120], "PNG"))
    settings: dict[str, Any] = {
        "dataset": "photos",
        "keys": str(tmp_path / "keys"),
        "audit": str(tmp_path / "audit"),
        "key": "name",
    }
    settings |= {"recipients": [str(keyring.files.recipient)], "aligned": True, **FILL}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen([sys.executable, "-c", KILLED, json.dumps(settings), picture, out], env=environment)
    give_up = time.monotonic() + 60
    while process.poll() is None and (not out.exists() or out.read_text().count("\n") < 20) and time.monotonic() < give_up:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    store, segments = KeyStore(tmp_path / "keys"), AuditSegments(f"{tmp_path}/audit/segments")
    handed_on = out.read_text().splitlines()
    assert len(handed_on) >= 20
    for shard in handed_on:
        data = store.get("photos", shard)
        assert KeyFile.parse(data, dataset="photos", shard=shard).open_face("a", 0, keyring.recipient_key).payload
        (event,) = segments.get(segment_id("photos", shard)).events()
        assert event.facts["key_file_sha256"] == hashlib.sha256(data).hexdigest()


RAY_KILLED = """
import json, sys
import ray
from examples.ray_data import main
ray.init(address="local", num_cpus=4, include_dashboard=False, logging_level="ERROR")
ray.data.DataContext.get_current().target_max_block_size = 100_000
main(*sys.argv[1:6], **json.loads(sys.argv[6]))
"""


def test_a_killed_ray_pipeline_leaves_no_written_row_without_its_record(tmp_path: Path, keyring: Keyring) -> None:
    """Maps before and after, rows written out block by block, and the driver with all its workers killed in the middle."""
    picture = encoded(astronaut(160), "PNG")
    names = [f"{index:03d}" for index in range(400)]
    table = pa.table({"name": names, "image": pa.array([picture] * len(names), pa.binary()), "licence": ["CC0"] * len(names)})
    photos, out, keys, audit = (tmp_path / name for name in ("photos.parquet", "out", "keys", "audit"))
    pq.write_table(table, photos, row_group_size=8)
    arguments = [str(photos), str(out), str(keys), str(audit), str(keyring.files.recipient), json.dumps(FILL)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen([sys.executable, "-c", RAY_KILLED, *arguments], env=environment, start_new_session=True)
    give_up = time.monotonic() + 400
    while process.poll() is None and len(list(out.glob("*.parquet"))) < 2 and time.monotonic() < give_up:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    rows: list[dict[str, Any]] = []
    for path in out.glob("*.parquet"):
        with contextlib.suppress(pa.ArrowInvalid):  # the file that was being written
            rows += pq.read_table(path).to_pylist()
    assert rows
    store, segments = KeyStore(keys), AuditSegments(f"{audit}/segments")
    for row in rows:
        assert row["faces"] == 1
        shard = row["diffpriv_shard"]
        data = store.get("photos", shard)
        assert KeyFile.parse(data, dataset="photos", shard=shard).open_face(row["name"], 0, keyring.recipient_key).payload
        (event,) = segments.get(segment_id("photos", shard)).events()
        assert event.facts["key_file_sha256"] == hashlib.sha256(data).hexdigest()
