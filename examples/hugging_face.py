"""Faces in a Hugging Face dataset, with `datasets.map`; sealed records stay in a column until you store them.

python examples/hugging_face.py PHOTOS.parquet OUT.parquet KEYS RECIPIENT.json
"""

import sys
from typing import Any

from datasets import Dataset, Image

from diffpriv.keys.store import KeyStore
from diffpriv.pipelines.rows.protector import ProtectBatch, key_file


def main(photos: str, out: str, keys: str, recipient: str, **settings: Any) -> Dataset:
    dataset = Dataset.from_parquet(photos)
    dataset = dataset.cast_column("image", Image(decode=False))  # bytes, not pixels: they are decoded once, inside
    protect = ProtectBatch(dataset="photos", recipients=[recipient], key="name", **settings)
    done = dataset.map(protect, batched=True, batch_size=32)
    store = KeyStore(keys)
    for (name, shard), data in key_file(done.select_columns(["diffpriv_sealed"]).to_list()).items():
        store.put(name, shard, data)  # durable before anything is published
    done = done.filter(lambda row: not row["diffpriv_reason"]).remove_columns(["diffpriv_sealed", "diffpriv_reason"])
    done.to_parquet(out)
    return done


if __name__ == "__main__":
    main(*sys.argv[1:])
