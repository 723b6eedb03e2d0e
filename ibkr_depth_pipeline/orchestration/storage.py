"""Where Dagster's storage is: the URL of its Postgres, for pg_dump and its like, without opening an instance.

An instance that is opened makes its tables, and then a dump can't be restored. As a command, for deploy/backup.sh and
deploy/restore.sh: ``python -m ibkr_depth_pipeline.orchestration.storage`` prints the URL, or nothing for SQLite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import typer
import yaml


def postgres_url(home: Path, environment: Mapping[str, str]) -> str:
    """The Postgres that `home`/dagster.yaml names for all storage, as libpq reads it; empty for any other storage.

    {env: NAME} is filled in. Raises KeyError with the name of a variable that is not set.
    """
    file = home / "dagster.yaml"
    document: Any = yaml.safe_load(file.read_text()) if file.exists() else None
    config = _filled_in(((document or {}).get("storage") or {}).get("postgres") or {}, environment)
    if url := config.get("postgres_url"):
        return str(url).replace("postgresql+psycopg2:", "postgresql:")
    return _url_of(**config["postgres_db"]) if "postgres_db" in config else ""


def _url_of(
    username: str,
    password: str = "",
    hostname: str = "",
    db_name: str = "",
    port: int | str = 5432,
    params: Mapping[str, object] | None = None,
    scheme: str = "",
) -> str:
    """From dagster.yaml's postgres_db; `scheme` names SQLAlchemy's driver, which libpq does not know."""
    user = ":".join(quote(each, safe="") for each in (username, password) if each)
    return f"postgresql://{user}@{hostname}:{port}/{quote(db_name, safe='')}" + (
        f"?{urlencode(params)}" if params else ""
    )


def _filled_in(value: Any, environment: Mapping[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {"env"}:
        return environment[value["env"]]
    return {name: _filled_in(each, environment) for name, each in value.items()}


def main() -> None:
    """Print the URL of Dagster's Postgres, or nothing."""
    try:
        typer.echo(postgres_url(Path(os.environ["DAGSTER_HOME"]), os.environ))
    except KeyError as missing:
        typer.echo(f"error: {missing.args[0]} is not set", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
