"""What is checked of a job's settings against the files that they name, before anything else."""

import os

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.audit.pinned import check_serving
from diffpriv.keys.context import ShardContext
from diffpriv.keys.custodians import CustodyPolicy
from diffpriv.keys.files import open_location
from diffpriv.keys.identity import IdentityRoot
from diffpriv.keys.quorum import ShardLock
from diffpriv.pipelines.config import JobConfig
from diffpriv.pipelines.errors import MisuseError
from diffpriv.pipelines.steps.people import read_mapping


def check_policy(config: JobConfig) -> CustodyPolicy | None:
    """The job's custody policy, if it has one. Raises: MisuseError for one that can't lock shards; RecipientError."""
    if config.policy is None:
        return None
    policy = CustodyPolicy.load(config.policy)
    ShardLock.make(ShardContext(config.dataset, "a trial", config.digest()), policy)
    return policy


def check_serving_policy(config: JobConfig, policy: CustodyPolicy | None, log: AuditLog | None) -> None:
    """That the audit log serves the job's policy. A nightly job whose custodians were replaced stops here.

    Args:
        log: with the log's key, so that its answer is proved; None where the job has none.
    Raises:
        MisuseError, AuditError, StorageError: see `keys.audit.pinned.check_serving`.
    """
    if policy is not None:
        check_serving(policy, log if log is not None else open_location(config.audit))


def with_root_id(config: JobConfig) -> JobConfig:
    """The job with the identity root's public name in it, which enters the digest: another root is another release.

    Raises:
        MisuseError: the root cannot be read, or lies in SRC or DST.
    """
    pseudonym = config.pseudonym
    if not pseudonym.source:
        return config
    root = os.path.abspath(pseudonym.root)
    for what, place in (("SRC", config.src), ("DST", config.dst)):
        if "://" not in place and os.path.commonpath([root, os.path.abspath(place)]) == os.path.abspath(place):
            raise MisuseError(f"the identity root {pseudonym.root} lies in {what}.", advice="Keep it apart from the data.")
    if pseudonym.source.endswith(".csv"):
        read_mapping(pseudonym.source)
    root_id = IdentityRoot.load(pseudonym.root).id
    return config.model_copy(update={"pseudonym": pseudonym.model_copy(update={"root": root, "root_id": root_id})})
