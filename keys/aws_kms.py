"""A recipient in AWS KMS: an asymmetric RSA key whose private half never leaves the service. The job needs no AWS access at
all.

Create it once: key usage ENCRYPT_DECRYPT, spec RSA_3072 or RSA_4096; export the public half with `kms_recipient`. Only the
identity that runs recoveries gets kms:Decrypt, and CloudTrail then records each unwrapping beside our own log. KMS takes no
encryption context for RSA keys, so the context is bound inside what is wrapped (keys/recipients.py). boto3 is imported on use.
"""

from typing import Any

from diffpriv.keys.errors import MisuseError, RecipientError, RecordError
from diffpriv.keys.recipients import RSA_OAEP, Recipient, open_bound
from diffpriv.keys.secrets import ShardKey

_PREFIX = "aws-kms:"
_ALGORITHM = "RSAES_OAEP_SHA_256"


def kms_recipient(key_id: str, *, name: str = "", client: Any = None) -> Recipient:
    """Export the public half of a KMS key as a recipient. `key_id`: id, alias or ARN. Needs kms:GetPublicKey, once.

    Raises: RecipientError if there is no such key or it can't be used this way.
    """
    client = client or _client(key_id)
    try:
        answer = client.get_public_key(KeyId=key_id)
    except Exception as error:  # botocore builds its exception classes at run time
        raise RecipientError(f"the public key of KMS key {key_id} can't be had: {_reason(error)}.") from error
    if answer.get("KeyUsage") != "ENCRYPT_DECRYPT" or _ALGORITHM not in answer.get("EncryptionAlgorithms", []):
        raise RecipientError(
            f"KMS key {key_id} is not an RSA key for encryption.", advice="Create one with key usage ENCRYPT_DECRYPT."
        )
    return Recipient(RSA_OAEP, answer["PublicKey"], name, _PREFIX + answer["KeyId"])


class KmsRecipientKey:
    """Opens shard keys by asking KMS. Holds no secret itself.

    Raises: MisuseError if the recipient is not one of KMS.
    """

    def __init__(self, recipient: Recipient, client: Any = None) -> None:
        if not recipient.locator.startswith(_PREFIX) or recipient.kind != RSA_OAEP:
            raise MisuseError(f"recipient {recipient.name or recipient.fingerprint} is not an AWS KMS key.")
        self.recipient = recipient
        self._key_id = recipient.locator.removeprefix(_PREFIX)
        self._client = client or _client(self._key_id)

    @property
    def fingerprint(self) -> str:
        return self.recipient.fingerprint

    def unwrap(self, wrapped: bytes, info: bytes) -> ShardKey:
        """Raises: RecordError if KMS finds the ciphertext wrong or the context differs; RecipientError if KMS can't be
        asked."""
        try:
            answer = self._client.decrypt(KeyId=self._key_id, CiphertextBlob=wrapped, EncryptionAlgorithm=_ALGORITHM)
        except Exception as error:
            if "InvalidCiphertext" in _reason(error):
                raise RecordError(
                    "AWS KMS can't open the wrapped shard key: it was altered or belongs to another key"
                ) from None
            raise RecipientError(f"AWS KMS refused to decrypt with {self._key_id}: {_reason(error)}.") from error
        return open_bound(answer["Plaintext"], info)


def _client(key_id: str) -> Any:
    try:
        import boto3
    except ImportError as error:
        raise MisuseError("AWS KMS needs boto3, which is not installed.", advice='Run "pip install diffpriv[aws]".') from error
    parts = key_id.split(":")
    return boto3.client("kms", region_name=parts[3] if key_id.startswith("arn:") and len(parts) > 3 else None)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
