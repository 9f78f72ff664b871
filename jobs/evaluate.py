"""`diffpriv evaluate`: attack a protected dataset, measure what it is good for, and write a report people can look at."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffpriv.jobs.options import flattened
from diffpriv.jobs.output import OUTPUT, print_table
from diffpriv.keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.pipelines.evaluation.faces import EvaluatedFaces
    from diffpriv.pipelines.evaluation.settings import EvaluationSettings


@dataclass(frozen=True)
class EvaluationOptions:
    """What is looked at, by whom, and against what it is compared."""

    sample: Annotated[int, typer.Option(min=0, help="Pictures looked at, people kept together; 0 is all.")] = 500
    identity: Annotated[
        str, typer.Option(help='Who is who: folder (the folder a sample lies in), a field, a MANIFEST.csv, or "".')
    ] = "folder"
    group: Annotated[str, typer.Option(help="Column of the manifest, or field, by which figures are given again.")] = ""
    attribute: Annotated[
        list[str] | None, typer.Option(help="Column or field that the downstream test learns too. Repeatable.")
    ] = None
    judge: Annotated[
        list[str] | None,
        typer.Option(
            help="dlib, human:FOLDER, insightface:FOLDER, a folder, or builtin. Repeatable; default dlib if installed."
        ),
    ] = None
    baselines: Annotated[
        str, typer.Option(help='Made from the originals for comparison: blur, mosaic, fill, or "" for none.')
    ] = "blur,mosaic,fill"
    attacker_minutes: Annotated[float, typer.Option(min=0, help="CPU minutes that trained attackers share; 0 is none.")] = 3.0
    recovery_faces: Annotated[
        int, typer.Option(min=0, help="Originals that the self-test protects and recovers in memory; 0 is none.")
    ] = 8
    task: Annotated[str, typer.Option(help="Of the self-test: anonymize or hide.")] = "anonymize"
    preset: Annotated[str, typer.Option(help="Of the self-test: quality, fast or paper.")] = "fast"
    model: Annotated[str, typer.Option(help="Of the self-test: builtin or a folder.")] = "builtin"
    detector: Annotated[str, typer.Option(help="centerface or insightface:FOLDER.")] = "centerface"
    format: Annotated[str, typer.Option(help="auto, webdataset, parquet or folder.")] = "auto"
    seed: Annotated[int, typer.Option(min=0, help="Of the sample, the split of people, the attackers and the intervals.")] = 0

    def settings(self) -> "EvaluationSettings":
        """Raises: MisuseError for a baseline that nobody knows."""
        from diffpriv.pipelines.evaluation.settings import BASELINES, EvaluationSettings

        chosen = tuple(one for one in self.baselines.split(",") if one)
        if unknown := set(chosen) - set(BASELINES):
            raise MisuseError(f"--baselines {', '.join(sorted(unknown))}.", advice=f"Choose from {', '.join(BASELINES)}.")
        return EvaluationSettings(
            sample=self.sample,
            identity=self.identity,
            group=self.group,
            attributes=tuple(self.attribute or ()),
            judges=tuple(dict.fromkeys(self.judge or ())),
            baselines=chosen,
            attacker_minutes=self.attacker_minutes,
            recovery_faces=self.recovery_faces,
            task=self.task,
            preset=self.preset,
            model=self.model,
            detector=self.detector,
            format=self.format,
            seed=self.seed,
        )


@flattened
def evaluate(
    original: Annotated[str, typer.Argument(metavar="ORIGINAL", help="The dataset before: shards, or a folder of them.")],
    protected: Annotated[str, typer.Argument(metavar="PROTECTED", help="The same dataset after.")],
    report: Annotated[str, typer.Option("--report", metavar="DIR", help="Where report.html and report.json go.")],
    options: EvaluationOptions,
    faces_csv: Annotated[Path | None, typer.Option(help="Write every face's measures to this CSV file.")] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(help="hifd=DIR: predictions and settings for hifd run-all; holds embeddings of originals."),
    ] = None,
    include_images: Annotated[
        bool, typer.Option("--include-images", help="Show faces of the dataset in the report, originals too.")
    ] = False,
) -> None:
    """Attack the output, measure its utility, and write report.html and report.json. Opens no keys."""
    from diffpriv.pipelines.evaluation.report import write_report
    from diffpriv.pipelines.evaluation.run import evaluate as measure

    settings, exports = options.settings(), [_export(one) for one in export or []]
    document, faces = measure(original, protected, settings, OUTPUT.note)
    if faces_csv is not None or exports:
        _write_exports(settings.judges, faces, faces_csv, exports)
    page, data = write_report(report, document, faces if include_images else None)
    OUTPUT.result({**document, "report": str(page)}, lambda console: show(console, document, page, data))


def _export(text: str) -> Path:
    kind, equals, folder = text.partition("=")
    if kind != "hifd" or not equals or not folder:
        raise MisuseError(f"--export {text!r} names no export.", advice="Write it as hifd=DIR.")
    return Path(folder)


def _write_exports(judges: tuple[str, ...], faces: "EvaluatedFaces", table: Path | None, folders: list[Path]) -> None:
    from diffpriv.pipelines.evaluation.export import write_faces, write_hifd
    from diffpriv.pipelines.evaluation.judges import default_judges, load_judge
    from diffpriv.pipelines.evaluation.privacy import Embeddings

    embedded = {one.name: Embeddings(one, faces) for one in (load_judge(spec, set()) for spec in judges or default_judges())}
    if table is not None:
        write_faces(table, faces, embedded)
    for folder in folders:
        write_hifd(folder, faces, embedded)


def show(console: "Console", document: dict[str, Any], page: Path, data: Path) -> None:
    """The verdict, and privacy beside utility."""
    from diffpriv.pipelines.evaluation.report import named, percent

    for sentence in document["verdict"]["sentences"]:
        console.print(sentence, markup=False)
    trained = document["adaptive"].get("variants", {})
    first = next(iter(document["privacy"]))
    rows = []
    for name, used in document["utility"].items():
        naive = document["privacy"][first]["variants"][name]["tar"]["0.01"]
        adaptive = trained[name]["tar"]["0.01"] if name in trained else {}
        rows.append(
            (
                named(name),
                percent(naive["naive own photo"]),
                percent(naive["naive other photo"]),
                percent(adaptive.get("own photo")),
                percent(adaptive.get("other photo")),
                percent(used["detection rate"]),
                percent(used["landmarks near"]),
                percent(used["downstream"]["kept"]),
            )
        )
    columns = ["", f"own ({first})", "other", "trained: own", "trained: other", "face found", "landmarks", "learned"]
    title = "TAR at FAR 1 % against own original and other photos; utility; all in %"
    print_table(console, title, columns, rows, right=columns[1:])
    console.print(f"report  {page}\ndata    {data}", markup=False)
