"""What images do without a layer or a kernel: change instructions, filters, times, platforms, the content store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from silo.errors import Corrupt, InvalidParameter, NotFound
from silo.ids import Digest
from silo.images.changes import apply_changes
from silo.images.config import chains, decode_config, image_id
from silo.images.content import ContentStore
from silo.images.filters import compile_pattern, selection
from silo.images.platforms import Platform, host_platform, parse_platform
from silo.images.records import Image, ImageRecord
from silo.images.references import parse_reference
from silo.images.times import nanoseconds, parse_duration, parse_moment, rfc3339
from silo.images.views import inspected
from tests.imagefiles import config, sha256

SECOND = 1_000_000_000


# What dockerd 20.10 made of the same instructions.
@pytest.mark.parametrize(
    ("changes", "made"),
    [
        (["CMD"], {"Cmd": ["/bin/sh", "-c"]}),
        (['CMD ["a", "b"]'], {"Cmd": ["a", "b"]}),
        (['CMD ["a"'], {"Cmd": ["/bin/sh", "-c", '["a"']}),
        (['CMD a"b'], {"Cmd": ["/bin/sh", "-c", 'a"b']}),
        (["cmd  x  y"], {"Cmd": ["/bin/sh", "-c", "x  y"]}),
        (["CMD []"], {}),
        (["CMD a \\\n b"], {"Cmd": ["/bin/sh", "-c", "a  b"]}),
        (["CMD a\nENV b=c"], {"Env": ["b=c"], "Cmd": ["/bin/sh", "-c", "a"]}),
        (["ENTRYPOINT x y"], {"Entrypoint": ["/bin/sh", "-c", "x y"]}),
        (["# comment", "USER a b"], {"User": "a b"}),
        (["WORKDIR x"], {"WorkingDir": "/x"}),
        (["WORKDIR x", "WORKDIR y/../z"], {"WorkingDir": "/x/z"}),
        (["WORKDIR /a b"], {"WorkingDir": "/a b"}),
        (['WORKDIR "/a b"'], {"WorkingDir": "/a b"}),
        (["EXPOSE 1-3"], {"ExposedPorts": {"1/tcp": {}, "2/tcp": {}, "3/tcp": {}}}),
        (["EXPOSE 80/TCP 81 90/udp"], {"ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "90/udp": {}}}),
        (["EXPOSE 8080:80"], {"ExposedPorts": {"80/tcp": {}}}),
        (["ENV a b c"], {"Env": ["a=b c"]}),
        (["ENV a=1 b=$a"], {"Env": ["a=1", "b="]}),
        (
            ["ENV a=1", "ENV b=${a}x c=\\$a d=${zz:-q} e=${a:+set}"],
            {"Env": ["a=1", "b=1x", "c=$a", "d=q", "e=set"]},
        ),
        (["ENV a=\"x y\" b=x\\ y c='p $a'"], {"Env": ["a=x y", "b=x y", "c=p $a"]}),
        (["ENV PATH=/x", "ENV PATH=/y:$PATH"], {"Env": ["PATH=/y:/x"]}),
        (['LABEL "a b"="c d" e=f'], {"Labels": {"a b": "c d", "e": "f"}}),
        (["LABEL a b c"], {"Labels": {"a": "b c"}}),
        (["VOLUME /a /b"], {"Volumes": {"/a": {}, "/b": {}}}),
        (['VOLUME ["a b"]'], {"Volumes": {"a b": {}}}),
        (["ONBUILD RUN x", "ONBUILD COPY a b"], {"OnBuild": ["RUN x", "COPY a b"]}),
        (["STOPSIGNAL SIGRTMIN+3"], {"StopSignal": "SIGRTMIN+3"}),
        (["STOPSIGNAL 9"], {"StopSignal": "9"}),
        (["HEALTHCHECK NONE"], {"Healthcheck": {"Test": ["NONE"]}}),
        (
            ['HEALTHCHECK --interval=5s --timeout=1m30s --retries=3 --start-period=1s CMD ["a","b"]'],
            {
                "Healthcheck": {
                    "Test": ["CMD", "a", "b"],
                    "Interval": 5 * SECOND,
                    "Timeout": 90 * SECOND,
                    "StartPeriod": SECOND,
                    "Retries": 3,
                }
            },
        ),
    ],
)
def test_changes_are_applied_as_dockerd_does(changes: list[str], made: dict[str, Any]) -> None:
    assert apply_changes(changes) == made


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("FOO x", "foo is not a valid change command"),
        ("RUN x", "run is not a valid change command"),
        ("MAINTAINER x", "maintainer is not a valid change command"),
        ("!", "! is not a valid change command"),
        ("#comment", "file with no instructions"),
        ("EXPOSE x", "Invalid containerPort: x"),
        ("EXPOSE 70000", "Invalid containerPort: 70000"),
        ("EXPOSE 80/foo", "Invalid proto: foo"),
        ("EXPOSE", "EXPOSE requires at least one argument"),
        ("ENV x", "ENV must have two arguments"),
        ("ENV =x", "ENV names can not be blank"),
        ("ENV a=b c", 'Syntax error - can\'t find = in "c". Must be of the form: name=value'),
        ("ENV a='b", "unexpected end of statement while looking for matching single-quote"),
        ("LABEL", "LABEL requires at least one argument"),
        ("LABEL a ", "LABEL must have two arguments"),
        ("STOPSIGNAL foo", "Invalid signal: foo"),
        ("STOPSIGNAL 0", "Invalid signal: 0"),
        ("HEALTHCHECK foo", 'Unknown type "FOO" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --foo=1 CMD x", "Unknown flag: foo"),
        ("HEALTHCHECK --interval=1 CMD x", 'time: missing unit in duration "1"'),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("CMD [1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("USER", "USER requires exactly one argument"),
    ],
)
def test_wrong_changes_get_dockerds_words(change: str, error: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        apply_changes([change])
    assert error in str(caught.value)


def test_a_windows_image_has_its_own_shell() -> None:
    assert apply_changes(["CMD dir"], "windows") == {"Cmd": ["cmd", "/S", "/C", "dir"]}


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("*", ["a", "a:1"], ["a/b", ""]),
        ("*/*", ["a/b"], ["a", "a/b/c"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a-c]x", ["dx"], ["ax"]),
        ("[c-a]x", [], ["ax", "bx"]),
        ("a\\*", ["a*"], ["ab"]),
        ("a.b+", ["a.b+"], ["axb", "a.bb"]),
    ],
)
def test_patterns_are_gos(pattern: str, matches: list[str], others: list[str]) -> None:
    compiled = compile_pattern(pattern)
    wanted = [text for text in [*matches, *others] if text]
    assert [text for text in wanted if compiled.fullmatch(text)] == matches


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "a\\", "[a-]", "[^]"])
def test_broken_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InvalidParameter, match="syntax error in pattern"):
        compile_pattern(pattern)


def _image(created: str = "", **more: Any) -> Image:
    raw = config([], created=created, **more)
    return Image(ImageRecord(image_id(raw)), raw, decode_config(raw))


def test_filters_are_checked_and_applied() -> None:
    images = {"old": _image("2020-01-01T00:00:00Z"), "new": _image("2024-06-01T10:20:30.5+02:00"), "odd": _image()}

    def taken(**filters: list[str]) -> list[str]:
        chosen = selection(filters, images.__getitem__)
        return [name for name, image in images.items() if chosen.takes(image)]

    assert taken() == ["old", "new", "odd"]
    assert taken(before=["new"]) == ["old", "odd"]
    assert taken(since=["old"]) == ["new"]
    assert taken(until=["2022-01-01"]) == ["old", "odd"]
    assert taken(until=["24h"]) == ["old", "new", "odd"]
    assert taken(label=["kind"]) == taken(label=["kind=test"]) == ["old", "new", "odd"]
    assert taken(label=["kind=test", "more"]) == []
    for filters, error in [
        ({"foo": ["x"]}, "invalid filter 'foo'"),
        ({"dangling": ["x"]}, "invalid filter 'dangling=[x]'"),
        ({"dangling": ["true", "false"]}, "invalid filter 'dangling=[true false]'"),
        ({"until": ["soon"]}, 'time: invalid duration "soon"'),
    ]:
        with pytest.raises(InvalidParameter) as caught:
            selection(filters, images.__getitem__)
        assert str(caught.value) == error


def test_times_and_durations() -> None:
    assert nanoseconds("1970-01-01T00:00:01.5Z") == 1_500_000_000
    assert nanoseconds("2024-06-01T10:20:30.123456789+02:00") == 1_717_230_030_123_456_789
    assert rfc3339(1_717_230_030_123_456_789) == "2024-06-01T08:20:30.123456789Z"
    assert [nanoseconds(text) for text in ("", "0001-01-01T00:00:00Z", "2024-13-01", "x")] == [None] * 4
    assert parse_duration("1h2m3.5s") == 3_723_500_000_000
    assert parse_duration("-1.5ms") == -1_500_000
    assert parse_moment("10", 0) == 10 * SECOND
    assert parse_moment("1m", 61 * SECOND) == SECOND
    for text in ("", "1x", "s", ".s", "1", "-"):
        with pytest.raises(InvalidParameter):
            parse_duration(text)


def test_platforms() -> None:
    assert parse_platform("linux/x86_64") == Platform("linux", "amd64")
    assert parse_platform("linux/arm64/v8") == Platform("linux", "arm64")
    assert parse_platform("linux/armhf") == Platform("linux", "arm", "v7")
    assert parse_platform("arm64") == Platform("linux", "arm64")
    assert parse_platform("windows") == Platform("windows", host_platform().architecture, host_platform().variant)
    for text in ("foo", "linux/", "a/b/c/d"):
        with pytest.raises(InvalidParameter, match="invalid argument"):
            parse_platform(text)


def test_a_configuration_with_nulls_and_strange_members_is_read() -> None:
    raw = json.dumps(
        {
            "os": None,
            "config": {"Cmd": "sh", "Env": None, "Labels": {"a": "b"}, "Healthcheck": None, "Foo": 1},
            "rootfs": {"type": "layers", "diff_ids": None},
            "history": None,
            "extra": [None],
        }
    ).encode()
    found = decode_config(raw)
    assert found.config.cmd == ["sh"]
    assert found.config.labels == {"a": "b"}
    assert found.rootfs.diff_ids == []


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second = sha256(b"1"), sha256(b"2")
    assert chains(decode_config(config([first, second])).rootfs.diff_ids) == [
        first,
        sha256(f"{first} {second}".encode()),
    ]


@pytest.mark.parametrize(
    ("version", "there", "absent"),
    [
        ((1, 50), {"Cmd", "Labels"}, {"VirtualSize", "Created", "ContainerConfig", "Hostname"}),
        ((1, 44), {"ContainerConfig", "Hostname"}, {"VirtualSize", "Created"}),
        ((1, 41), {"VirtualSize", "Created", "Container", "ContainerConfig", "Hostname"}, set()),
    ],
)
def test_old_clients_see_what_they_know(version: tuple[int, int], there: set[str], absent: set[str]) -> None:
    row = inspected(_image(), [parse_reference("a:1")], 5, {"dir": "x"}, version)
    members = set(row) | set(row["Config"])
    assert there <= members
    assert not absent & members


def test_the_content_store_keeps_what_its_names_say(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    store.prepare()
    one, two = store.put(b"one"), store.put(b"two")
    assert store.put(b"one", one) == one == sha256(b"one")
    assert store.read(one) == b"one"
    assert set(store.digests()) == {one, two}
    with pytest.raises(Corrupt, match=f"content {one}: the data's digest is {two}"):
        store.put(b"two", one)
    for name in ("sha256:" + "0" * 64, "sha256:../../../etc/passwd", ""):
        with pytest.raises(NotFound):
            store.read(Digest(name))
    (store.folder / ".partial-left").write_bytes(b"half")
    (store.folder / two.removeprefix("sha256:")).write_bytes(b"changed")
    with pytest.raises(Corrupt, match="another one"):
        store.read(two)
    assert store.put(b"two") == two
    assert store.read(two) == b"two"
    store.sweep({one})
    assert [path.name for path in store.folder.iterdir()] == [one.removeprefix("sha256:")]
