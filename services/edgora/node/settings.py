"""A node's own settings: what may differ between nodes without splitting the consortium (README.md 2).

Everything that consensus depends on is in the genesis document instead. Order of authority: arguments, environment
(EDGORA_*, nested with a double underscore: EDGORA_ADVERT__SPEED), secret files (EDGORA_SECRETS_DIR), the TOML file that
the process was started with. Unknown names are refused. Secrets are given as paths to files, never as values.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from edgora.wire.errors import Refused

__all__ = ["AdvertSettings", "LimitSettings", "NodeSettings", "read_settings"]


class AdvertSettings(BaseModel):
    """What this server sells (market.md 2). Speed is calibrated by `edgora doctor` with all slots busy."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    speed: Annotated[int, Field(ge=1, lt=2**48)] = 40_000_000
    """fuel per second, each slot"""
    capacity: Annotated[int, Field(ge=0, lt=2**48)] = 2_000_000_000
    """fuel; 0 takes no work"""
    slots: Annotated[int, Field(ge=1, le=64)] = 2
    ask: Annotated[int, Field(ge=1, lt=2**32)] = 20
    """gwei per Mfuel"""
    uplink: Annotated[int, Field(ge=1, lt=2**40)] = 12_500_000
    """octets per second"""
    forward: Annotated[int, Field(ge=0, lt=2**63)] = 1_000
    """wei per KiB forwarded"""
    valid_ms: Annotated[int, Field(ge=10_000, le=3_600_000)] = 600_000
    """How long each advert stands; renewed at half of it."""
    position_m: tuple[float, float] | None = None


class LimitSettings(BaseModel):
    """Admission at the edge (ledger.md 16). A benchmark of one source raises them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tx_per_s: Annotated[int, Field(ge=1)] = 200
    """Transactions, per source and per sender."""
    tx_burst: Annotated[int, Field(ge=1)] = 400
    requests_per_s: Annotated[int, Field(ge=1)] = 400
    """Requests of any kind, per source."""
    request_burst: Annotated[int, Field(ge=1)] = 800
    streams: Annotated[int, Field(ge=1)] = 256
    """Open event streams at a time."""
    faucet_wei: Annotated[int, Field(ge=1)] = 10**19
    """Most that one call of the development faucet gives."""


class NodeSettings(BaseSettings):
    """One node. Defaults suit a node on a developer's machine: everything on 127.0.0.1."""

    model_config = SettingsConfigDict(env_prefix="EDGORA_", env_nested_delimiter="__", extra="forbid", frozen=True)

    data_dir: Path = Path("data")
    """Bulk, journal and the store; created if missing."""
    genesis_file: Path = Path("genesis.bin")
    """The canonical genesis document."""
    index: Annotated[int, Field(ge=0, le=63)] = 0
    """This node's validator index and server id."""
    signer_key_file: Path = Path("signer.key")
    """secp256k1 secret in hex: votes, Held, Stored, duties, and the chain account that pays their gas."""
    sealing_key_file: Path = Path("sealing.pem")
    """RSA key that inputs are sealed to."""
    link_key_file: Path = Path("link.spki")
    """SubjectPublicKeyInfo of the TLS key of this node's links, DER."""
    deployer_key_file: Path | None = None
    """Development only: the faucet's chain account."""

    listen_host: str = "127.0.0.1"
    listen_port: Annotated[int, Field(ge=0, le=65_535)] = 8100
    public_url: str = "http://127.0.0.1:8100"
    """Where clients reach this node; part of the certified key document."""
    network_url: str = "http://127.0.0.1:8100"
    """Where this node is reached inside the deployment's own network; part of the key document too."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read /v1, as the board's http://127.0.0.1:8080; none by default."""
    consensus_socket: Path = Path("consensus.sock")
    """Unix socket of this node's consensus process."""
    store_file: Path | None = None
    """The consensus process's block store; null: consensus/blocks.sqlite beside the socket."""

    chain_rpc: str = "http://127.0.0.1:8545"
    contract_code_hash: str | None = None
    """keccak of the market contract's runtime code, from the deployment file; another code is a refusal to start."""
    confirmations: Annotated[int, Field(ge=0, le=256)] | None = None
    """Blocks on top of a chain fact before it is attested; null: 0 on chain 31337, else 12 (contracts.md 9)."""
    redis_url: str = ""
    """Bus to the allocator; empty: in this process's memory."""
    development: bool | None = None
    """Whether the faucet is open; null: on chain 31337 with a deployer key only."""
    lie_file: Path | None = None
    """Where the scenario allows faults: names the lie that this node tells (node.lies). Null: it cannot be made to lie."""
    worker_processes: Annotated[int, Field(ge=0, le=64)] = 0
    """Sandbox processes; 0: one a slot."""

    advert: AdvertSettings = AdvertSettings()
    limits: LimitSettings = LimitSettings()
    log_level: str = "INFO"
    trace: Literal["off", "otlp", "file"] = "off"
    """Where spans of tasks go (docs/observing.md); otlp and file need the extra `trace`."""
    trace_endpoint: str = "http://127.0.0.1:4318"
    """OTLP/HTTP collector, for trace = otlp."""
    trace_file: Path | None = None
    """JSON lines are appended here, for trace = file."""

    @model_validator(mode="after")
    def _urls(self) -> Self:
        for name in ("public_url", "network_url"):
            if not getattr(self, name).startswith(("http://", "https://")):
                raise ValueError(f"{name} must start with http:// or https://")
        return self

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class fixes the signature
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:  # fmt: skip
        """Arguments, environment, secret files, TOML; no dotenv."""
        file = settings_cls.model_config.get("toml_file")
        toml = (TomlConfigSettingsSource(settings_cls, file),) if file else ()
        return (init_settings, env_settings, file_secret_settings, *toml)


def read_settings(file: Path | None = None, secrets_dir: Path | None = None, **overrides: Any) -> NodeSettings:
    """Settings from a TOML file and the environment. Raises Refused with the path of the first setting at fault."""
    if file is not None and not file.is_file():
        raise Refused(f"no settings file {file}", field="file", fix="give the path of a TOML file")

    class _FromFile(NodeSettings):
        model_config = SettingsConfigDict(toml_file=file, secrets_dir=secrets_dir)

    try:
        found = _FromFile(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise Refused(f"setting {path or '(all)'}: {first['msg']}", field=path or None) from None
    return NodeSettings.model_construct(**{name: getattr(found, name) for name in NodeSettings.model_fields})
