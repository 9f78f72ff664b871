"""What help says beyond one line for each option: panels, examples, and topics for `diffpriv help TOPIC`.

The commands declare their options; which panel an option stands in is decided here, once for all commands, so that `--detector`
is under the same heading everywhere.
"""

import difflib
from typing import Annotated, Any

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.keys.errors import MisuseError

PANELS: dict[str, tuple[str, ...]] = {
    "Places": (
        *(
            "keys",
            "audit",
            "log_key",
            "log_vkey",
            "recipient",
            "policy",
            "dataset",
            "format",
            "config",
            "data",
            "out",
            "ignore",
        ),
        *(
            "pkcs11_module",
            "passphrase_file",
            "recipient_key",
            "requester_key",
            "custodian_key",
            "report",
            "report_file",
            "faces_csv",
            "export",
        ),
    ),
    "What a face becomes": (
        *("task", "recovery", "transform", "model", "recognizer", "preset", "similarity_limit", "max_attempts"),
        *("pseudonym", "identity_root", "strip_metadata", "keep_metadata", "mark"),
    ),
    "Which faces": (
        *(
            "detector",
            "thorough",
            "boxes",
            "box_format",
            "landmarks",
            "detect",
            "aligned",
            "min_size",
            "min_score",
            "leave",
            "treat",
        ),
        *("consent", "gallery", "gallery_similarity", "decisions", "faces_table"),
    ),
    "The release gate": ("gate_detector", "second_detector", "gate_recognizer", "allow", "allow_gallery", "gate_only"),
    "How it runs": ("engine", "actors", "gpus", "metrics", "dry_run", "dry_run_seconds", "json_lines"),
}
COMMANDS = {
    "Protect": ("demo", "sanitize", "scrub", "check-release"),
    "Look": ("gallery", "review", "describe", "evaluate"),
    "Keys, recovery, proof": ("keys", "recover", "desk", "audit"),
    "Help": ("doctor", "help"),
}
EXAMPLES: dict[str, tuple[str, str]] = {
    "demo": ("diffpriv demo", "diffpriv demo --out DIR"),
    "sanitize": (
        "diffpriv sanitize photos protected --keys face-keys --audit audit-log --recipient keys/recipient.json",
        "diffpriv sanitize --config job.yaml --dry-run",
    ),
    "scrub": (
        "diffpriv scrub photos release --audit audit-log --log-key keys/log.key",
        "diffpriv scrub photos release --transform fill --gate-only --report found.json",
    ),
    "check-release": (
        "diffpriv check-release COPY release.note --release-vkey keys/release.vkey",
        "diffpriv check-release s3://bucket/release release.note --release-vkey keys/release.vkey",
    ),
    "gallery": ("diffpriv gallery photos protected --out look", "diffpriv gallery protected --published --out look"),
    "review": (
        "diffpriv review protected --originals photos --out look",
        "diffpriv sanitize photos protected --faces-table --decisions decisions.json",
    ),
    "describe": ("diffpriv describe protected --out README.md", "diffpriv describe protected --coco faces.json"),
    "evaluate": (
        "diffpriv evaluate photos protected --report figures",
        "diffpriv evaluate photos protected --report figures --identity people.csv --group origin --sample 0",
    ),
    "desk": ("diffpriv desk --data protected --out recovered", "diffpriv desk --policy keys/policy.json --no-browser"),
    "doctor": ("diffpriv doctor", "diffpriv doctor --thorough"),
    "help": ("diffpriv help places", "diffpriv help sanitize"),
    "keys": ("diffpriv keys init keys", "diffpriv keys list keys face-keys"),
    "keys init": ("diffpriv keys init keys", "diffpriv keys init keys --custodians 5 --quorum 3"),
    "keys list": ("diffpriv keys list keys", "diffpriv keys list face-keys"),
    "keys custodian": (
        "diffpriv keys custodian ada.json --name Ada",
        "diffpriv keys custodian ada.json --name Ada --sealing ada-kms.json",
    ),
    "keys policy": (
        "diffpriv keys policy policy.json --custodian ada.json --custodian ben.json --quorum 2 --requester rita.json",
        "diffpriv keys policy new.json --custodian ada.json --quorum 1 --requester rita.json --previous policy.json",
    ),
    "keys signing-key": (
        "diffpriv keys signing-key witness.key --role witness --name example.org/witness",
        "diffpriv keys signing-key log.key --role log --name example.org/audit --unattended",
    ),
    "keys rotate": (
        "diffpriv keys rotate --add new.json --recipient-key keys/recipient.key",
        "diffpriv keys rotate --policy new-policy.json --current-policy keys/policy.json --request case.json "
        "--recipient-key keys/recipient.key",
    ),
    "keys rotate-request": (
        'diffpriv keys rotate-request case.json --new-policy new.json --purpose "Ada left" --requester-key rita.key',
        'diffpriv keys rotate-request case.json --add office.json --purpose "a second office" --requester-key rita.key',
    ),
    "keys recipient": (
        "diffpriv keys recipient recipient.json --name office",
        "diffpriv keys recipient recipient.json --aws-kms alias/faces",
    ),
    "keys identity-root": (
        "diffpriv keys identity-root identity.root",
        "diffpriv keys identity-root identity.root --from-store face-keys --dataset photos --recipient-key keys/recipient.key",
    ),
    "keys shred": (
        "diffpriv keys shred --dataset photos --shard shard-000.tar --sample NAME --receipt receipt.note",
        "diffpriv keys shred --person NAME --mapping people.csv --receipt receipt.note",
    ),
    "keys check-shredding": (
        "diffpriv keys check-shredding receipt.note",
        "diffpriv keys check-shredding receipt.note --audit audit-log --log-vkey keys/log.vkey --keys face-keys",
    ),
    "keys split": (
        "diffpriv keys split keys/recipient.key shares",
        "diffpriv keys split keys/recipient.key shares --shares 7 --threshold 4",
    ),
    "keys join": (
        "diffpriv keys join shares/share-01.txt shares/share-03.txt shares/share-04.txt",
        "diffpriv keys join shares/share-01.txt shares/share-02.txt shares/share-03.txt --recipient keys/recipient.json",
    ),
    "recover": (
        'diffpriv recover request case.json --data protected --shard shard-000.tar --sample NAME --purpose "..." '
        "--requester-key keys/people/requester.key",
        "diffpriv recover approve case.json --custodian-key keys/people/custodian-1.key",
    ),
    "recover faces": ("diffpriv recover faces protected", "diffpriv --json recover faces s3://bucket/protected"),
    "recover request": (
        'diffpriv recover request case.json --data protected --shard shard-000.tar --sample NAME --purpose "court order 7" '
        "--requester-key keys/people/requester.key",
        'diffpriv recover request case.json --data protected --shard shard-000.tar --sample NAME --face 1 --purpose "..." '
        "--requester-key rita.key --expires 12h",
    ),
    "recover record": (
        "diffpriv recover record case.json",
        "diffpriv recover record case.json --decision case.decision-3f2a91bc.json --decision case.decision-77d0aa01.json",
    ),
    "recover approve": (
        "diffpriv recover approve case.json --custodian-key ada.key --data protected",
        "diffpriv recover approve case.json --custodian-key ada.key --proof case.proof --log-vkey log.vkey",
    ),
    "recover deny": (
        "diffpriv recover deny case.json --custodian-key ada.key",
        "diffpriv recover deny case.json --custodian-key ada.key --out no.json",
    ),
    "recover show": (
        "diffpriv recover show case.json",
        "diffpriv recover show case.json --audit audit-log --log-vkey keys/log.vkey",
    ),
    "recover run": (
        "diffpriv recover run case.json --data protected --recipient-key keys/recipient.key --out recovered",
        "diffpriv recover run case.json --data protected --share share-01.txt --share share-03.txt --out recovered",
    ),
    "audit": ("diffpriv audit verify audit-log --data protected", "diffpriv audit show audit-log --last 20"),
    "audit verify": (
        "diffpriv audit verify audit-log --log-vkey keys/log.vkey --keys face-keys --data protected",
        "diffpriv audit verify audit-log --log-vkey keys/log.vkey --since last-week.checkpoint",
    ),
    "audit show": ("diffpriv audit show audit-log --last 20", 'diffpriv audit show audit-log --kind "recovery released"'),
    "audit prove": (
        "diffpriv audit prove audit-log --entry 1042 --out case.proof",
        "diffpriv audit prove audit-log --since last-week.checkpoint --out growth.json",
    ),
    "audit check": ("diffpriv audit check case.proof", "diffpriv audit check growth.json --log-vkey keys/log.vkey"),
    "audit manifest": (
        "diffpriv audit manifest protected --out protected.manifest",
        "diffpriv audit manifest s3://bucket/protected --out protected.manifest",
    ),
    "audit integrate": (
        "diffpriv audit integrate audit-log",
        "diffpriv audit integrate s3://bucket/audit --log-key keys/log.key",
    ),
    "audit witness": (
        "diffpriv audit witness audit-log --key witness.key --memory seen.json --out cosignature.txt",
        "diffpriv audit witness --mailed growth.json --key witness.key --memory seen.json --out cosignature.txt",
    ),
    "audit cosign": (
        "diffpriv audit cosign audit-log --witness-vkey witness.vkey --signature cosignature.txt",
        "diffpriv audit cosign audit-log --witness-vkey witness.vkey --url http://127.0.0.1:8700",
    ),
    "audit acknowledge": (
        "diffpriv audit acknowledge audit-log --entry 1042 --custodian-key ada.key",
        "diffpriv audit acknowledge s3://bucket/audit --entry 1042 --custodian-key ada.key --log-key keys/log.key",
    ),
}
TOPICS: dict[str, str] = {
    "start": """\
From nothing to a protected dataset, in a working folder of its own:

    diffpriv keys init keys             keys for trying it out, and diffpriv.toml, which names places for all commands
    diffpriv sanitize photos protected  every face gets a synthetic one; run it again to go on after an interruption
    diffpriv gallery photos protected --out look      look at the result: before and after, on one page
    diffpriv audit verify               everything that was published fits the signed log

Bring a face back: "diffpriv recover --help". For a release that nobody can undo: "diffpriv scrub --help".""",
    "places": """\
Where things are is said once, in diffpriv.toml of the working folder ("diffpriv keys init" writes it), or in variables:

    keys         DIFFPRIV_KEYS        key store: face keys, locked to the recipients
    audit        DIFFPRIV_AUDIT       audit log
    log_key      DIFFPRIV_LOG_KEY     private key that signs the log
    log_vkey     DIFFPRIV_LOG_VKEY    public key that checks it; by default the .vkey beside log_key
    office_key   DIFFPRIV_OFFICE_KEY  private key that signs receipts
    release_key  DIFFPRIV_RELEASE_KEY private key that signs release manifests
    policy       DIFFPRIV_POLICY      who may ask for a face, who approves
    recipient    DIFFPRIV_RECIPIENT   public keys that face keys are locked to

An option wins over a variable, a variable over the file; for sanitize a job file (--config) wins over both. Passphrases come
from --passphrase-file, DIFFPRIV_PASSPHRASE_FILE, or are asked for. A recipient's private key is named where it is used, and
nowhere else.""",
    "tiers": """\
What is kept of a face, to bring it back (--recovery):

    none    nothing. No key is written; what was transformed stays so. The baselines blur, mosaic and fill choose it.
    image   crop geometry and a keyed difference, about 0.4 KB. Comes back as a good likeness, from the published picture.
    keys    the default: geometry, embeddings, noise, detail, about 5 KB. Comes back as a near copy of the crop.
    exact   geometry and the covered pixels, losslessly. Comes back bit for bit.

Every tier but "none" is pseudonymised data: whoever opens the keys can undo it.""",
    "exit": """\
Exit status of every command:

    0    done, and everything that was checked is as it should be
    1    found something wrong: a failed shard, a problem in the log, a gate that did not pass
    2    misuse: a wrong option, path or setting; nothing was written
    130  interrupted; what was committed stays, and the same command goes on from there

--json answers with one document, errors included. -q prints nothing but errors. NO_COLOR turns colours off.""",
    "completion": """\
Commands, options and paths can be completed by the shell:

    diffpriv --install-completion       for the shell you are in (bash, zsh, fish, PowerShell)
    diffpriv --show-completion          print the script, to put it where you like""",
}
_PANEL_OF = {name: panel for panel, names in PANELS.items() for name in names}
_COMMAND_PANEL = {name: panel for panel, names in COMMANDS.items() for name in names}


def help_about(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="A topic, or a command like sanitize or audit.")] = "",
) -> None:
    """Read about a topic: start, places, tiers, exit, completion. Or the help of a command."""
    if topic in TOPICS:
        OUTPUT.result({"topic": topic, "text": TOPICS[topic]}, lambda console: console.print(TOPICS[topic], markup=False))
        return
    root = context.find_root().command
    commands = getattr(root, "commands", {})
    if topic in commands and topic:
        with commands[topic].make_context(f"diffpriv {topic}", ["--help"], resilient_parsing=True) as inner:
            print(commands[topic].get_help(inner))
        return
    if topic:
        near = difflib.get_close_matches(topic, [*TOPICS, *commands], n=1)
        raise MisuseError(
            f"there is no topic {topic!r}.",
            advice=f'Did you mean "diffpriv help {near[0]}"?' if near else f"Topics: {', '.join(TOPICS)}, and every command.",
        )
    text = "Topics: " + ", ".join(TOPICS) + ". Or a command: diffpriv help sanitize."
    OUTPUT.result({"topics": list(TOPICS)}, lambda console: console.print(text, markup=False))


def dress(command: Any, path: str = "") -> None:
    """Give a command and its subcommands their panels and examples."""
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.name in _PANEL_OF:
            parameter.rich_help_panel = _PANEL_OF[parameter.name]
    if path in EXAMPLES:
        command.epilog = "Examples:\n\n" + "\n\n".join(EXAMPLES[path])
    for name, one in getattr(command, "commands", {}).items():
        if not path and name in _COMMAND_PANEL:
            one.rich_help_panel = _COMMAND_PANEL[name]
        dress(one, f"{path} {name}".strip())
