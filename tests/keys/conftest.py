"""Real key stores, logs and people in temporary folders."""

import os
from pathlib import Path

import pytest

from diffpriv.keys.audit.log import AuditLog
from diffpriv.keys.custodians import CustodianKey, CustodyPolicy
from diffpriv.keys.notes import NoteKey
from diffpriv.keys.recipients import RecipientKey
from diffpriv.keys.store import KeyStore
from tests.keys.helpers import People, Vault, build_vault


@pytest.fixture(scope="session")
def recipient_key() -> RecipientKey:
    return RecipientKey(os.urandom(32), "recovery office")


@pytest.fixture(scope="session")
def log_key() -> NoteKey:
    return NoteKey.create("log.test/audit")


@pytest.fixture
def log(tmp_path: Path, log_key: NoteKey) -> AuditLog:
    return AuditLog(tmp_path / "audit", log_key)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys")


@pytest.fixture(scope="session")
def people() -> People:
    custodians = [CustodianKey.create(name) for name in ("Ada L.", "Ben M.", "Cleo N.")]  # no text in base64 looks like these
    requester = CustodianKey.create("Rita O.")
    policy = CustodyPolicy(2, tuple(key.custodian for key in custodians), (requester.custodian,))
    return People(policy, custodians, requester)


@pytest.fixture
def vault(tmp_path: Path, log_key: NoteKey, recipient_key: RecipientKey) -> Vault:
    return build_vault(tmp_path / "vault", log_key, recipient_key)


def pytest_terminal_summary(terminalreporter):
    """A run without SoftHSM2 or moto looks green; its last lines must say what it did not show."""
    for report in terminalreporter.stats.get("skipped", []):
        place = str(report.nodeid)
        if "test_pkcs11" in place:
            terminalreporter.write_line(
                "NOT TESTED: PKCS#11 recipients, because SoftHSM2 or python-pkcs11 is absent.", yellow=True
            )
            break
    for report in terminalreporter.stats.get("skipped", []):
        if "test_aws" in str(report.nodeid):
            terminalreporter.write_line("NOT TESTED: AWS KMS and S3, because boto3, moto or s3fs is absent.", yellow=True)
            break
