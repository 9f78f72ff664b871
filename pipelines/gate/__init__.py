"""The release gate: looks at a protected dataset as someone would who wants to know who is in it, and signs what passes.

`run.check_release` walks the shards; `shard.ShardGate` examines one against its originals; the other modules each know one way
in which a person can be left behind. The gate trusts nothing that the job wrote but the list of files.
"""
