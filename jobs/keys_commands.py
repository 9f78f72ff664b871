"""`diffpriv keys`: make, list, rotate, destroy, split and join keys. The work is done in `keys/`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import OUTPUT, print_table
from jobs.passphrases import PassphraseFile, passphrase
from keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(help="Recipients, custodians and the keys of faces.", no_args_is_help=True)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys go; must not hold any yet.")],
    custodians: Annotated[int, typer.Option(min=1, max=64, help="People who may approve a recovery.")] = 3,
    quorum: Annotated[int, typer.Option(min=1, max=64, help="Approvals that a recovery takes.")] = 2,
    log_name: Annotated[str, typer.Option(help="The audit log's name, in its checkpoints for ever.")] = "diffpriv.local/audit",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make recipient, custodian, requester and log keys for trying it out.

    One passphrase locks them all; in real use every person makes their own on a machine of their own. The log's signing key has
    no passphrase, so that a nightly job can use it: its file's mode guards it.
    """
    from keys.init import init_keys

    secret = passphrase(passphrase_file, "the new keys", new=True)
    names = [f"custodian-{number}" for number in range(1, custodians + 1)]
    try:
        made = init_keys(folder, secret, custodians=names, quorum=quorum, log_name=log_name)
    except OSError as error:
        raise MisuseError(f"{folder} can't be written: {error.strerror or error}.") from error
    rows = [
        (made.recipient, "public: keys of faces are locked to it; give it to the job"),
        (made.recipient_key, "private, passphrase: opens the keys of faces; keep it away from the job"),
        (made.log_key, "private, file mode 0600: signs the audit log; the job needs it"),
        (made.log_vkey, "public: checks the audit log; give it to auditors"),
        (made.policy, f"public: who may ask and approve; {quorum} of {custodians} must approve"),
        *((path, "private, passphrase: approves recoveries") for path in made.custodians.values()),
        *((path, "private, passphrase: asks for recoveries") for path in made.requesters.values()),
    ]

    def show(console: "Console") -> None:
        print_table(console, f"Keys in {folder}", ["file", "what it is"], rows)
        console.print(
            f"Next: diffpriv sanitize SRC DST --keys URL --audit URL --log-key {made.log_key} --recipient {made.recipient}",
            markup=False,
        )

    OUTPUT.result({"folder": str(folder), "files": [{"file": str(path), "what": what} for path, what in rows]}, show)


@app.command("list")
def list_keys(
    places: Annotated[
        list[str], typer.Argument(metavar="PLACE...", help="Folders of key files as keys init makes them, or key store URLs.")
    ],
) -> None:
    """List keys in folders, or the key files of a key store: what is sealed to whom. Needs no passphrase."""
    people: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    for place in places:
        people += _public_halves(Path(place)) if os.path.isdir(place) else []
        shards += _key_files(place)
    if not people and not shards:
        raise MisuseError(f"there are no keys in {', '.join(places)}.")

    def show(console: "Console") -> None:
        if people:
            rows = [(one["file"], one["kind"], one["name"], one["fingerprint"]) for one in people]
            print_table(console, "Keys", ["file", "kind", "name", "fingerprint"], rows)
        if shards:
            files = [
                (one["dataset"], one["shard"], one["faces"], one["shredded"], " ".join(f"{to[:8]}…" for to in one["sealed_to"]))
                for one in shards
            ]
            columns = ["dataset", "shard", "faces", "shredded", "sealed to"]
            print_table(console, "Key files", columns, files, right=["faces", "shredded"])

    OUTPUT.result({"keys": people, "key_files": shards}, show)


def _public_halves(folder: Path) -> list[dict[str, Any]]:
    import json

    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix not in (".json", ".key") or not file.is_file():
            continue
        try:
            body = json.loads(file.read_bytes())
            if body["format"] == "diffpriv private key":
                public, kind = body["public"], f"{body['kind']} (private)"
            elif body["format"] in ("diffpriv recipient", "diffpriv custodian"):
                public, kind = body, body["format"].removeprefix("diffpriv ")
            else:
                continue
            name = public.get("name") or str(public.get("vkey", "")).partition("+")[0]
            found.append({"file": str(file), "kind": kind, "name": name, "fingerprint": public["fingerprint"]})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not one of ours
    return found


def _key_files(url: str) -> list[dict[str, Any]]:
    from keys.keyfile import KeyFile
    from keys.store import KeyStore

    store = KeyStore(url)
    found = []
    for dataset, shard in store.list():
        file = KeyFile.parse(store.get(dataset, shard), dataset=dataset, shard=shard)
        found.append(
            {
                "dataset": dataset,
                "shard": shard,
                "faces": len(file),
                "shredded": len(file.shredded()),
                "sealed_to": file.sealed_to,
            }
        )
    return found
