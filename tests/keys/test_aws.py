"""S3 as key store and audit log, and AWS KMS as recipient, against a real moto server on the loopback interface."""

import os
import threading

import pytest

from tests.keys.elsewhere import check_share_passes
from tests.keys.helpers import CONFIG, NOW, Vault, make_faces

boto3 = pytest.importorskip("boto3")
moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding  # noqa: E402

from diffpriv.keys.audit.events import run_started, shard_committed  # noqa: E402
from diffpriv.keys.audit.log import AuditLog  # noqa: E402
from diffpriv.keys.audit.verify import verify_log  # noqa: E402
from diffpriv.keys.aws_kms import KmsRecipientKey, kms_recipient  # noqa: E402
from diffpriv.keys.context import ShardContext  # noqa: E402
from diffpriv.keys.errors import MisuseError, RecipientError, RecordError, StorageError  # noqa: E402
from diffpriv.keys.keyfile import KeyFile, build_key_file  # noqa: E402
from diffpriv.keys.recipients import Recipient, RecipientKey  # noqa: E402
from diffpriv.keys.rotation import rotate  # noqa: E402
from diffpriv.keys.sealing import seal_part  # noqa: E402
from diffpriv.keys.secrets import ShardKey  # noqa: E402
from diffpriv.keys.shredding import Selection, shred  # noqa: E402
from diffpriv.keys.store import KeyStore  # noqa: E402

CONTEXT = ShardContext("faces", "shard-000.tar", CONFIG)
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def aws():
    """The server's address. moto 5.2 keeps RSA keys but can't decrypt with them: that one operation is added to it here."""
    from moto.kms.models import KmsBackend

    known = KmsBackend.decrypt

    def decrypt(self, ciphertext_blob, encryption_context, key_id=None):
        key = self.keys.get(self.any_id_to_key_id(key_id)) if key_id else None
        if key is None or not key.key_spec.startswith("RSA"):
            return known(self, ciphertext_blob=ciphertext_blob, encryption_context=encryption_context, key_id=key_id)
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        try:
            return key.private_key.private_key.decrypt(ciphertext_blob, oaep), key.arn
        except ValueError:
            from moto.kms.exceptions import InvalidCiphertextException

            raise InvalidCiphertextException from None

    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
    }.items():
        patch.setenv(name, value)
    patch.setattr(KmsBackend, "decrypt", decrypt)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    patch.undo()


@pytest.fixture
def bucket(aws, request):
    name = f"bucket-{os.urandom(4).hex()}"
    boto3.client("s3", endpoint_url=aws).create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    return f"s3://{name}", {"endpoint_url": aws}


def test_keys_and_audit_log_live_on_s3_as_they_do_in_a_folder(bucket, log_key, recipient_key):
    url, options = bucket
    store = KeyStore(f"{url}/keys", **options)
    log = AuditLog(f"{url}/audit", log_key, **options)
    receipt = store.put("faces", "a/b c.tar", build_key_file(ShardContext("faces", "a/b c.tar", CONFIG), []))
    assert store.list() == [("faces", "a/b c.tar")]
    assert store.delete("faces", "a/b c.tar")
    assert not store.delete("faces", "a/b c.tar")
    receipt = store.put(
        "faces", "shard-000.tar", build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient_key.recipient], make_faces(5))])
    )
    log.segments.put("s", [shard_committed(NOW, "r", CONTEXT, faces=5, key_file=receipt, data_sha256="ab" * 32)])
    log.append(run_started(NOW, f"r{number}", "faces", CONFIG) for number in range(300))
    assert log.integrate().added == ("s",)
    options_ = {"key_store": store, "recipient_key": recipient_key}
    assert verify_log(log, **options_).problems == []

    successor = RecipientKey.generate()
    rotate(store, log, add=[successor.recipient], recipient_key=recipient_key, now=NOW)
    shred(store, log, [Selection("faces", "shard-000.tar", "img00001")], scope="sample", now=NOW)
    assert verify_log(AuditLog(f"{url}/audit", log_key, **options), key_store=store, recipient_key=successor).problems == []

    path = "faces/shard-000.tar.keys.parquet"
    data = store.location.read(path)
    store.location.write(path, data[:100] + bytes([data[100] ^ 1]) + data[101:])
    (problem,) = verify_log(log, key_store=store).problems
    assert "shard-000.tar" in problem


def test_two_writers_on_s3_lose_nothing(bucket, log_key):
    url, options = bucket

    def append(name: str) -> None:
        log = AuditLog(f"{url}/audit", log_key, **options)
        for number in range(4):
            log.append([run_started(NOW, f"{name}{number}", "faces", CONFIG)])

    writers = [threading.Thread(target=append, args=(name,)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    log = AuditLog(f"{url}/audit", log_key, **options)
    assert sorted(event.facts["run"] for _, event in log.events()) == sorted(
        f"{name}{number}" for name in "ab" for number in range(4)
    )
    assert verify_log(log).problems == []


def test_a_bucket_that_is_not_there_is_named(bucket, log_key):
    _, options = bucket
    with pytest.raises(StorageError, match="s3://nowhere"):
        KeyStore("s3://nowhere/keys", **options).put("faces", "s", b"x")
    with pytest.raises(StorageError, match="s3://nowhere"):
        KeyStore("s3://nowhere/keys", **options).get("faces", "s")


@pytest.fixture
def kms(aws):
    return boto3.client("kms", endpoint_url=aws, region_name=REGION)


@pytest.fixture
def kms_key(kms) -> str:
    return kms.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="RSA_3072")["KeyMetadata"]["Arn"]


def test_what_is_sealed_to_a_kms_key_opens_through_kms_and_only_there(kms, kms_key, tmp_path):
    recipient = kms_recipient(kms_key, name="AWS", client=kms)
    recipient.save(tmp_path / "aws.json")
    recipient = Recipient.load(tmp_path / "aws.json")
    faces = make_faces(3)
    # Sealing needs no AWS: only the exported public half.
    file = KeyFile.parse(build_key_file(CONTEXT, [seal_part(CONTEXT, [recipient], faces)]))
    key = KmsRecipientKey(recipient, kms)
    assert file.check_all(key) == 3
    assert file.open_face("img00002", 0, key).key.same_as(faces[2].key)


def test_kms_does_not_open_a_wrapped_key_of_another_context_or_an_altered_one(kms, kms_key):
    recipient = kms_recipient(kms_key, client=kms)
    key = KmsRecipientKey(recipient, kms)
    shard_key = ShardKey.generate()
    wrapped = recipient.wrap(shard_key, b"this shard")
    assert key.unwrap(wrapped, b"this shard").same_as(shard_key)
    with pytest.raises(RecordError, match="another dataset, shard or part"):
        key.unwrap(wrapped, b"that shard")
    with pytest.raises(RecordError, match="altered"):
        key.unwrap(bytes([wrapped[0] ^ 1]) + wrapped[1:], b"this shard")
    other = kms.create_key(KeyUsage="ENCRYPT_DECRYPT", KeySpec="RSA_3072")["KeyMetadata"]["Arn"]
    with pytest.raises(RecordError):
        KmsRecipientKey(kms_recipient(other, client=kms), kms).unwrap(wrapped, b"this shard")


def test_a_dataset_moves_from_a_passphrase_file_to_kms(kms, kms_key, vault: Vault):
    recipient = kms_recipient(kms_key, client=kms)
    old = vault.recipient_key
    rotate(vault.store, vault.log, add=[recipient], remove=[old.fingerprint], recipient_key=old, now=vault.log.newest())
    key = KmsRecipientKey(recipient, kms)
    assert verify_log(vault.log, key_store=vault.store, recipient_key=key).problems == []


def test_a_custodians_shares_may_be_sealed_to_kms(kms, kms_key, tmp_path):
    recipient = kms_recipient(kms_key, client=kms)
    check_share_passes(tmp_path, recipient, KmsRecipientKey(recipient, kms))


def test_kms_keys_of_the_wrong_kind_are_refused(kms, recipient_key):
    symmetric = kms.create_key()["KeyMetadata"]["KeyId"]
    signing = kms.create_key(KeyUsage="SIGN_VERIFY", KeySpec="RSA_3072")["KeyMetadata"]["KeyId"]
    for key_id in (symmetric, signing, "no-such-key"):
        with pytest.raises(RecipientError, match=key_id):
            kms_recipient(key_id, client=kms)
    with pytest.raises(MisuseError, match="not an AWS KMS key"):
        KmsRecipientKey(recipient_key.recipient, kms)
