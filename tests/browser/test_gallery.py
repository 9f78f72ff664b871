"""The gallery in a browser: it opens at a desk's and a phone's width, is used by keys alone, and its decisions are a job's."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.engines.beam_driver import run
from diffpriv.pipelines.records.samples import Picture, Sample
from diffpriv.pipelines.review.build import PageSettings, gallery_page, published_page, review_page
from diffpriv.pipelines.review.entries import PROTECTED, FaceEntry
from diffpriv.pipelines.review.looking import SamplePair, thumbnail
from diffpriv.pipelines.review.page import PageFacts, page_data, render
from tests.browser.conftest import fits, screenshot, serious_faults
from tests.pipelines.conftest import Keyring, make_config
from tests.pipelines.datasets import astronaut, encoded, gradient, group, sample, write_shards

SETTINGS = PageSettings(lowest=0.3, near_limit=0.4, similarity_limit=0.5)
HOSTILE = "000/</script><img src=x onerror=document.title='taken'>"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, keyring: Keyring) -> JobConfig:
    """Two shards: a name that would be a script, six people, and the same six again."""
    base = tmp_path_factory.mktemp("gallery")
    six = encoded(group(), "PNG")
    shards = {
        "shard-000.tar": sample(HOSTILE, 0, encoded(astronaut(256), "PNG"), "png") + sample("000/b", 1, six, "png"),
        "shard-001.tar": [("001/a.png", six)],
    }
    src = write_shards(base / "src", shards)
    settings = {"transform": {"transform": "blur", "recovery": "none"}, "faces_table": True, "rules": {"consent": "label=0"}}
    made = make_config(base, keyring, src, **settings)
    run(made)
    return made


@pytest.fixture(scope="module")
def page_file(job: JobConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "gallery.html"
    path.write_text(render(gallery_page(job.dst, job.src, SETTINGS)))
    return path


@pytest.mark.parametrize("width", [1280, 400])
def test_the_gallery_opens_without_a_message_or_a_fault(page_file: Path, open_page: Callable[..., Any], width: int) -> None:
    page = open_page(page_file.as_uri(), width)
    assert page.locator(".card").count() > 6
    assert fits(page)
    assert serious_faults(page) == []
    page.locator(".card").first.click()
    assert page.locator("#viewer").is_visible()
    assert fits(page)
    assert serious_faults(page) == []
    screenshot(page, f"gallery-{width}")
    assert page.title() != "taken", "a name of the dataset must not become markup"


def test_a_face_is_judged_by_keys_alone_and_the_saved_file_is_a_jobs(
    page_file: Path, open_page: Callable[..., Any], job: JobConfig, tmp_path: Path
) -> None:
    page = open_page(page_file.as_uri())
    page.locator(".card").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    second = page.locator("#name").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#name").inner_text() != second
    page.keyboard.press("ArrowLeft")
    before = page.evaluate("document.getElementById('slider').value")
    page.locator("#details").click()
    page.keyboard.press(" ")
    assert page.evaluate("document.getElementById('slider').value") != before
    page.keyboard.press("1")
    assert page.locator("#decided").inner_text() == "1 decision about 1 shard"
    page.keyboard.press("Escape")
    assert page.locator("[data-decided]").count() == 1
    page.locator("#save").focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    file = tmp_path / "decisions.json"
    download.value.save_as(file)
    (shard,) = json.loads(file.read_text())["shards"]
    report = run(job.model_copy(update={"decisions": str(file)}))
    assert (report.shards_done, report.shards_done_before) == (1, 1)
    assert f"failed: {shard}" not in dict(report.rows())
    page.locator("#load").set_input_files(file)
    assert page.locator("#decided").inner_text() == "1 decision about 1 shard", "a saved file can be gone on with"


def test_filters_orders_and_tabs_show_what_they_name(page_file: Path, open_page: Callable[..., Any]) -> None:
    page = open_page(page_file.as_uri())
    whole = page.locator(".card").count()
    page.locator("select[name=size]").select_option("0-48")
    assert 0 < page.locator(".card").count() < whole
    page.locator("select[name=size]").select_option("")
    page.locator("input[name=name]").fill("001/a")
    assert 0 < page.locator(".card").count() < whole
    page.locator("input[name=name]").fill("")
    page.locator("select[name=order]").select_option("size")
    widths = page.evaluate("shown.map(size)")
    assert widths == sorted(widths)
    for tab in page.locator("[role=tab]").all():
        tab.click()
        name, _, count = tab.inner_text().rpartition(" ")
        assert page.locator(".card").count() == int(count), name


def test_a_page_to_share_holds_no_original_and_no_state(job: JobConfig, open_page: Callable[..., Any], tmp_path: Path) -> None:
    document = published_page(job.dst, SETTINGS)
    assert document["entries"]
    for entry in document["entries"]:
        assert entry["before"] == ""
        assert set(entry) == {"shard", "sample", "field", "kind", "box", "before", "after", "frame", "picture"}
    assert all(picture["before"] == "" for picture in document["pictures"])
    path = tmp_path / "shared.html"
    path.write_text(render(document))
    page = open_page(path.as_uri())
    page.locator(".card").first.click()
    assert not page.locator("#slider").is_visible()
    assert not page.get_by_text("Save decisions").is_visible()
    assert serious_faults(page) == []


def test_review_is_the_same_page_opened_where_somebody_must_look(
    job: JobConfig, open_page: Callable[..., Any], tmp_path: Path
) -> None:
    document = review_page(job.dst, job.src, SETTINGS)
    assert document["entries"]
    assert all(entry["uncertain"] or entry["kind"] != PROTECTED for entry in document["entries"])
    path = tmp_path / "review.html"
    path.write_text(render(document))
    page = open_page(path.as_uri())
    assert page.locator("[role=tab][aria-selected=true]").get_attribute("data-tab") != "all"
    assert serious_faults(page) == []


def test_a_page_of_five_thousand_faces_keeps_its_size_and_is_paged(open_page: Callable[..., Any], tmp_path: Path) -> None:
    """The bytes of small pictures are shared out, so that the page's size does not grow with the number of faces."""
    number, data = 5000, encoded(gradient(3, 64), "PNG")
    faces = [FaceEntry("s.tar", f"{one:05d}", "png", 0, PROTECTED, (8.0, 8.0, 50.0, 50.0), 0.9, 0.1) for one in range(number)]

    def pairs() -> Iterator[SamplePair]:
        for one in range(number):
            before = Sample("s.tar", one, f"{one:05d}", (Picture("png", data),))
            yield SamplePair("s.tar", before.key, before, before)

    text = render(page_data(PageFacts("many", "gallery", "many", number, number, number), faces, pairs()))
    assert len(text) < 30e6
    path = tmp_path / "many.html"
    path.write_text(text)
    page = open_page(path.as_uri())
    assert page.locator(".card").count() == 60
    page.keyboard.press("n")
    assert page.locator("#page").inner_text() == f"Page 2 of {-(-number // 60)}"


def test_thumbnails_never_take_more_bytes_than_their_share() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (700, 500, 3), dtype=np.uint8)
    for most in (300, 2_000, 20_000):
        assert 0 < len(thumbnail(noise, most)) <= most
