"""A custodian whose sealing key is not in their file: the whole of a recovery, for the tests of KMS and of tokens."""

from pathlib import Path

import pytest

from diffpriv.jobs.recoveries import decide
from diffpriv.keys.custodians import Custodian, CustodianKey, CustodyPolicy
from diffpriv.keys.errors import MisuseError, RecordError
from diffpriv.keys.recipients import Recipient, Unwrapper
from diffpriv.keys.recovery import RecoveryCase
from diffpriv.keys.release import release_faces
from diffpriv.keys.requests import Decision
from tests.attacks.test_quorum_attacks import CUSTODIANS, RECIPIENT, REQUESTER, World
from tests.keys.helpers import NOW


def check_share_passes(folder: Path, sealing: Recipient, opener: Unwrapper) -> None:
    """A face under two of two custodians opens with the share that `opener` opens, and their signing key alone passes none."""
    ada = CustodianKey.create("ada")
    policy = CustodyPolicy(
        2,
        (Custodian("ada", ada.custodian.public, sealing), CUSTODIANS[1].custodian),
        (REQUESTER.custodian,),
    )
    world = World(folder, policy)
    asked, run_key = world.ask(policy=policy)
    case = RecoveryCase(asked, policy, world.log)
    case.submit(NOW)
    with pytest.raises(RecordError, match="does not open"):
        Decision.make(asked, ada, "approve", now=NOW + 1)
    with pytest.raises(MisuseError, match="your shares are sealed to"):
        decide(asked, ada, "approve", now=NOW + 1, policy=policy)
    decisions = [Decision.make(asked, ada, "approve", now=NOW + 1, sealing_key=opener)]
    decisions.append(Decision.make(asked, CUSTODIANS[1], "approve", now=NOW + 1))
    for one in decisions:
        case.approve(one, NOW + 1)
    _, faces = release_faces(case, world.log, world.store, RECIPIENT, NOW + 2, decisions=decisions, run_key=run_key)
    assert faces[0].opened.key.same_as(world.faces["shard-000.tar"][1].key)
