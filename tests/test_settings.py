from pathlib import Path

import pytest

from inference.errors import InvalidRequest
from inference.settings import Settings, wanted_threads


def test_defaults_need_no_environment():
    settings = Settings.from_env({})
    assert settings.weights_cache == Path.home() / ".cache" / "viseme" / "weights"
    assert settings.device == settings.precision == "auto"


def test_the_cache_follows_xdg_and_viseme_data_dir():
    assert Settings.from_env({"XDG_CACHE_HOME": "/x"}).data_dir == Path("/x/viseme")
    assert Settings.from_env({"XDG_CACHE_HOME": "/x", "VISEME_DATA_DIR": "/y"}).data_dir == Path("/y")


def test_limits_are_read():
    limits = Settings.from_env({"VISEME_MAX_BYTES": "5", "VISEME_MAX_PIXELS": "6", "VISEME_MAX_DURATION_S": "7.5"})
    assert limits.media_limits.max_bytes == 5
    assert limits.media_limits.max_total_pixels == 6
    assert limits.media_limits.max_duration_s == 7.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("VISEME_MAX_BYTES", "many"), ("VISEME_MAX_BYTES", "0"), ("VISEME_DEVICE", "tpu"), ("VISEME_PRECISION", "f64")],
)
def test_a_bad_value_is_named(name: str, value: str):
    with pytest.raises(InvalidRequest, match=f"{name}='{value}'"):
        Settings.from_env({name: value})


def test_landmarks_are_the_weights_own_unless_they_are_set():
    assert Settings.from_env({}).landmarks is None
    assert Settings.from_env({"VISEME_LANDMARKS": "dlib"}).landmarks == "dlib"
    with pytest.raises(InvalidRequest, match="VISEME_LANDMARKS='openface': Input should be 'mediapipe' or 'dlib'"):
        Settings.from_env({"VISEME_LANDMARKS": "openface"})


def test_a_setting_that_does_not_exist_is_named():
    with pytest.raises(InvalidRequest, match=r"VISEME_MAX_BITES: no such setting; known: .*VISEME_MAX_BYTES"):
        Settings.from_env({"VISEME_MAX_BITES": "5"})


def test_empty_variables_count_as_unset():
    assert Settings.from_env({"VISEME_DEVICE": ""}).device == "auto"


def test_a_certificate_goes_with_its_key():
    both = Settings.from_env({"VISEME_TLS_CERT": "/tls/cert.pem", "VISEME_TLS_KEY": "/tls/key.pem"})
    assert (both.tls_cert, both.tls_key) == (Path("/tls/cert.pem"), Path("/tls/key.pem"))
    for alone in ("VISEME_TLS_CERT", "VISEME_TLS_KEY"):
        with pytest.raises(InvalidRequest, match=r"VISEME_TLS_KEY=.*go together"):
            Settings.from_env({alone: "/tls/file.pem"})


def test_ports_of_live_avatars_are_open_if_they_are_set():
    assert Settings.from_env({}).live_ports == ((), 0)
    assert Settings.from_env({"VISEME_REALTIME": "true"}).live_ports == ((8084, 8085, 8086), 50051)
    some = Settings.from_env({"VISEME_REALTIME": "1", "VISEME_LEGACY_PORTS": "0,9085", "VISEME_GRPC_PORT": "0"})
    assert some.live_ports == ((0, 9085), 0)
    assert Settings.from_env({"VISEME_GRPC_PORT": "50052"}).live_ports == ((), 50052)


def test_the_command_line_overrides_the_environment():
    settings = Settings.from_env({"VISEME_HOST": "::1", "SAGEMAKER_BIND_TO_PORT": "9000", "VISEME_TOKEN": "secret"})
    found = settings.with_overrides(port=9001, host=None, legacy_ports="9084")
    assert (found.host, found.port, found.token, found.legacy_ports) == ("::1", 9001, "secret", (9084,))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("legacy_ports", "80,many", "--legacy-ports 'many': Input should be a valid integer"),
        ("legacy_ports", "1,2,3,4", "--legacy-ports .*at most 3 items"),
        ("grpc_port", 70_000, "--grpc-port 70000: Input should be less than or equal to 65535"),
    ],
)
def test_a_bad_option_is_named(field: str, value: object, message: str):
    with pytest.raises(InvalidRequest, match=message):
        Settings.from_env({}).with_overrides(**{field: value})


def test_allowed_hosts_are_names_without_scheme_and_port():
    named = Settings.from_env({"VISEME_ALLOWED_HOSTS": "Lips.Example.com., *.example.org,10.0.0.7 ,[2001:DB8::1]"})
    assert named.allowed_hosts == ("lips.example.com", "*.example.org", "10.0.0.7", "[2001:db8::1]")
    assert Settings.from_env({"VISEME_ALLOWED_HOSTS": "*"}).allowed_hosts == ("*",)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://Example.com/", "https://example.com"),
        ("HTTPS://example.com:443", "https://example.com"),
        ("http://example.com:80/", "http://example.com"),
        ("http://example.com:443", "http://example.com:443"),
        ("http://[2001:DB8::1]:3000", "http://[2001:db8::1]:3000"),
        ("http://[2001:0DB8:0::01]", "http://[2001:db8::1]"),
        ("https://Bücher.example", "https://xn--bcher-kva.example"),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("null", "null"),
        ("*", "*"),
    ],
)
def test_allowed_origins_are_compared_as_browsers_send_them(given: str, sent: str):
    assert Settings.from_env({"VISEME_ALLOWED_ORIGINS": given}).allowed_origins == (sent,)


@pytest.mark.parametrize(
    "origin",
    ["example.com", "https://example.com/app", "https://", "https://a@b.example", "a:1", "https://*.example.com"],
)
def test_a_bad_allowed_origin_is_named(origin: str):
    with pytest.raises(InvalidRequest, match=r"VISEME_ALLOWED_ORIGINS=.*: expected a scheme and a name"):
        Settings.from_env({"VISEME_ALLOWED_ORIGINS": origin})


@pytest.mark.parametrize("host", ["https://a.example", "a.example:443", "a.*.example", "::1", "*example", "ä.example"])
def test_a_bad_allowed_host_is_named(host: str):
    with pytest.raises(InvalidRequest, match=r"VISEME_ALLOWED_HOSTS=.*: expected a name without scheme and port"):
        Settings.from_env({"VISEME_ALLOWED_HOSTS": f"good.example,{host}"})


def test_hosts_of_urls_are_names():
    named = Settings.from_env({"VISEME_ALLOWED_URL_HOSTS": "Media.Internal, 10.0.0.7:8080"})
    assert named.allowed_url_hosts == ("media.internal", "10.0.0.7:8080")


@pytest.mark.parametrize("host", ["http://media.internal", "*", "media.internal/clips", "media.internal:", "[::1]"])
def test_hosts_of_urls_that_are_none_stop_the_start(host: str):
    with pytest.raises(InvalidRequest, match=r"VISEME_ALLOWED_URL_HOSTS=.*: expected a name or an IPv4 address"):
        Settings.from_env({"VISEME_ALLOWED_URL_HOSTS": f"good.example,{host}"})


@pytest.mark.parametrize(("value", "expected"), [("4", 4), ("0", None), ("4,2", None), ("", None)])
def test_omp_num_threads_limits_threads(value: str, expected: int | None):
    assert wanted_threads({"OMP_NUM_THREADS": value}) == expected
    assert wanted_threads({}) is None


def test_viseme_threads_limits_threads_before_omp_num_threads(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert Settings.from_env({}).wanted_threads == 4
    assert Settings.from_env({"VISEME_THREADS": "2"}).wanted_threads == 2
    assert Settings.from_env({"VISEME_THREADS": "2"}).with_overrides(threads=3).wanted_threads == 3
    with pytest.raises(InvalidRequest, match="VISEME_THREADS='0'"):
        Settings.from_env({"VISEME_THREADS": "0"})


def test_a_broker_runs_the_jobs_unless_the_server_has_workers_of_its_own():
    assert Settings.from_env({}).n_job_runners == 1
    broker = {"VISEME_BROKER_URL": "redis://:secret@broker:6379/0"}
    assert Settings.from_env(broker).n_job_runners == 0
    assert Settings.from_env(broker | {"VISEME_JOB_WORKERS": "2"}).n_job_runners == 2


@pytest.mark.parametrize(
    "url",
    [
        "redis://broker",
        "redis://127.0.0.1:6379/1",
        "rediss://user:secret@[::1]:6380/0?ssl_ca_certs=/tls/ca.pem",
    ],
)
def test_a_broker_is_redis(url: str):
    assert Settings.from_env({"VISEME_BROKER_URL": url}).broker_url == url


@pytest.mark.parametrize("url", ["amqp://:secret@broker", "redis://:secret@", "redis://:secret@broker/name", "secret"])
def test_a_password_of_a_broker_is_not_shown(url: str):
    with pytest.raises(InvalidRequest, match=r"VISEME_BROKER_URL=\*\*\*: Value error, expected redis://") as raised:
        Settings.from_env({"VISEME_BROKER_URL": url})
    assert "secret" not in str(raised.value)
    with pytest.raises(InvalidRequest, match=r"--broker-url \*\*\*: "):
        Settings.from_env({}).with_overrides(broker_url=url)
    assert "secret" not in repr(Settings.from_env({"VISEME_BROKER_URL": "redis://:secret@broker"}))


def test_ice_servers_are_a_list():
    servers = "stun:stun.example.com, turns:1700:se%2Ccret@turn.example.com:443?transport=tcp"
    found = Settings.from_env({"VISEME_ICE_SERVERS": servers})
    assert found.ice_servers == ("stun:stun.example.com", "turns:1700:se%2Ccret@turn.example.com:443?transport=tcp")
    assert "cret" not in repr(found)


@pytest.mark.parametrize(
    "servers",
    [
        "stun.example.com",
        "turn:turn.example.com",  # without credentials
        "stun:user:pass@stun.example.com",
        "turn:user:pass@turn.example.com?transport=tls",
        "turn:user:p%0Aass@turn.example.com",
    ],
)
def test_an_ice_server_is_checked_without_showing_its_password(servers: str):
    with pytest.raises(InvalidRequest, match=r"VISEME_ICE_SERVERS=\*\*\*: Value error, expected"):
        Settings.from_env({"VISEME_ICE_SERVERS": servers})
