"""Reviewers' decisions: a JSON file that `diffpriv review`'s page makes and `sanitize --decisions` reads.

    {"format": "diffpriv decisions", "version": 1, "dataset": name,
     "shards": {shard: [{"sample", "field", "action": "add"|"drop"|"redo", "box": [x0, y0, x1, y1]}, ...]}}
Boxes are upright pixels of the original picture; "redo" has none. A file's decisions are added to those of earlier files, which
DST/.diffpriv/decisions.json keeps: a later run without the file must not bring a missed face back. A shard is redone when its
decisions are not those it was committed with, and only then.
"""

import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from diffpriv.pipelines import layout
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.steps.policy import Decision
from diffpriv.pipelines.storage import Folder

FORMAT = "diffpriv decisions"
ACTIONS = ("add", "drop", "redo")

Decisions = dict[str, tuple[Decision, ...]]


def keep_decisions(target: Folder, file: str | None, shards: Collection[str]) -> Decisions:
    """What holds for this run: the decisions kept in DST, and those of `file`, which are kept from now on.

    Args:
        shards: names of the dataset's shards.
    Raises:
        MisuseError: the file is no decisions file, or names a shard that the dataset does not have.
    """
    written = target.small.read_if_there(layout.DECISIONS)
    kept = parse_decisions(written, target.describe(layout.DECISIONS)) if written is not None else {}
    if file is None:
        return kept
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise MisuseError(f"the decisions {file} cannot be read: {error.strerror}.") from None
    merged = dict(kept)
    for shard, new in parse_decisions(data, file).items():
        if shard not in shards:
            raise MisuseError(f"{file} decides about {shard!r}, which SRC does not have.")
        old = kept.get(shard, ())
        merged[shard] = (*old, *(one for one in new if one not in old))
    if merged != kept:
        target.small.write(layout.DECISIONS, encode_decisions(merged))
    return merged


def decisions_digest(decisions: Sequence[Decision]) -> str:
    """Names a shard's decisions in its commit record; "" for none."""
    if not decisions:
        return ""
    return hashlib.sha256(json.dumps([astuple(one) for one in decisions]).encode()).hexdigest()


def encode_decisions(decisions: Mapping[str, Sequence[Decision]], dataset: str = "") -> bytes:
    """The file of a review's decisions, sorted by shard."""
    shards = {shard: [vars(one) | {"box": list(one.box)} for one in many] for shard, many in sorted(decisions.items())}
    return json.dumps({"format": FORMAT, "version": 1, "dataset": dataset, "shards": shards}, indent=1).encode()


def parse_decisions(data: bytes, where: str) -> Decisions:
    """Raises: MisuseError naming the file and what is wrong with it."""
    try:
        body = json.loads(data)
        if body["format"] != FORMAT or body["version"] != 1:
            raise ValueError("it has another format or version")
        return {str(shard): tuple(_decision(one) for one in many) for shard, many in body["shards"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MisuseError(f"{where} is not a decisions file: {error}.", advice="Save it from the review page.") from None


def _decision(one: dict[str, Any]) -> Decision:
    action = one["action"]
    if action not in ACTIONS:
        raise ValueError(f"{action!r} is no action")
    box = tuple(float(value) for value in one.get("box") or ())
    if action != "redo" and not (len(box) == 4 and all(map(math.isfinite, box)) and box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f'an action "{action}" needs a box of four numbers')
    return Decision(str(one["sample"]), str(one["field"]), action, box if action != "redo" else ())
