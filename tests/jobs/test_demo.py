"""`diffpriv demo` with a baseline in the model's place: the same path, in seconds."""

from pathlib import Path

from PIL import Image

from tests.jobs.conftest import Program


def test_the_demo_goes_through_everything_and_adds_up(program: Program, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = program("--json", "demo", "--out", out, "--faces", 0, "--transform", "blur").json()
    assert done["ok"]
    counts = done["counts"]
    assert counts["samples_in"] == 4 == counts["samples_out"] + counts["samples_quarantined"]
    assert counts["faces"] == 7 == counts["faces_recoverable"]
    assert done["audit"]["problems"] == []
    assert done["recovered"]["faces"][0]["bit_exact"]
    assert done["psnr_recovered"] == "identical"
    with Image.open(done["contact_sheet"]) as sheet:
        assert sheet.format == "PNG"
