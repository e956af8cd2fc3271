"""Reading image archives: the outer tar and its compression, what is spooled, what it means.  No layer is unpacked."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.errors import Corrupt, InvalidParameter, NotFound, SiloError, TooLarge
from silo.images.archive import ArchivedImage, read_archive
from silo.images.outertar import Entry, Event, Inflater, TarReader
from silo.images.platforms import Platform
from silo.images.spool import Spool
from tests.imagefiles import OciLayout, docker_archive, docker_entries, link, named, sha256, tar

HOST = Platform("linux", "amd64")
LAYER = tar([("hello", b"hi")])
OTHER = tar([("hello", b"ho")])


def events(data: bytes, step: int) -> list[Event]:
    reader = TarReader()
    found: list[Event] = []
    for start in range(0, len(data), step):
        found.extend(reader.feed(data[start : start + step]))
    reader.finish()
    merged: list[Event] = []
    for event in found:
        if isinstance(event, bytes) and isinstance(merged[-1], bytes):
            merged[-1] += event
        else:
            merged.append(event)
    return merged


def inflate(data: bytes, step: int = 7) -> bytes:
    inflater = Inflater()
    found = b""
    for start in range(0, len(data), step):
        found += b"".join(inflater.feed(data[start : start + step]))
    return found + inflater.finish()


def spool(data: bytes, folder: Path, **limits: int) -> Spool:
    result = Spool(folder, **limits)
    try:
        for start in range(0, len(data), 1000):
            result.feed(data[start : start + 1000])
        result.finish()
    finally:
        result.close()
    return result


def images(data: bytes, folder: Path) -> list[ArchivedImage]:
    return read_archive(spool(data, folder), HOST)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("step", [1, 511, 512, 100_000])
def test_a_tar_is_split_wherever_it_is_cut(form: int, step: int) -> None:
    long_name = "d" * 60 + "/" + "n" * 90
    names = [long_name] if form == tarfile.USTAR_FORMAT else [long_name, "ü" * 150]
    data = tar([*((name, b"x" * 700) for name in names), ("e", b""), link("l", "e"), ("z", b"end")], form)
    expected: list[Event] = []
    for name in names:
        expected += [Entry(name, "file", 700), b"x" * 700]
    assert events(data, step) == [
        *expected,
        Entry("e", "file", 0),
        Entry("l", "symlink", 0, "e"),
        Entry("z", "file", 3),
        b"end",
    ]


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=1500), st.integers(0, 3000), st.integers(0, 255))
def test_damage_is_an_error_of_ours_or_nothing(noise: bytes, place: int, byte: int) -> None:
    whole = bytearray(tar([("a", b"1" * 600), ("b" * 120, b"2")]))
    if place < len(whole):
        whole[place] = byte
    for data in (noise, bytes(whole), bytes(whole[:place])):
        try:
            events(data, 333)
        except Corrupt:
            pass


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"garbage garbage", "unexpected EOF"),
        (b"garbage " * 100, "archive/tar: invalid tar header"),
        (tar([("a", b"x" * 2000)])[:1000], "unexpected EOF"),
        (tar([("a" * 200, b"x")])[:512], "unexpected EOF"),
    ],
)
def test_garbage_gets_dockerds_words(tmp_path: Path, data: bytes, error: str) -> None:
    with pytest.raises(Corrupt) as caught:
        spool(data, tmp_path)
    assert str(caught.value) == f"Error processing tar file(exit status 1): {error}"


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd.compress, bz2.compress, bytes])
@pytest.mark.parametrize("step", [1, 6, 1000, 10_000_000])
def test_compression_is_seen_by_its_first_bytes(compress: Callable[[bytes], bytes], step: int) -> None:
    data = (b"silo" * 1000 + bytes(range(256))) * (3 if step == 1 else 300)
    assert inflate(compress(data), step) == data


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, zstd.compress, bz2.compress])
def test_members_follow_each_other_and_padding_is_allowed(compress: Callable[[bytes], bytes]) -> None:
    data = compress(b"first ") + compress(b"second") + bytes(700)
    for step in (1, 3, 10_000):
        assert inflate(data, step) == b"first second"
    with pytest.raises(Corrupt, match="unexpected EOF"):
        inflate(compress(b"x" * 5000)[:-6])


def test_pieces_stay_small_however_well_they_were_compressed() -> None:
    inflater = Inflater()
    sizes = [len(piece) for piece in inflater.feed(zstd.compress(bytes(64 << 20)))]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("data", [b"", b"abc", b"abcdef", b"\x1f\x8b"])
def test_short_input_is_plain(data: bytes) -> None:
    assert inflate(data, 1) == data


def test_names_are_labels_and_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "spool"
    folder.mkdir(parents=True)
    data = tar(
        [
            ("../../canary", b"x"),
            ("/abs/olute", b"abs"),
            ("./a/../b", b"x"),
            ("./dot/./slash", b"dot"),
            link("out", "/etc/passwd"),
            link("up", "../../etc/passwd"),
            link("in/er", "../abs/olute"),
            link("hard", "abs/olute", tarfile.LNKTYPE),
            link("loop", "loop"),
        ]
    )
    result = spool(data, folder)
    assert result.get("abs/olute").path.read_bytes() == b"abs"
    assert result.document("in/er") == result.document("hard") == b"abs"
    assert result.document("dot/slash") == b"dot"
    for name in ("../../canary", "canary", "b", "out", "up", "loop", "etc/passwd", "", "..", "/"):
        with pytest.raises(NotFound, match="no such file or directory"):
            result.get(name)
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")} == {"deep"}
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4"]


def test_the_later_entry_of_a_name_wins(tmp_path: Path) -> None:
    result = spool(tar([("a", b"1"), ("a", b"2")]), tmp_path)
    assert result.document("a") == b"2"
    assert len(list(tmp_path.iterdir())) == 1


def test_limits_are_kept(tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="more than 3 entries"):
        spool(tar([(f"{number}", b"") for number in range(4)]), tmp_path, max_entries=3)
    huge = tarfile.TarInfo("huge")
    huge.size = 1 << 40
    with pytest.raises(TooLarge, match="huge"):
        spool(huge.tobuf(), _made(tmp_path / "huge"), max_bytes=1 << 30)
    document = spool(tar([("d", bytes((8 << 20) + 1))]), _made(tmp_path / "x"))
    with pytest.raises(TooLarge, match="d: 8388609 bytes"):
        document.document("d")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_docker_archive_is_read(tmp_path: Path) -> None:
    (image,) = images(docker_archive([LAYER, OTHER], ["a:1", "localhost:5000/b:2"]), tmp_path)
    assert [reference.familiar for reference in image.references] == ["a:1", "localhost:5000/b:2"]
    assert image.config.rootfs.diff_ids == [sha256(LAYER), sha256(OTHER)]
    assert [layer.file.path.read_bytes() for layer in image.layers if layer.file] == [LAYER, OTHER]
    assert image.manifest is None


def test_layers_may_be_links_to_each_other_or_missing(tmp_path: Path) -> None:
    item, entries = docker_entries([LAYER, LAYER], None)
    data = tar([*entries[:2], link("1/layer.tar", "../0/layer.tar"), ("manifest.json", json.dumps([item]).encode())])
    (image,) = images(data, tmp_path)
    assert image.layers[0].file == image.layers[1].file is not None
    assert image.references == ()
    lacking = tar([entries[0], ("manifest.json", json.dumps([item]).encode())])
    (image,) = images(lacking, _made(tmp_path / "x"))
    assert [layer.file for layer in image.layers] == [None, None]


def _docker(manifest: object = None, **change: Any) -> bytes:
    item, entries = docker_entries([LAYER], ["t:1"])
    named_entries = dict(entries) | change.pop("entries", {})
    document = manifest if manifest is not None else [item | change]
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return tar([*named_entries.items(), ("manifest.json", raw)])


@pytest.mark.parametrize(
    ("data", "kind", "error"),
    [
        (tar([]), InvalidParameter, "invalid archive: does not contain a manifest.json"),
        (tar([("bin/sh", b"")]), InvalidParameter, "invalid archive: does not contain a manifest.json"),
        (_docker(b"[{"), Corrupt, "manifest.json: "),
        (_docker({}), Corrupt, "manifest.json: "),
        (_docker(b"\xff\xfe"), Corrupt, "manifest.json: "),
        (_docker(b"[" * 100_000), Corrupt, "manifest.json: "),
        (_docker(b'[{"x":' + b"[" * 100_000), Corrupt, "manifest.json: "),
        (_docker(entries={"config.json": b'{"x":' + b"[" * 100_000}), Corrupt, "invalid image JSON: "),
        (
            _docker(entries={"config.json": b'{"x":' + b"[" * 900 + b"]" * 900 + b"}"}),
            Corrupt,
            "invalid image JSON",
        ),
        (_docker(Config="no.json"), NotFound, "open no.json: no such file or directory"),
        (_docker(Config="../../etc/hostname"), NotFound, "open ../../etc/hostname: no such file"),
        (_docker(RepoTags=["Foo:1"]), InvalidParameter, "repository name (library/Foo) must be lowercase"),
        (_docker(RepoTags=["foo"]), InvalidParameter, 'invalid tag "foo"'),
        (_docker(RepoTags=["foo@sha256:" + "0" * 64]), InvalidParameter, "invalid tag"),
        (_docker(Layers=["a", "b"]), Corrupt, "invalid manifest, layers length mismatch: expected 2, got 1"),
        (_docker(entries={"config.json": b'{"a":'}), Corrupt, "invalid image JSON: "),
        (_docker(entries={"config.json": b"{}"}), Corrupt, "invalid image JSON, no RootFS key (config.json)"),
        (_docker(entries={"config.json": b"[]"}), Corrupt, "no RootFS key"),
        (_docker(entries={"config.json": b'{"rootfs":{"type":"layers","diff_ids":["x"]}}'}), Corrupt, "digest"),
        (
            _docker(entries={"config.json": b'{"rootfs":{"type":"layers"},"history":[{}]}'}, Layers=[]),
            Corrupt,
            "too many non-empty layers in History section",
        ),
    ],
)
def test_wrong_docker_archives_say_what_is_wrong(
    tmp_path: Path, data: bytes, kind: type[SiloError], error: str
) -> None:
    with pytest.raises(kind) as caught:
        images(data, tmp_path)
    assert error in str(caught.value)


def test_an_oci_layout_is_read(tmp_path: Path) -> None:
    layout = OciLayout()
    squeezed = gzip.compress(LAYER)
    first = layout.image([LAYER], [squeezed], **named("docker.io/library/one:1"))
    again = {**first, "annotations": {"org.opencontainers.image.ref.name": "two:2"}}
    third = layout.image([OTHER], annotations={"org.opencontainers.image.ref.name": "v1"})
    one, other = images(layout.archive([first, again, third]), tmp_path)
    assert [reference.familiar for reference in one.references] == ["one:1", "two:2"]
    assert one.manifest is not None
    assert sha256(one.manifest) == first["digest"]
    assert other.references == ()
    assert [layer.file.path.read_bytes() for layer in one.layers if layer.file] == [squeezed]


def test_of_many_platforms_the_hosts_is_taken(tmp_path: Path) -> None:
    layout = OciLayout()
    arm = layout.image([OTHER], platform={"os": "linux", "architecture": "arm64"})
    ours = layout.image([LAYER], platform={"os": "linux", "architecture": "amd64"})
    proof = layout.image([OTHER], annotations={"vnd.docker.reference.type": "attestation-manifest"})
    absent = {**ours, "digest": "sha256:" + "1" * 64}
    index = layout.index([arm, absent, ours, proof])
    top = layout.index([index], **named("multi:1"))
    (image,) = images(layout.archive([top]), tmp_path)
    assert image.config.rootfs.diff_ids == [sha256(LAYER)]
    assert [reference.familiar for reference in image.references] == ["multi:1"]
    (alone,) = images(layout.archive([layout.index([arm], **named("arm:1"))]), _made(tmp_path / "x"))
    assert alone.config.rootfs.diff_ids == [sha256(OTHER)]
    with pytest.raises(NotFound, match="no image for platform linux/s390x"):
        read_archive(spool(layout.archive([top]), _made(tmp_path / "y")), Platform("linux", "s390x"))


def test_an_oci_layout_that_lies_is_refused(tmp_path: Path) -> None:
    layout = OciLayout()
    image = layout.image([LAYER], **named("a:1"))
    for number, name in enumerate(layout.blobs):
        lying = OciLayout()
        lying.blobs = {**layout.blobs, name: layout.blobs[name] + b" "}
        with pytest.raises(Corrupt, match=f"{name}: the content's digest is sha256:"):
            images(lying.archive([image]), _made(tmp_path / str(number)))
    with pytest.raises(Corrupt, match="its descriptor says 5"):
        images(layout.archive([{**image, "size": 5}]), _made(tmp_path / "size"))
    with pytest.raises(Corrupt, match="invalid checksum digest"):
        images(layout.archive([{**image, "digest": "sha256:../../etc/passwd"}]), _made(tmp_path / "digest"))
    with pytest.raises(NotFound, match=r"index\.json: no image manifest"):
        images(layout.archive([]), _made(tmp_path / "none"))


def test_indexes_do_not_nest_without_end(tmp_path: Path) -> None:
    layout = OciLayout()
    deep = layout.image([LAYER])
    for _ in range(6):
        deep = layout.index([deep])
    with pytest.raises(Corrupt, match="nest deeper"):
        images(layout.archive([deep]), tmp_path)


@pytest.mark.parametrize("form", ["--sparse-version=0.0", "--sparse-version=1.0", "--format=gnu"])
def test_sparse_entries_are_passed_over(tmp_path: Path, form: str) -> None:
    with (tmp_path / "holes").open("wb") as file:
        for number in range(60):  # more pieces than a header's own map holds
            file.seek(number << 17)
            file.write(b"x" * 4096)
    (tmp_path / "plain").write_bytes(b"data")
    formats = [form] if "gnu" in form else ["--format=pax", form]
    subprocess.run(["tar", "-cSf", "a.tar", *formats, "holes", "plain"], cwd=tmp_path, check=True)
    result = spool((tmp_path / "a.tar").read_bytes(), _made(tmp_path / "spool"))
    assert result.document("plain") == b"data"
    assert result.find("holes") is None
