"""Networks as containers see them."""

from __future__ import annotations

import pytest

from tests.judge.harness import IMAGE, Engine


def address(engine: Engine, name: str, network: str) -> str:
    return engine.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"]


def test_two_containers_reach_each_other(engine: Engine):
    engine.ok("network", "create", "net")
    engine.ok("run", "-id", "--network", "net", "--name", "one", IMAGE, "sh")
    there = address(engine, "one", "net")
    assert "1 packets received" in engine.ok(
        "run", "--rm", "--network", "net", IMAGE, "ping", "-c", "1", "-W", "5", there
    )


def test_two_networks_do_not(engine: Engine):
    engine.ok("network", "create", "net")
    engine.ok("network", "create", "other")
    engine.ok("run", "-id", "--network", "net", "--name", "one", IMAGE, "sh")
    there = address(engine, "one", "net")
    done = engine.docker("run", "--rm", "--network", "other", IMAGE, "ping", "-c", "1", "-W", "1", there)
    assert done.code != 0


def test_the_gateway_answers_and_is_the_default_route(engine: Engine):
    out = engine.ok(
        "run", "--rm", IMAGE, "sh", "-c", "ip route; ping -c 1 -W 5 $(ip route | awk '/default/ {print $3}')"
    )
    assert out.startswith("default via ")
    assert "1 packets received" in out


def test_none_has_only_lo_and_host_has_the_hosts(engine: Engine):
    assert engine.ok("run", "--rm", "--network", "none", IMAGE, "ls", "/sys/class/net") == "lo"
    assert "eth0" not in engine.ok("run", "--rm", "--network", "none", IMAGE, "ip", "link")
    host = engine.ok("run", "--rm", "--network", "host", IMAGE, "ip", "-o", "link")
    assert engine.mark in host


def test_a_shared_compartment(engine: Engine):
    engine.ok("run", "-id", "--name", "one", IMAGE, "sh")
    there = address(engine, "one", "bridge")
    assert there in engine.ok("run", "--rm", "--network", "container:one", IMAGE, "ip", "addr")


def test_addresses_and_subnets_that_are_asked_for(engine: Engine):
    engine.ok("network", "create", "--subnet", "10.213.0.0/24", "--gateway", "10.213.0.254", "net")
    engine.ok("run", "-id", "--network", "net", "--ip", "10.213.0.77", "--name", "one", IMAGE, "sh")
    assert address(engine, "one", "net") == "10.213.0.77"
    assert "10.213.0.254" in engine.ok("run", "--rm", "--network", "net", IMAGE, "ip", "route")
    done = engine.docker("run", "--rm", "--network", "net", "--ip", "10.213.0.77", IMAGE, "true")
    assert "in use" in done.stderr
    again = engine.docker("network", "create", "--subnet", "10.213.0.0/25", "more")
    assert "Pool overlaps with other one on this address space" in again.stderr
    busy = engine.docker("network", "rm", "net")
    assert "has active endpoints" in busy.stderr


def test_an_internal_network_has_no_way_out(engine: Engine):
    engine.ok("network", "create", "--internal", "inner")
    out = engine.ok("run", "--rm", "--network", "inner", IMAGE, "ip", "route")
    assert "default" not in out


def test_hosts_and_resolv_conf(engine: Engine):
    flags = ["-h", "box", "--add-host", "db:10.1.2.3", "--dns", "10.9.9.9", "--dns-search", "example.org"]
    out = engine.ok("run", "--rm", *flags, IMAGE, "cat", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname")
    assert "10.1.2.3\tdb" in out
    assert "\tbox\n" in out
    assert "nameserver 10.9.9.9\nsearch example.org" in out
    assert out.endswith("\nbox")


def test_several_networks_in_the_order_asked_for(engine: Engine):
    engine.ok("network", "create", "one")
    engine.ok("network", "create", "two")
    engine.ok("create", "--network", "one", "--name", "both", IMAGE, "sh", "-c", "ip -o -4 addr")
    engine.ok("network", "connect", "two", "both")
    out = engine.docker("start", "-a", "both").stdout
    assert address(engine, "both", "one") == ""
    assert [line.split()[1] for line in out.splitlines()] == ["lo", "eth0", "eth1"]


@pytest.mark.parametrize("name", ["bridge", "host", "none"])
def test_the_predefined_networks_are_there(engine: Engine, name):
    assert engine.inspect(name)["Name"] == name
