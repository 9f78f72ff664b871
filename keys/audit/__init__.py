"""The audit log: an append-only Merkle log in files, written by one sequencer, checked by anyone.

merkle.py      RFC 6962 hashing and proofs, pure         tiles.py       C2SP tlog-tiles file layout
checkpoint.py  C2SP signed notes, checkpoints            events.py      what is logged
segments.py    what parallel workers write               log.py         append, integrate, read
verify.py      checks log, segments, key files, data     proofs.py      proofs as files, witness
"""
