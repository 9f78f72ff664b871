"""Where the job keeps what it knows of a DST: every name below DST/.diffpriv/, once.

    job.json          what DST is made with: dataset, format, config digest, version of the method
    cut.json          image folders: which file is in which shard
    run.json          the last run, and whether it finished
    lease             held by the run that writes (`destination.lease`)
    decisions.json    what reviewers decided (`destination.decisions`)
    suspects.json     samples that dead runs were busy with (`destination.worker_deaths`)
    release.note      the signed release manifest (`gate.manifest`)
    commits/          one commit record per published shard (`destination.record`)
    pages/            the same records without their faces, a thousand to a file, for planning (`destination.pages`)
    quarantine/       one file per shard that has quarantined samples
    faces/            one faces table per shard, if asked for (`destination.face_table`)
    staging/<run>/    half-done work (`destination.staging`): a folder per shard; working/, notes of what each worker holds;
                      made-by/, what the workers loaded; outcomes/ and stop.json, what Beam's workers leave for the driver

Nothing of it is part of a dataset, and none of it is ever released: it names quarantined samples.
"""

from urllib.parse import unquote

from diffpriv.keys.store import encode_name

STATE_FOLDER = ".diffpriv"
FORMER_STATE_FOLDER = "_diffpriv"
JOB = f"{STATE_FOLDER}/job.json"
CUT = f"{STATE_FOLDER}/cut.json"
RUN = f"{STATE_FOLDER}/run.json"
LEASE = f"{STATE_FOLDER}/lease"
DECISIONS = f"{STATE_FOLDER}/decisions.json"
SUSPECTS = f"{STATE_FOLDER}/suspects.json"
MANIFEST = f"{STATE_FOLDER}/release.note"
COMMITS = f"{STATE_FOLDER}/commits"
PAGES = f"{STATE_FOLDER}/pages"
STAGING = f"{STATE_FOLDER}/staging"


def is_state(name: str) -> bool:
    """Whether a file of DST is the job's own, not the dataset's."""
    return name.startswith(f"{STATE_FOLDER}/")


def was_state(name: str) -> bool:
    """Whether a file of SRC is the state of the job that made it, under today's name or the former one; it is no data."""
    return is_state(name) or name.startswith(f"{FORMER_STATE_FOLDER}/")


def commit_record(shard: str) -> str:
    """The record that publishes a shard."""
    return f"{COMMITS}/{encode_name(shard)}.json"


def shard_of_record(name: str) -> str:
    """The inverse of `commit_record`."""
    return unquote(name.rpartition("/")[2].removesuffix(".json"))


def quarantine(shard: str) -> str:
    """The samples of a shard that were held back, with their reasons."""
    return f"{STATE_FOLDER}/quarantine/{encode_name(shard)}.jsonl"


def face_table(shard: str) -> str:
    """The faces of a published shard."""
    return f"{STATE_FOLDER}/faces/{encode_name(shard)}.parquet"


def staged_shard(run_id: str, shard: str) -> str:
    """Folder in which a run prepares a shard."""
    return f"{STAGING}/{run_id}/{encode_name(shard)}"


def working_notes(run_id: str) -> str:
    """Folder of the notes that workers leave of the samples they hold."""
    return f"{STAGING}/{run_id}/working"


def made_by_notes(run_id: str) -> str:
    """Folder of the notes that workers leave of what they run on."""
    return f"{STAGING}/{run_id}/made-by"


def outcomes(run_id: str) -> str:
    """Folder of what became of each shard of a run."""
    return f"{STAGING}/{run_id}/outcomes"


def stop_note(run_id: str) -> str:
    """The error that stopped a run."""
    return f"{STAGING}/{run_id}/stop.json"
