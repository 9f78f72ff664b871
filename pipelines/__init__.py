"""The job: shards in, shards out, face keys off to the side.

Everybody needs `config`, `settings`, `storage` and `errors`. Then, from what is asked to what asks: `records`, `pictures`,
`formats`, `steps`, `destination`, `run`, `engines`; beside them `rows` (the Python API), `gate`, `review`, `audit_join` and
`evaluation`.
"""
