"""Airflow DAG: protect new shards every night. Copy to the DAG folder; needs nothing but Airflow 2.4 or newer (or 3).

The command does the work: it skips what is committed, finishes what a dead run left, and refuses to overlap. Airflow needs no
catch-up and no state of its own, and a retry is safe at any point.
"""

from datetime import datetime, timedelta

from airflow import DAG

try:
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2
    from airflow.operators.bash import BashOperator

COMMAND = "diffpriv sanitize --config /etc/diffpriv/job.yaml --metrics /var/lib/diffpriv/diffpriv.prom --json-lines"

with DAG(
    dag_id="diffpriv_sanitize",
    schedule="30 1 * * *",
    start_date=datetime(2025, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=10)},
) as dag:
    BashOperator(task_id="sanitize", bash_command=COMMAND)
