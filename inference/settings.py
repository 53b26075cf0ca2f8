"""The settings of a deployment. The only reader of the environment."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from inference.errors import InvalidRequest
from inference.media import MediaLimits
from inference.weights.sources import HUB_ENDPOINT, WeightSources

PREFIX = "VISEME_"
CLIENT_URL = "VISEME_URL"  # of the commands `viseme jobs`, which read it themselves
MEDIA_DEFAULTS = MediaLimits()
# Variables that SageMaker, Hugging Face, AWS and LiveKit define.
EXTERNAL_VARIABLES = {
    "SAGEMAKER_MODEL_SERVER_WORKERS": "workers",
    "SAGEMAKER_BIND_TO_PORT": "port",
    "SM_MODEL_DIR": "model_dir",
    "HF_MODEL_ID": "hf_model_id",
    "HF_TOKEN": "hf_token",
    "HF_ENDPOINT": "hf_endpoint",
    "HF_HUB_OFFLINE": "hf_offline",
    "AWS_ENDPOINT_URL_S3": "s3_endpoint_url",
    "LIVEKIT_API_KEY": "livekit_api_key",
    "LIVEKIT_API_SECRET": "livekit_api_secret",
}


# A name, every name below a domain, an IPv4 address, an IPv6 address in brackets, or everything.
ALLOWED_HOST = re.compile(r"\*|(\*\.)?[a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)
URL_HOST = re.compile(r"[a-z0-9_-][a-z0-9._-]*(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
# As browsers send it, but for its case and the slash at its end.
ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#@:\[\]]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]+))?/?")
DEFAULT_PORTS = {"http": "80", "https": "443"}  # browsers leave them out
BROKER_URL = re.compile(
    r"rediss?://([^@/?#\s]*@)?([a-z0-9_-][a-z0-9._-]*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?(/[0-9]{0,5})?(\?[^#\s]+)?",
    re.ASCII | re.IGNORECASE,
)
ICE_SERVER = re.compile(
    r"(?P<scheme>stuns?|turns?):((?P<username>[a-z0-9._~%!$&'()*+;=-]+):(?P<password>[a-z0-9._~%!$&'()*+;=-]+)@)?"
    r"(?P<address>[a-z0-9_-][a-z0-9._-]*(:[0-9]{1,5})?(\?transport=(udp|tcp))?)",
    re.ASCII | re.IGNORECASE,
)
LEGACY_PORTS = (8084, 8085, 8086)
GRPC_PORT = 50051
MAX_THREADS = 1024


class LivePorts(NamedTuple):
    """Ports besides the HTTP port; 0 is off. legacy: the JSON and binary server, the faster one, and the proxy."""

    legacy: tuple[int, ...]
    grpc: int


def split_list(value: object) -> object:
    """Split comma-separated text: 'a, b/c' becomes ('a', 'b/c'). Return other values unchanged."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Port = Annotated[int, Field(ge=0, le=65535)]
LegacyPorts = Annotated[tuple[Port, ...], Field(max_length=3)]


class Settings(BaseModel):
    """Settings, read once from the environment and passed on as values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "f32", "f16", "bf16", "int8"] = "auto"
    engine: Literal["auto", "tensorrt"] = "auto"  # of Wav2Lip and the avatars' U-Nets, on a GPU
    encoder: Literal["auto", "libx264", "h264_nvenc"] = "auto"  # of videos that are written
    threads: int | None = Field(None, ge=1, le=MAX_THREADS)  # of each process that runs models
    max_bytes: int = Field(MEDIA_DEFAULTS.max_bytes, gt=0)
    max_pixels: int = Field(MEDIA_DEFAULTS.max_total_pixels, gt=0)
    max_pixels_per_byte: int = Field(MEDIA_DEFAULTS.max_pixels_per_byte, gt=0)
    max_duration_s: float = Field(MEDIA_DEFAULTS.max_duration_s, gt=0)

    host: str = "127.0.0.1"
    port: Port = 8080
    # Worker processes, and the requests that one runs at a time, whose calls of a network are batched; "auto": by the
    # cores and the memory, or one for each GPU; 1 request on a CPU, more on a GPU.
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = 1
    requests_per_worker: Annotated[int, Field(ge=1, le=32)] | Literal["auto"] = "auto"
    # Frames of several live sessions in one call of an avatar's network; "auto": 1 on a CPU, 8 on a GPU.
    session_batch: Annotated[int, Field(ge=1, le=8)] | Literal["auto"] = "auto"
    queue_size: int = Field(8, ge=1, le=10_000)
    # Bodies that may arrive at once, bytes of bodies on disk, and answers that may be sent at once.
    max_uploads: int = Field(128, ge=1, le=100_000)
    max_upload_bytes: int = Field(16 << 30, gt=0)
    max_answers: int = Field(64, ge=1, le=100_000)
    # Connections at a time to all HTTP and WebSocket ports, and to the gRPC port; and those that one client may have to
    # the former, None: 256, but any number from this machine and on SageMaker. Behind proxies there is no such limit.
    max_connections: int = Field(16_384, ge=16)
    max_connections_per_client: int | None = Field(None, ge=1)
    deadline_s: float = Field(60.0, gt=0)
    # Lip sync: the whole job, and the totals of its stages; None: only the whole job is bounded.
    job_deadline_s: float = Field(7200.0, gt=0)
    decode_deadline_s: float | None = Field(None, gt=0)
    inference_deadline_s: float | None = Field(None, gt=0)
    encode_deadline_s: float | None = Field(None, gt=0)
    token: str | None = Field(None, repr=False)
    # PEM files of a certificate, followed by its chain, and of its key; with them every port accepts TLS only.
    tls_cert: Path | None = None
    tls_key: Path | None = Field(None, validate_default=True)
    # Whether only SageMaker's platform can reach the server, so that its headers can be trusted.
    on_sagemaker: bool = False
    # Whether the additional ports for live avatars are open, and on SageMaker every live route; `legacy_ports` and
    # `grpc_port` set the port numbers, 0 is off.
    realtime: bool = False
    tracing: bool = False  # send OpenTelemetry spans to where OTEL_EXPORTER_OTLP_ENDPOINT says
    legacy_ports: Annotated[LegacyPorts | None, BeforeValidator(split_list)] = None
    grpc_port: Port | None = None
    # Live sessions that one client may open; None: 16, but any number from this machine and on SageMaker.
    max_sessions_per_client: int | None = Field(None, ge=1)
    # LiveKit rooms that an avatar joins: the token, or the key and secret with which one is signed.
    livekit_token: str | None = Field(None, repr=False)
    livekit_api_key: str | None = None
    livekit_api_secret: str | None = Field(None, repr=False)
    # STUN and TURN servers of WebRTC sessions; none: only clients that reach the server's own addresses connect.
    ice_servers: Annotated[tuple[str, ...], BeforeValidator(split_list)] = Field((), repr=False)
    # What speaks texts, and the folder of Kokoro's voices.
    tts: Literal["espeak", "kokoro"] = "espeak"
    kokoro_voices: Path | None = None
    # Reverse proxies in front of the server, each of which appends to X-Forwarded-For the address it was called from.
    trusted_proxies: int = Field(0, ge=0, le=8)
    # Names by which the server may be called, such as lips.example.com, besides the loopback names.
    allowed_hosts: Annotated[tuple[str, ...], BeforeValidator(split_list)] = ()
    # Origins such as https://example.com whose pages may call the server, besides the server's own host.
    allowed_origins: Annotated[tuple[str, ...], BeforeValidator(split_list)] = ()
    # Buckets, or "bucket/prefix", that requests may name; "*" leaves it to the permissions of the role.
    allowed_buckets: Annotated[tuple[str, ...], BeforeValidator(split_list)] = ("*",)

    # Durable jobs. database_url: PostgreSQL, None: SQLite in `data_dir`. job_storage: a folder or s3://bucket/prefix
    # that every machine reaches, None: a folder in `data_dir`. job_workers: processes of this server that run jobs,
    # None: 1, or 0 if there is a broker: the workers of `viseme worker`, which its messages wake, run the jobs then.
    # max_jobs_per_process: after which a process is replaced, None: never.
    database_url: str | None = Field(None, repr=False)
    job_storage: str | None = None
    broker_url: str | None = Field(None, repr=False)
    job_workers: int | None = Field(None, ge=0, le=64)
    max_jobs_per_process: int | None = Field(None, ge=1)
    job_attempts: int = Field(5, ge=1, le=100)
    job_days: float = Field(7.0, gt=0)
    job_queue_size: int = Field(100_000, ge=1)
    # Bytes of inputs in the storage of jobs, and bytes that inputs leave free on its disk.
    job_input_bytes: int = Field(100 << 30, gt=0)
    job_min_free_bytes: int = Field(1 << 30, ge=0)
    webhook_secret: str | None = Field(None, repr=False)
    # Hosts, or host:port, that URLs of callers may name although their addresses are private.
    allowed_url_hosts: Annotated[tuple[str, ...], BeforeValidator(split_list)] = ()
    rate_limit: str | None = None  # such as 60/min: requests that start work, of each token or address

    # Lip-reading weights, lip-sync checkpoints: names, files, s3://bucket/key or hf://owner/name; none: those in
    # `model_dir`, else of `hf_model_id`, else the bundled ones. `landmarks`: None for those of the weights' training.
    weights: str | None = None
    checkpoints: Annotated[tuple[str, ...], BeforeValidator(split_list)] = ()
    landmarks: Literal["mediapipe", "dlib"] | None = None
    avatars: Path | None = None  # folder of avatar packages
    model_dir: Path | None = None
    hf_model_id: str | None = None
    hf_token: str | None = Field(None, repr=False)
    hf_endpoint: str | None = None
    hf_offline: bool = False
    s3_endpoint_url: str | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the settings. Raises: InvalidRequest naming a variable that is wrong or unknown."""
        env = os.environ if env is None else env
        own = {PREFIX + field.upper(): field for field in cls.model_fields if field not in EXTERNAL_VARIABLES.values()}
        names = own | EXTERNAL_VARIABLES
        unknown = [key for key in env if key.startswith(PREFIX) and key not in names and key != CLIENT_URL]
        if unknown:
            raise InvalidRequest(f"{unknown[0]}: no such setting; known: {', '.join(names)}")
        values = {field: env[name] for name, field in names.items() if env.get(name)}
        values.setdefault("data_dir", str(default_data_dir(env)))
        values.setdefault("on_sagemaker", str(any(name.startswith("SAGEMAKER_") and env[name] for name in env)))
        try:
            return cls.model_validate(values)
        except ValidationError as err:
            first = err.errors()[0]
            name = next(name for name, field in names.items() if field == first["loc"][0])
            raise InvalidRequest(f"{name}={cls._shown(first)}: {first['msg']}") from err

    def with_overrides(self, **options: object) -> Settings:
        """Return these settings with command-line options applied; None leaves a setting unchanged.

        Raises: InvalidRequest naming the option.
        """
        given = {field: value for field, value in options.items() if value is not None}
        try:
            return Settings.model_validate(self.model_dump() | given)
        except ValidationError as err:
            first = err.errors()[0]
            name = str(first["loc"][0]).replace("_", "-")
            raise InvalidRequest(f"--{name} {self._shown(first)}: {first['msg']}") from err

    @classmethod
    def _shown(cls, error: ErrorDetails) -> str:
        """Return the value of a setting that is wrong, unless it may contain a password."""
        return repr(error["input"]) if cls.model_fields[str(error["loc"][0])].repr else "***"

    @field_validator("tls_key")
    @classmethod
    def tls_key_goes_with_cert(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if "tls_cert" in info.data and (value is None) != (info.data["tls_cert"] is None):
            raise ValueError("a certificate and its key go together: VISEME_TLS_CERT and VISEME_TLS_KEY")
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def hosts_are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not ALLOWED_HOST.fullmatch(host):
                raise ValueError(f"{host!r}: expected a name without scheme and port, *.example.com, an address, or *")
        return tuple(host.lower().removesuffix(".") for host in value)

    @field_validator("ice_servers")
    @classmethod
    def ice_servers_are_stun_or_turn(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            match = ICE_SERVER.fullmatch(server)
            if match is None or (match["username"] is None) != match["scheme"].lower().startswith("stun"):
                raise ValueError("expected stun:HOST[:PORT], or turn:USER:PASSWORD@HOST[:PORT][?transport=tcp]")
            if not unquote(f"{match['username']}{match['password']}").isprintable():
                raise ValueError("expected printable characters in the user and the password of a TURN server")
        return value

    @field_validator("broker_url")
    @classmethod
    def broker_is_redis(cls, value: str | None) -> str | None:
        if value is not None and not BROKER_URL.fullmatch(value):
            raise ValueError("expected redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER], or rediss:// for TLS")
        return value

    @field_validator("allowed_url_hosts")
    @classmethod
    def url_hosts_are_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for host in value:
            if not URL_HOST.fullmatch(host):
                raise ValueError(f"{host!r}: expected a name or an IPv4 address, or one with a port, without scheme")
        return tuple(host.lower() for host in value)

    @field_validator("allowed_origins")
    @classmethod
    def origins_are_as_browsers_send_them(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(normalize_origin(origin) for origin in value)

    @property
    def live_ports(self) -> LivePorts:
        """The ports that are set by number; else all usual ones if `realtime` is set, or none."""
        default = LivePorts(LEGACY_PORTS, GRPC_PORT) if self.realtime else LivePorts((), 0)
        return LivePorts(
            default.legacy if self.legacy_ports is None else self.legacy_ports,
            default.grpc if self.grpc_port is None else self.grpc_port,
        )

    @property
    def n_job_runners(self) -> int:
        """How many jobs this server runs at a time."""
        default = 0 if self.broker_url else 1
        return default if self.job_workers is None else self.job_workers

    @property
    def wanted_threads(self) -> int | None:
        """The limit on the threads of numeric libraries; None: as many as there are cores."""
        return self.threads or wanted_threads()

    @property
    def weights_cache(self) -> Path:
        return self.data_dir / "weights"

    @property
    def boxes_cache(self) -> Path:
        """The directory of the face-box cache."""
        return self.data_dir / "tracks"

    @property
    def weight_sources(self) -> WeightSources:
        return WeightSources(
            cache=self.weights_cache,
            model_dir=self.model_dir,
            hf_model_id=self.hf_model_id,
            hf_endpoint=(self.hf_endpoint or HUB_ENDPOINT).rstrip("/"),
            hf_token=self.hf_token,
            hf_offline=self.hf_offline,
            s3_endpoint_url=self.s3_endpoint_url,
            weights=self.weights,
            checkpoints=self.checkpoints,
            compiled=self.data_dir / "compiled",
        )

    @property
    def media_limits(self) -> MediaLimits:
        return MediaLimits(
            max_bytes=self.max_bytes,
            max_total_pixels=self.max_pixels,
            max_pixels_per_byte=self.max_pixels_per_byte,
            max_duration_s=self.max_duration_s,
        )


def normalize_origin(origin: str) -> str:
    """Return an origin as browsers send it: in lower case, encoded, without a default port and a slash at its end.

    Raises: ValueError if it is not an origin; "*" and "null" (pages without an address) are allowed.
    """
    if origin in ("*", "null"):
        return origin
    match = ORIGIN.fullmatch(origin.lower())
    if match is None or "*" in match["host"]:
        raise ValueError(f"{origin!r}: expected a scheme and a name, such as https://example.com, without a path, or *")
    scheme, host, port = match["scheme"], match["host"], match["port"]
    if host.startswith("["):
        host = f"[{ipaddress.IPv6Address(host[1:-1])}]"
    elif not host.isascii():
        host = host.encode("idna").decode()
    return f"{scheme}://{host}" + (f":{port}" if port and port != DEFAULT_PORTS.get(scheme) else "")


def wanted_threads(env: Mapping[str, str] | None = None) -> int | None:
    """Return OMP_NUM_THREADS, which limits the threads of numeric libraries; None if it is not set to a number."""
    found = (os.environ if env is None else env).get("OMP_NUM_THREADS", "")
    return int(found) or None if found.isdecimal() else None


def visible_gpus(env: Mapping[str, str] | None = None) -> str | None:
    """Return CUDA_VISIBLE_DEVICES, which limits the GPUs that CUDA uses; None if it is not set."""
    return (os.environ if env is None else env).get("CUDA_VISIBLE_DEVICES")


def present_variables(names: Sequence[str], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return those of some variables that are set: what a program of the system gets of the environment."""
    env = os.environ if env is None else env
    return {name: env[name] for name in names if name in env}


def default_data_dir(env: Mapping[str, str]) -> Path:
    """Return the folder viseme in XDG_CACHE_HOME, by default ~/.cache."""
    home = env.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "viseme"
