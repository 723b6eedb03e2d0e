"""Health check of the code server: exits with 1 unless it answers and its instance's storage can be opened.

The code server itself stays up, and says it serves, when its instance cannot be opened: a driver that is missing, a
database that is away. No run would then start. As a command: ``python -m ibkr_depth_pipeline.orchestration.health``.
"""

from __future__ import annotations

import dagster as dg
import grpc
import typer
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

ANSWER_SECS = 10.0
SERVICE = "DagsterApi"
"""The name under which Dagster's code server reports its health."""


def check_server(host: str, port: int) -> None:
    """Raises grpc.RpcError if the code server does not answer, RuntimeError if it says that it does not serve."""
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        answer = HealthStub(channel).Check(HealthCheckRequest(service=SERVICE), timeout=ANSWER_SECS)
    if answer.status != HealthCheckResponse.SERVING:
        raise RuntimeError(f"the code server at {host}:{port} does not serve")


def check_instance() -> None:
    """Opens the instance that DAGSTER_HOME names and reads from its storage. Raises the storage's own error."""
    with dg.DagsterInstance.get() as instance:
        instance.get_runs_count()


def main(host: str = "127.0.0.1", port: int = 4266) -> None:
    """Check the code server and its instance; exit with 1 and the reason if one of them fails."""
    try:
        check_server(host, port)
        check_instance()
    except Exception as error:  # of gRPC, of Dagster, of the database's driver: each is a reason to be unhealthy
        reason = error.details() if isinstance(error, grpc.Call) else str(error)
        typer.echo(f"unhealthy: {type(error).__name__}: {reason}", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
