"""The gateway and Redis as Dagster resources. What is left out comes from the environment, `.env`, or the default."""

from typing import Any

import dagster as dg
from pydantic import Field

from ibkr_depth_pipeline.errors import ConfigurationError
from ibkr_depth_pipeline.orchestration.launch_checks import check_overrides, refuse
from ibkr_depth_pipeline.settings import Settings, mask_url


def about(setting: str) -> str:
    """What the Launchpad says about a field that overrides `setting`."""
    field = Settings.model_fields[setting]
    return f"{field.description}. Left out: {setting.upper()} of the environment or of .env, else {field.default}."


class IbkrGateway(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the IBKR gateway is, and what is asked of it. Each field overrides the setting IBKR_<FIELD>."""

    host: str | None = Field(default=None, description=about("ibkr_host"))
    port: int | None = Field(default=None, description=about("ibkr_port"))
    client_id: int | None = Field(default=None, description=about("ibkr_client_id"))
    client_id_max_offset: int | None = Field(default=None, description=about("ibkr_client_id_max_offset"))
    depth_rows: int | None = Field(default=None, description=about("ibkr_depth_rows"))
    max_concurrent_depth: int | None = Field(default=None, description=about("ibkr_max_concurrent_depth"))
    connect_timeout_secs: float | None = Field(default=None, description=about("ibkr_connect_timeout_secs"))

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are given."""
        return {f"ibkr_{name}": value for name, value in self.model_dump().items() if value is not None}


class RedisStore(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the books go. The URL in force is never shown."""

    url: str | None = Field(
        default=None,
        description=f"{about('redis_url')} No password may stand here, where everybody can read it: set REDIS_URL, or "
        "name another environment variable, {env: NAME}.",
        json_schema_extra={"dagster__is_secret": True},
    )

    def overrides(self) -> dict[str, Any]:
        """Setting -> value, of the fields that are given."""
        return {} if self.url is None else {"redis_url": self.url}


def ibkr_resource(gateway: IbkrGateway) -> dg.ResourceDefinition:
    """`gateway` as a resource whose run config is checked before launch."""

    @dg.configured(gateway.get_resource_definition(), config_schema=IbkrGateway.to_fields_dict())
    def checked(config: dict[str, Any]) -> dict[str, Any]:
        given = _given(config)
        check_overrides({f"ibkr_{name}": value for name, value in given.items()})
        return given

    return checked


_ENV = dg.Selector({"env": str})  # type: ignore[no-untyped-call]
_URL = dg.ScalarUnion(scalar_type=str, non_scalar_schema=_ENV, _key="RedisUrl")
"""As Dagster's own type of a text or {env: NAME}, but the name arrives unresolved: what was written can be told."""


def redis_resource(store: RedisStore) -> dg.ResourceDefinition:
    """`store` as a resource whose run config is checked before launch, and refused with a password in it."""
    url = dg.Field(dg.Noneable(_URL), is_required=False, description=RedisStore.model_fields["url"].description)

    @dg.configured(store.get_resource_definition(), config_schema={"url": url})
    def checked(config: dict[str, Any]) -> dict[str, Any]:
        given = _given(config)
        written = given.get("url")
        if isinstance(written, str):
            _refuse_secrets(written)
            check_overrides({"redis_url": written})
        return given

    return checked


def _refuse_secrets(url: str) -> None:
    if mask_url(url) != url:
        told = "it names a user or a password; set REDIS_URL, or name another environment variable: {env: NAME}"
        raise refuse(ConfigurationError("resource redis", [f"url is not allowed; {told}"]))


def _given(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if value is not None}
