#!/bin/sh
# One run on a Ray cluster that is there. RAY_ADDRESS names its dashboard, e.g. http://ray-head:8265; every node sees the same
# /data, /face-keys, /audit-log and /etc/diffpriv and has the package installed; the head node alone has /etc/diffpriv-log. The driver runs on the cluster, so this machine may go away.
set -eu
exec ray job submit --address "${RAY_ADDRESS:?set it to the dashboard of the Ray cluster}" --submission-id "diffpriv-$(date -u +%Y%m%dT%H%M%SZ)" -- diffpriv sanitize --config /etc/diffpriv/job.yaml --metrics /var/lib/diffpriv/diffpriv.prom --json-lines
