"""One picture, no engine, no stores: the sealed records come back with it, and keeping them is up to you.

python examples/one_image.py PICTURE OUT RECIPIENT.json
"""

import sys
from pathlib import Path
from typing import Any

from diffpriv.pipelines.rows.protector import protect_image


def main(picture: str, out: str, recipient: str, **settings: Any) -> None:
    done = protect_image(Path(picture).read_bytes(), key=picture, dataset="photos", recipients=[recipient], **settings)
    if done.data is None:
        sys.exit(f"{picture} cannot be published: {done.reason}")
    Path(out).write_bytes(done.data)
    Path(f"{out}.sealed").write_bytes(done.sealed)
    for face in done.faces:
        print(f"face {face['face_index']}: {face['status']} {face['reason']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
