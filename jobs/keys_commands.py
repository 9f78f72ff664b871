"""`diffpriv keys`: make, list, rotate, destroy, split and join keys. The work is done in `keys/`."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.output import OUTPUT, print_table
from jobs.passphrases import PassphraseFile, Pkcs11Module, passphrase
from keys.errors import MisuseError

if TYPE_CHECKING:
    from rich.console import Console

    from keys.shredding import Selection

KeysUrl = Annotated[str, typer.Option(help="Key store.")]

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
    from keys.listing import list_key_files
    from keys.store import KeyStore

    return [
        {
            "dataset": one.dataset,
            "shard": one.shard,
            "faces": one.faces,
            "shredded": one.shredded,
            "sealed_to": list(one.recipients),
        }
        for one in list_key_files(KeyStore(url))
    ]


@app.command()
def recipient(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The recipient's new public file.")],
    name: Annotated[str, typer.Option(help="A name for people.")] = "recipient",
    aws_kms: Annotated[str | None, typer.Option(help="KMS key that keeps the private half: id, alias or ARN.")] = None,
    token: Annotated[str | None, typer.Option(help="PKCS#11 token that keeps the private half.")] = None,
    label: Annotated[str | None, typer.Option(help="The key's label on the token.")] = None,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a recipient whose private half is in a passphrase file beside OUT (.key), in AWS KMS, or on a token."""
    from keys.recipients import RecipientKey

    if out.exists():
        raise MisuseError(f"{out} exists; keys are never overwritten.", advice="Give another name.")
    if aws_kms:
        from keys.aws_kms import kms_recipient

        made = kms_recipient(aws_kms, name=name)
    elif token:
        from keys.pkcs11 import token_recipient

        if pkcs11_module is None or label is None:
            raise MisuseError("a key on a token needs --pkcs11-module and --label.")
        made = token_recipient(str(pkcs11_module), token, label, passphrase(passphrase_file, f"the PIN of {token}"), name=name)
    else:
        key = RecipientKey(os.urandom(32), name)
        key.save(out.with_suffix(".key"), passphrase(passphrase_file, "the new key", new=True))
        made = key.recipient
    with _writing(out):
        made.save(out)
    document = {"recipient": str(out), "fingerprint": made.fingerprint, "kind": made.kind, "locator": made.locator}
    OUTPUT.result(document, lambda console: console.print(f"recipient  {out}  {made.fingerprint}", markup=False))


@app.command("identity-root")
def identity_root(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="The new secret file; keep it apart from the data.")],
    from_store: Annotated[str | None, typer.Option(help="Bring back the one that a job left in this key store.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Whose root to bring back.")] = None,
    recipient_key: Annotated[Path | None, typer.Option(help="Private key of a recipient it is locked to.")] = None,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make the secret that a release's pseudonyms per identity are drawn from. Whoever has it can tell whose they are."""
    from jobs.places import unwrapper
    from keys.identity import IdentityRoot, open_identity_root
    from keys.store import KeyStore

    if from_store is not None:
        if dataset is None or recipient_key is None:
            raise MisuseError("to bring an identity root back, give --dataset and --recipient-key too.")
        root = open_identity_root(KeyStore(from_store), dataset, unwrapper(recipient_key, passphrase_file, pkcs11_module))
    else:
        root = IdentityRoot.generate()
    with _writing(out):
        root.save(out)
    OUTPUT.result(
        {"file": str(out), "id": root.id}, lambda console: console.print(f"identity root  {out}  {root.id}", markup=False)
    )


@app.command()
def rotate(
    keys: KeysUrl,
    audit: Annotated[str, typer.Option(help="Audit log.")],
    log_key: Annotated[Path, typer.Option(help="Key that signs the audit log.")],
    add: Annotated[list[Path] | None, typer.Option(help="Recipient file to add. Repeatable.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Recipient to remove: its file or fingerprint. Repeatable.")] = None,
    recipient_key: Annotated[Path | None, typer.Option(help="Private key of a present recipient; needed to add one.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset.")] = None,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Add or remove recipients by rewrapping shard keys; data and face records stay. Can be run again after an interruption."""
    from jobs.places import unwrapper, writable_log
    from keys.recipients import Recipient
    from keys.rotation import rotate as rewrap
    from keys.store import KeyStore

    report = rewrap(
        KeyStore(keys),
        writable_log(audit, log_key, passphrase_file),
        now=int(time.time()),
        add=[Recipient.load(path) for path in add or []],
        remove=[Recipient.load(one).fingerprint if os.path.exists(one) else one for one in remove or []],
        recipient_key=unwrapper(recipient_key, passphrase_file, pkcs11_module) if recipient_key else None,
        dataset=dataset,
    )
    text = f"{len(report.rewrapped)} key files rewrapped, {len(report.unchanged)} had these recipients already"
    document = {"rewrapped": [list(one) for one in report.rewrapped], "unchanged": [list(one) for one in report.unchanged]}
    OUTPUT.result(document, lambda console: console.print(text))


@app.command()
def shred(
    keys: KeysUrl,
    audit: Annotated[str, typer.Option(help="Audit log.")],
    log_key: Annotated[Path, typer.Option(help="Key that signs the audit log.")],
    receipt: Annotated[Path, typer.Option(help="New file for the signed receipt, which names what went: keep it private.")],
    dataset: Annotated[str | None, typer.Option(help="Dataset; alone, all of it goes.")] = None,
    shard: Annotated[str | None, typer.Option(help="Only this shard.")] = None,
    sample: Annotated[str | None, typer.Option(help="Only this sample.")] = None,
    face: Annotated[int | None, typer.Option(min=0, help="Only this face of the sample.")] = None,
    person: Annotated[str | None, typer.Option(help="Everything of this person, by --mapping.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="CSV: person, dataset, shard, sample, face.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Destroy the sealed records of a face, a sample, a person or a dataset, for good. The log proves it and names nobody."""
    from jobs.places import writable_log
    from keys.shredding import shred as destroy
    from keys.store import KeyStore

    selections, scope = _selected(dataset, shard, sample, face, person, mapping)
    if receipt.exists():
        raise MisuseError(f"{receipt} exists.", advice="Give another name.")
    if not yes:
        if not sys.stdin.isatty():
            raise MisuseError("shredding can't be undone, and there is no terminal to ask at.", advice="Give --yes.")
        typer.confirm(f"Destroy the records of {len(selections)} selection(s), for good?", abort=True, err=True)
    report = destroy(
        KeyStore(keys), writable_log(audit, log_key, passphrase_file), selections, scope=scope, now=int(time.time())
    )
    if report.receipt is not None:
        with _writing(receipt), open(os.open(receipt, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(report.receipt)
    document = {"destroyed": len(report.destroyed), "destroyed_before": len(report.already)}
    text = f"{len(report.destroyed)} records destroyed, {len(report.already)} were gone before"
    OUTPUT.result(document | {"receipt": str(receipt) if report.receipt else None}, lambda console: console.print(text))


@app.command()
def split(
    recipient_key: Annotated[Path, typer.Argument(metavar="KEY", help="The recipient's private key file.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the shares.")],
    shares: Annotated[int, typer.Option(min=2, max=16, help="How many shares.")] = 5,
    threshold: Annotated[int, typer.Option(min=2, max=16, help="How many open.")] = 3,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Split a recovery key into word lists, any THRESHOLD of which make it again. Then destroy the key file: it opens alone."""
    from jobs.places import recipient_key_file
    from keys.splitting import split as make_shares

    made = make_shares(recipient_key_file(recipient_key, passphrase_file), threshold, shares)
    with _writing(out):
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = [out / f"share-{share.number:02d}.txt" for share in made]
    for share, path in zip(made, paths, strict=True):
        share.save(path)
    text = f"{len(made)} shares in {out}, any {threshold} open. Give each to another person, then destroy {recipient_key}."
    OUTPUT.result({"shares": [str(path) for path in paths]}, lambda console: console.print(text, markup=False))


@app.command()
def join(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The private key's new file.")],
    share: Annotated[list[Path], typer.Argument(metavar="SHARE...", help="Enough share files.")],
    recipient: Annotated[Path | None, typer.Option(help="The public file that the key must fit.")] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a private key file again from enough shares."""
    from keys.recipients import Recipient
    from keys.splitting import join as combine
    from keys.splitting import read_share

    key = combine([read_share(path) for path in share], Recipient.load(recipient) if recipient else None)
    key.save(out, passphrase(passphrase_file, "the joined key", new=True))
    document = {"key": str(out), "fingerprint": key.fingerprint}
    OUTPUT.result(document, lambda console: console.print(f"key  {out}  {key.fingerprint}", markup=False))


def _selected(
    dataset: str | None, shard: str | None, sample: str | None, face: int | None, person: str | None, mapping: Path | None
) -> "tuple[list[Selection], str]":
    """What to shred, and what to call it in the log. A narrower option without the wider one is a mistake, not a wider wish."""
    from keys.shredding import Selection, person_selections

    if person is not None:
        if mapping is None or dataset is not None:
            raise MisuseError("--person goes with --mapping FILE, and with nothing else.")
        return person_selections(mapping, person), "person"
    if dataset is None or (face is not None and sample is None) or (sample is not None and shard is None):
        raise MisuseError("name what to shred: --dataset, then --shard, --sample and --face, or --person with --mapping.")
    if shard is not None and sample is None:
        raise MisuseError("a shard as a whole can't be shredded; name a --sample of it, or the dataset alone.")
    return [Selection(dataset, shard, sample, face)], "face" if face is not None else "sample" if sample else "dataset"


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MisuseError(f"{path} can't be written: {error.strerror or error}.") from error
