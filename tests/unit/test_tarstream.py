"""The tar reader: against what GNU tar and Python's tarfile write, and against damage of every kind."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from silo.errors import Corrupt, SiloError, TooLarge
from silo.host.storagefilter.tarstream import MAX_RECORD, Entry, Kind, TarStream


class Source:
    """Bytes in pieces of any size."""

    def __init__(self, data: bytes, piece: int = 1 << 20) -> None:
        self._data, self._piece = data, piece

    def read(self) -> bytes:
        piece, self._data = self._data[: self._piece], self._data[self._piece :]
        return piece


def read(data: bytes, piece: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    stream = TarStream(Source(data, piece))
    return [(entry, b"".join(stream.data())) for entry in stream]


def header(name: str = "f", flag: bytes = b"0", size: bytes = b"0", **fields: bytes) -> bytes:
    """One header block by hand; ``fields`` are ``at_<offset>``."""
    block = bytearray(512)
    block[0:100] = name.encode().ljust(100, b"\0")
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = size.rjust(11, b"0").ljust(12, b"\0") if len(size) < 12 else size
    block[136:148], block[148:156], block[156:157] = b"00000000000\0", b" " * 8, flag
    block[257:265] = b"ustar\x0000"
    for key, value in fields.items():
        at = int(key.removeprefix("at_"))
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def record(text: bytes) -> bytes:
    """A PAX header with ``text`` as its content."""
    return header("pax", b"x", b"%o" % len(text)) + text + b"\0" * (-len(text) % 512)


def pax(**values: str) -> bytes:
    buffer = b""
    for key, value in values.items():
        body = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(body) + len(str(len(body)))
        length = len(body) + len(str(length))
        buffer += str(length).encode() + body
    return record(buffer)


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: name.strip("/")
)


@given(
    name=NAMES,
    target=NAMES,
    size=st.integers(0, 3000),
    numbers=st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, 0o7777)),
    mtime=st.integers(-(1 << 33), 1 << 34),
    form=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE]),
    piece=st.sampled_from([1, 7, 512, 1000, 1 << 20]),
)
@settings(max_examples=300, deadline=None)
def test_it_reads_what_tarfile_writes(name, target, size, numbers, mtime, form, kind, piece) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mtime = kind, mtime
    info.uid, info.gid, info.mode = numbers
    info.linkname = target if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE} else ""
    data = os.urandom(size) if kind == tarfile.REGTYPE else b""
    info.size = len(data)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        tar.addfile(info, io.BytesIO(data))
        tar.addfile(tarfile.TarInfo("last"))
    (entry, content), (last, _) = read(buffer.getvalue(), piece)
    assert (entry.name.rstrip(b"/"), content) == (name.encode().rstrip(b"/"), data)
    assert (entry.uid, entry.gid, entry.mode, entry.mtime_ns) == (*numbers, mtime * 10**9)
    assert entry.target == info.linkname.encode()
    assert last.name == b"last"


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "posix"])
def test_it_reads_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"data" * 1000)
    (tree / "empty").write_bytes(b"")
    (tree / "dir").mkdir()
    (tree / "dir" / ("n" * 80)).write_bytes(b"x")
    (tree / "link").symlink_to("dir/anything")
    (tree / "hard").hardlink_to(tree / "file")
    if form not in {"v7", "ustar"}:
        (tree / ("l" * 200)).write_bytes(b"long")
        (tree / "far").symlink_to("t" * 200)
    if form != "v7":
        os.mkfifo(tree / "fifo")
    os.utime(tree / "file", ns=(0, 1_700_000_000_123_456_789))
    done = subprocess.run(["tar", f"--format={form}", "-C", tree, "-cf", "-", "."], capture_output=True, check=True)
    found = {entry.name.strip(b"/"): (entry, data) for entry, data in read(done.stdout)}
    assert {name.removeprefix(b"./") for name in found} == {
        b".",
        *(os.fsencode(p.relative_to(tree)) for p in tree.rglob("*")),
    }
    assert found[b"./dir"][0].kind is Kind.DIRECTORY
    assert found[b"./link"][0].target == b"dir/anything"
    kinds = {found[b"./file"][0].kind, found[b"./hard"][0].kind}
    assert kinds == {Kind.FILE, Kind.HARD_LINK}
    moment = 1_700_000_000_123_456_789 if form == "posix" else 1_700_000_000_000_000_000
    assert found[b"./file"][0].mtime_ns == moment


@pytest.mark.parametrize(
    "form",
    [
        ["--format=oldgnu"],
        ["--format=gnu"],
        *(["--format=posix", f"--sparse-version={v}"] for v in ("0.0", "0.1", "1.0")),
    ],
)
@pytest.mark.parametrize("holes", [0, 1, 3, 100])
def test_it_reads_sparse_files(tmp_path: Path, form: list[str], holes: int) -> None:
    block = 64 << 10
    with (tmp_path / "sparse").open("wb") as file:
        for number in range(holes):
            file.seek((2 * number + 1) * block)
            file.write(bytes([number + 1]) * block)
        file.truncate((2 * holes + 1) * block)
    done = subprocess.run(["tar", *form, "-S", "-C", tmp_path, "-cf", "-", "sparse"], capture_output=True, check=True)
    ((entry, data),) = read(done.stdout)
    assert entry.name == b"sparse"
    assert entry.size == (2 * holes + 1) * block
    assert entry.fragments is not None
    assert len(data) == entry.stored == holes * block
    whole, at = bytearray(entry.size), 0
    for offset, length in entry.fragments:
        whole[offset : offset + length] = data[at : at + length]
        at += length
    assert whole == (tmp_path / "sparse").read_bytes()


def test_attributes_may_be_any_bytes() -> None:
    value = b"\x00\xff=\n 12 x=y\n"
    body = b" SCHILY.xattr.security.capability=" + value + b"\n"
    data = record(b"%d" % (len(body) + 2) + body) + header("f")
    ((entry, _),) = read(data)
    assert entry.xattrs == {b"security.capability": value}


def test_records_add_up_and_the_last_one_counts() -> None:
    data = pax(path="one", uid="7") + header("l", b"L", b"4") + b"two\0".ljust(512, b"\0") + header("f")
    ((entry, _),) = read(data)
    assert (entry.name, entry.uid) == (b"two", 7)


def test_global_records_are_passed_over() -> None:
    text = b"30 path=this is for everybody\n"
    data = header("pax", b"g", b"%o" % len(text)) + text.ljust(512, b"\0") + header("f")
    ((entry, _),) = read(data)
    assert entry.name == b"f"


@pytest.mark.parametrize("end", [b"", bytes(512), bytes(1024), bytes(10240), bytes(512) + b"after the end, anything"])
def test_an_archive_ends_with_zeros_or_with_the_file(end: bytes) -> None:
    assert [entry.name for entry, _ in read(header("a") + header("b", size=b"1") + b"x".ljust(512, b"\0") + end)] == [
        b"a",
        b"b",
    ]
    assert read(end if end.strip(b"\0") == b"" else b"") == []


def test_the_last_padding_may_be_missing() -> None:
    ((entry, data),) = read(header("a", size=b"3") + b"xyz")
    assert (entry.size, data) == (3, b"xyz")


BAD = {
    "no tar": b"this is no tar at all" * 50,
    "short": b"garbage garbage",
    "checksum": header("f")[:148] + b"000000\0 " + header("f")[156:],
    "data missing": header("f", size=b"1000") + b"x" * 400,
    "half a header": header("f") + header("g")[:200],
    "record missing": header("pax", b"x", b"1000") + b"30 path=short\n",
    "record without its entry": pax(path="x"),
    "negative size": header("f", size=b"\xff" * 12),
    "size beyond all files": header("f", size=b"\xbf" + b"\xff" * 11),
    "size is no number": header("f", size=b"12x45678901\0"),
    "octal with an eight": header("f", size=b"18"),
    "pax size is no number": pax(size="many") + header("f"),
    "pax size is negative": pax(size="-1") + header("f"),
    "pax time is no number": pax(mtime="nan") + header("f"),
    "pax time of infinity": pax(mtime="1e999") + header("f"),
    "pax length is no number": record(b"xx path=f\n") + header("f"),
    "pax length is zero": record(b"0 path=f\n") + header("f"),
    "pax length is too long": record(b"99 path=f\n") + header("f"),
    "pax length is too short": record(b"5 path=f\n") + header("f"),
    "pax without equals": record(b"8 path\n\n") + header("f"),
    "pax without key": record(b"5 =x\n") + header("f"),
    "zero in a path": pax(path="a\0b") + header("f"),
    "zero in a target": pax(linkpath="a\0b") + header("f", b"2"),
    "sparse without size": pax(GNU__sparse__map="0,0") + header("f"),
    "sparse beyond its end": pax(GNU__sparse__map="0,9", GNU__sparse__size="5") + header("f", size=b"11") + b"x" * 512,
    "sparse backwards": pax(GNU__sparse__map="5,1,0,1", GNU__sparse__size="9") + header("f", size=b"2") + b"x" * 512,
    "sparse odd": pax(GNU__sparse__map="5", GNU__sparse__size="9") + header("f"),
    "sparse not a number": pax(GNU__sparse__map="a,b", GNU__sparse__size="9") + header("f"),
    "sparse says less than there is": pax(GNU__sparse__map="0,1", GNU__sparse__size="9")
    + header("f", size=b"2")
    + b"x" * 512,
    "second record of pax without a length": header("pax", b"x", b"20")
    + b"8 a=bcd\nxxxxxxxx".ljust(512, b"\0")
    + header("f"),
    "sparse 1.0 without map": pax(GNU__sparse__major="1", GNU__sparse__realsize="9") + header("f"),
    "sparse 1.0 cut off": pax(GNU__sparse__major="1", GNU__sparse__realsize="9")
    + header("f", size=b"1000")
    + b"9\n".ljust(512, b"1"),
    "old sparse cut off": header("f", b"S", at_482=b"\1", at_483=b"00000000001\0"),
    "old sparse negative": header("f", b"S", at_386=b"\xff" * 12 + b"00000000000\0", at_483=b"00000000001\0"),
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_what_is_damaged_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt, match=r"invalid tar header|unexpected EOF"):
        read(data)


HUGE = {
    "record": header("pax", b"x", b"%o" % (MAX_RECORD + 1)),
    "long name": header("l", b"L", b"77777777777"),
    "record of negative size": header("pax", b"x", b"\xff" * 12),
    "records without end": header("pax", b"g", b"0") * 100 + header("f"),
    "old sparse map without end": header("f", b"S", at_482=b"\1") + (b"1".rjust(504, b"0") + b"\1" + bytes(7)) * 4000,
    "sparse 1.0 of many fragments": pax(GNU__sparse__major="1", GNU__sparse__realsize="9")
    + header("f", size=b"77777777")
    + b"99999999\n".ljust(512, b"\n") * 100,
    "sparse 1.0 of long numbers": pax(GNU__sparse__major="1", GNU__sparse__realsize="9")
    + header("f", size=b"77777777777")
    + b"60000\n".ljust(512, b"0")
    + b"0" * (4 << 20),
}


@pytest.mark.parametrize("data", HUGE.values(), ids=HUGE.keys())
def test_what_is_too_much_is_refused_before_it_is_kept(data: bytes) -> None:
    with pytest.raises(TooLarge):
        read(data)


SEED = pax(path="x" * 200, mtime="1.5", SCHILY__xattr__user__a="b") + header("f", size=b"600") + b"x" * 1024
SPARSE = (
    pax(GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="2000", GNU__sparse__name="s")
    + header("f", size=b"1005")
    + b"1\n100\n5\n".ljust(512, b"\0")
    + b"12345".ljust(512, b"\0")
)


@given(
    base=st.sampled_from(
        [SEED, SPARSE, header("f", b"S", size=b"5", at_386=b"00000000000\00000000005\0") + bytes(512)]
    ),
    changes=st.lists(st.tuples(st.integers(0, 3000), st.binary(min_size=1, max_size=12)), max_size=4),
    cut=st.none() | st.integers(0, 3000),
)
@example(base=SPARSE, changes=[], cut=None)
@settings(max_examples=1500, deadline=None)
def test_whatever_comes_is_read_or_refused(base: bytes, changes: list[tuple[int, bytes]], cut: int | None) -> None:
    """No other exception, and no endless loop, for any damage; the checksum is mended so that it goes deep."""
    data = bytearray(base)
    for at, new in changes:
        data[at : at + len(new)] = new[: max(0, len(data) - at)]
    for start in range(0, len(data) - 511, 512):
        if data[start + 257 : start + 262] == b"ustar":
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + 512])
    try:
        read(bytes(data[:cut]))
    except SiloError:
        pass


def test_kinds_of_directories() -> None:
    assert read(header("d/", b"\0"))[0][0].kind is Kind.DIRECTORY
    assert read(header("d/", b"5", size=b"777"))[0][0].stored == 0
    assert read(header("v", b"V"))[0][0].kind is Kind.OTHER
    assert stat.S_IMODE(read(header("f"))[0][0].mode) == 0o644
