"""`diffpriv keys`: make, list, rotate, destroy, split and join keys. The work is done in `keys/`."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffpriv.jobs import people_commands, rotation_commands
from diffpriv.jobs.output import OUTPUT, print_table
from diffpriv.jobs.passphrases import PassphraseFile, Pkcs11Module, passphrase
from diffpriv.jobs.surroundings import FILE, write_places
from diffpriv.keys.errors import MisuseError
from diffpriv.keys.json_text import parse_json

if TYPE_CHECKING:
    from rich.console import Console

    from diffpriv.keys.shredding import Selection

KeysUrl = Annotated[str, typer.Option(help="Key store.")]

app = typer.Typer(help="Recipients, custodians and the keys of faces.", no_args_is_help=True)
app.command()(people_commands.custodian)
app.command()(people_commands.policy)
app.command("signing-key")(people_commands.signing_key)
app.command()(rotation_commands.rotate)
app.command("rotate-request")(rotation_commands.rotate_request)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the keys go; must not hold any yet.")],
    custodians: Annotated[int, typer.Option(min=1, max=64, help="People who may approve a recovery.")] = 3,
    quorum: Annotated[int, typer.Option(min=1, max=64, help="Approvals that a recovery takes.")] = 2,
    log_name: Annotated[str, typer.Option(help="The audit log's name, in its checkpoints for ever.")] = "diffpriv.local/audit",
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make recipient, custodian, requester and log keys for trying it out.

    One passphrase locks them all; in real use every person makes their own on a machine of their own (keys custodian). The
    signing keys of log and releases have no passphrase, so that nightly jobs can use them: their files' modes guard them.
    """
    from diffpriv.keys.init import init_keys

    secret = passphrase(passphrase_file, "the new keys", new=True)
    names = [f"custodian-{number}" for number in range(1, custodians + 1)]
    try:
        made = init_keys(folder, secret, custodians=names, quorum=quorum, log_name=log_name)
    except OSError as error:
        raise MisuseError(f"{folder} can't be written: {error.strerror or error}.") from error
    rows = [
        (made.recipient, "public: keys of faces are locked to it; give it to the job"),
        (made.recipient_key, "private, passphrase: opens the keys of faces; keep it away from the job"),
        (made.policy, f"public: whose quorum opens; {quorum} of {custodians} must approve; give it to the job"),
        (made.log_key, "private, file mode 0600: signs the audit log; for the sequencer, nobody else"),
        (made.log_vkey, "public: checks the audit log; give it to auditors and custodians"),
        (made.release_key, "private, file mode 0600: signs release manifests; for the release gate"),
        (made.release_vkey, "public: checks release manifests; give it to those who receive releases"),
        (made.office_key, "private, passphrase: signs receipts; for the recovery office"),
        (made.office_vkey, "public: checks receipts"),
        *((path, "private, passphrase: approves recoveries") for path in made.custodians.values()),
        *((path, "private, passphrase: asks for recoveries") for path in made.requesters.values()),
    ]

    with _writing(Path(FILE)):
        places = write_places(
            Path(),
            recipient=made.recipient,
            log_key=made.log_key,
            log_vkey=made.log_vkey,
            policy=made.policy,
            office_key=made.office_key,
            release_key=made.release_key,
        )

    def show(console: "Console") -> None:
        print_table(console, f"Keys in {folder}", ["file", "what it is"], rows)
        if places:
            console.print(f"{FILE} names these places for all commands run in this folder.", markup=False)
            console.print("Next: diffpriv sanitize SRC DST", markup=False)
        else:
            given = f"--keys URL --audit URL --log-key {made.log_key} --recipient {made.recipient} --policy {made.policy}"
            console.print(f"{FILE} was there before and stays as it is.\nNext: diffpriv sanitize SRC DST {given}", markup=False)

    files = [{"file": str(path), "what": what} for path, what in rows]
    OUTPUT.result({"folder": str(folder), "files": files, "places": FILE if places else None}, show)


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
                (
                    one["dataset"],
                    one["shard"],
                    one["faces"],
                    one["shredded"],
                    " ".join(f"{to[:8]}…" for to in one["sealed_to"]),
                    f"{one['policy'][:12]}…" if one["policy"] else "NONE: a recipient opens alone",
                )
                for one in shards
            ]
            columns = ["dataset", "shard", "faces", "shredded", "sealed to", "policy"]
            print_table(console, "Key files", columns, files, right=["faces", "shredded"])

    OUTPUT.result({"keys": people, "key_files": shards}, show)


def _public_halves(folder: Path) -> list[dict[str, Any]]:

    found = []
    for file in sorted(folder.rglob("*")):
        if file.suffix not in (".json", ".key") or not file.is_file():
            continue
        try:
            body = parse_json(file.read_bytes())
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
    from diffpriv.keys.listing import list_key_files
    from diffpriv.keys.store import KeyStore

    return [
        {
            "dataset": one.dataset,
            "shard": one.shard,
            "faces": one.faces,
            "shredded": one.shredded,
            "sealed_to": list(one.recipients),
            "policy": one.policy,
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
    generate: Annotated[bool, typer.Option("--generate", help="Make the key pair on the token first.")] = False,
    pkcs11_module: Pkcs11Module = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Make a recipient whose private half is in a passphrase file beside OUT (.key), in AWS KMS, or on a token."""
    from diffpriv.keys.recipients import RecipientKey

    if out.exists():
        raise MisuseError(f"{out} exists; keys are never overwritten.", advice="Give another name.")
    if aws_kms:
        from diffpriv.keys.aws_kms import kms_recipient

        made = kms_recipient(aws_kms, name=name)
    elif token:
        from diffpriv.keys.pkcs11 import generate_token_key, token_recipient

        if pkcs11_module is None or label is None:
            raise MisuseError("a key on a token needs --pkcs11-module and --label.")
        pin = passphrase(passphrase_file, f"the PIN of {token}")
        if generate:
            generate_token_key(str(pkcs11_module), token, label, pin)
        made = token_recipient(str(pkcs11_module), token, label, pin, name=name)
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
    from diffpriv.jobs.places import unwrapper
    from diffpriv.keys.identity import IdentityRoot, open_identity_root
    from diffpriv.keys.store import KeyStore

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
    from diffpriv.jobs.places import writable_log
    from diffpriv.keys.shredding import shred as destroy
    from diffpriv.keys.store import KeyStore

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


@app.command("check-shredding")
def check_shredding(
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="The receipt that keys shred wrote.")],
    audit: Annotated[str, typer.Option(help="Audit log.")],
    log_vkey: Annotated[Path, typer.Option("--log-vkey", help="The log's public key.")],
    keys: Annotated[str | None, typer.Option(help="Key store: see that the records are gone from it.")] = None,
) -> None:
    """See that the log bears a shredding out, and that no old copy of a key file brought the records back. Exits 1 if not."""
    from diffpriv.jobs.places import open_log, read_file
    from diffpriv.keys.shredding import check_receipt
    from diffpriv.keys.store import KeyStore

    body = check_receipt(read_file(receipt), open_log(audit, log_vkey), KeyStore(keys) if keys else None)
    count = sum(len(one["faces"]) for one in body["key_files"])
    text = f"the log holds the shredding of {count} faces" + (", and none of them is in the key store" if keys else "")
    OUTPUT.result({"ok": True, "faces": count}, lambda console: console.print(text))


@app.command()
def split(
    recipient_key: Annotated[Path, typer.Argument(metavar="KEY", help="The recipient's private key file.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="New folder for the shares.")],
    shares: Annotated[int, typer.Option(min=2, max=16, help="How many shares.")] = 5,
    threshold: Annotated[int, typer.Option(min=2, max=16, help="How many open.")] = 3,
    passphrase_file: PassphraseFile = None,
) -> None:
    """Split a recovery key into word lists, any THRESHOLD of which make it again. Then destroy the key file: it opens alone."""
    from diffpriv.jobs.places import recipient_key_file
    from diffpriv.keys.splitting import split as make_shares

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
    share: Annotated[list[Path], typer.Argument(metavar="SHARE...", help="Enough share files.")],
    recipient: Annotated[Path | None, typer.Option(help="The public file that the key must fit.")] = None,
    write_whole_key: Annotated[
        Path | None, typer.Option(metavar="OUT", help="DANGER: write the joined key to a new file, which opens alone again.")
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> None:
    """See whether these shares make the key again, in memory only. A recovery takes shares itself: recover run --share.

    Writing the whole key undoes the split: whoever has that file and its passphrase needs no other holder of a share any more.
    """
    from diffpriv.keys.recipients import Recipient
    from diffpriv.keys.splitting import join as combine
    from diffpriv.keys.splitting import read_share

    key = combine([read_share(path) for path in share], Recipient.load(recipient) if recipient else None)
    if write_whole_key is not None:
        key.save(write_whole_key, passphrase(passphrase_file, "the joined key", new=True))
        text = f"key  {write_whole_key}  {key.fingerprint}\nThis file opens alone: the split protects nothing while it exists."
    else:
        text = f"the shares make the key of recipient {key.fingerprint}. Use them with: diffpriv recover run --share FILE ..."
    document = {"key": str(write_whole_key) if write_whole_key else None, "fingerprint": key.fingerprint}
    OUTPUT.result(document, lambda console: console.print(text, markup=False))


def _selected(
    dataset: str | None, shard: str | None, sample: str | None, face: int | None, person: str | None, mapping: Path | None
) -> "tuple[list[Selection], str]":
    """What to shred, and what to call it in the log. A narrower option without the wider one is a mistake, not a wider wish."""
    from diffpriv.keys.shredding import Selection, person_selections

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
