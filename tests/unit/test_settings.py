"""Image and request become one configuration, with dockerd's rules."""

from __future__ import annotations

import pytest

from silo.daemon import settings
from silo.errors import InvalidParameter, Unimplemented
from silo.schema.engine import (
    ContainerConfig,
    ContainerCreate,
    EndpointSettings,
    HealthConfig,
    HostConfig,
    PortBinding,
    RestartPolicy,
    convert,
)


@pytest.mark.parametrize(
    ("user_entrypoint", "user_cmd", "image_entrypoint", "image_cmd", "argv"),
    [
        (None, None, ["/init"], ["a"], ["/init", "a"]),
        (None, ["b"], ["/init"], ["a"], ["/init", "b"]),
        (["/mine"], None, ["/init"], ["a"], ["/mine"]),
        (["/mine"], ["b"], ["/init"], ["a"], ["/mine", "b"]),
        (None, "ls", None, ["a"], ["ls"]),
        ([""], ["b"], ["/init"], ["a"], ["b"]),
        (None, None, None, ["sh"], ["sh"]),
    ],
)
def test_entrypoint_and_command(user_entrypoint, user_cmd, image_entrypoint, image_cmd, argv):
    merged = settings.merge(
        ContainerConfig(entrypoint=user_entrypoint, cmd=user_cmd),
        ContainerConfig(entrypoint=image_entrypoint, cmd=image_cmd),
    )
    assert settings.command_line(merged) == argv


def test_nothing_to_run_is_refused():
    with pytest.raises(InvalidParameter, match="no command specified"):
        settings.merge(ContainerConfig(), ContainerConfig())


def test_the_users_variables_win_and_a_bare_name_removes():
    merged = settings.merge(ContainerConfig(env=["A=1", "B"], cmd=["x"]), ContainerConfig(env=["A=0", "B=0", "C=0"]))
    shown = settings.environment(merged, "h")
    assert "A=1" in shown
    assert "C=0" in shown
    assert not any(entry.startswith("B") for entry in shown)
    assert "HOSTNAME=h" in shown
    assert not any(entry.startswith("TERM") for entry in shown)


def test_a_terminal_gets_term():
    assert "TERM=xterm" in settings.environment(ContainerConfig(tty=True), "h")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1024", 1024), ("10G", 10 << 30), ("1.5m", 3 << 19), ("2 MiB", 2 << 20), ("7kb", 7 << 10), ("3b", 3)],
)
def test_sizes(text, size):
    assert settings.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "1x", "1..2"])
def test_sizes_that_are_none(text):
    with pytest.raises(InvalidParameter):
        settings.parse_size(text)


@pytest.mark.parametrize(
    ("mode", "endpoints", "disabled", "names"),
    [
        ("default", {}, False, ["bridge"]),
        ("nat", {}, False, ["bridge"]),
        ("n", {"n": 1, "m": 1}, False, ["n", "m"]),
        ("n", {"m": 1, "n": 1}, False, ["n", "m"]),
        ("none", {}, False, ["none"]),
        ("host", {}, False, ["host"]),
        ("container:x", {}, False, []),
        ("n", {}, True, ["none"]),
    ],
)
def test_networks_in_nic_order(mode, endpoints, disabled, names):
    assert settings.network_names(mode, endpoints, disabled=disabled) == names


@pytest.mark.parametrize(
    ("config", "host", "text"),
    [
        ({"working_dir": "x"}, {}, "needs to be an absolute path"),
        ({"env": ["=x"]}, {}, "invalid environment variable"),
        ({}, {"memory": 1 << 20}, "6MB"),
        ({}, {"memory_swap": 1 << 30}, "always set the Memory limit"),
        ({}, {"restart_policy": RestartPolicy(name="often")}, "unknown policy 'often'"),
        ({}, {"auto_remove": True, "restart_policy": RestartPolicy(name="always")}, "AutoRemove"),
        ({}, {"oom_score_adj": 2000}, "-1000, 1000"),
        ({}, {"device_requests": [{"Count": -1}]}, "could not select device driver"),
    ],
)
def test_what_cannot_be_right_is_refused(config, host, text):
    with pytest.raises(InvalidParameter, match=text):
        settings.verify(ContainerConfig(**config), HostConfig(**host))


@pytest.mark.parametrize(
    "host",
    [
        {"port_bindings": {"80/tcp": [PortBinding(host_port="80")]}},
        {"publish_all_ports": True},
        {"restart_policy": RestartPolicy(name="always")},
        {"init": True},
        {"links": ["a:b"]},
    ],
)
def test_what_is_not_there_yet_is_refused_and_not_ignored(host):
    with pytest.raises(Unimplemented, match="does not have it yet"):
        settings.verify(ContainerConfig(), HostConfig(**host))


def test_what_has_no_effect_is_warned_about():
    config = ContainerConfig(healthcheck=HealthConfig(test=["CMD", "true"]))
    assert "health check" in settings.warnings(config)[0]
    assert settings.warnings(ContainerConfig()) == []


def test_null_members_are_zero_values():
    body = convert(
        {
            "Image": "x",
            "Cmd": None,
            "Labels": None,
            "HostConfig": {"Memory": None, "PortBindings": {"80/tcp": None}},
            "NetworkingConfig": {"EndpointsConfig": {"n": None}},
        },
        ContainerCreate,
    )
    assert body.host_config.port_bindings == {"80/tcp": []}
    assert body.networking_config.endpoints_config == {"n": EndpointSettings()}


def test_a_wrong_type_names_its_member():
    with pytest.raises(InvalidParameter, match=r"\$\.HostConfig\.Memory"):
        convert({"HostConfig": {"Memory": "much"}}, ContainerCreate)


def test_shown_command_quotes_words_with_blanks():
    assert settings.shown_command(["sh", "-c", "echo hi"]) == "sh -c 'echo hi'"
