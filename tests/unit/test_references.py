"""The reference grammar, against what dockerd 20.10 and the docker CLI 28.2 answered for the same names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.errors import InvalidParameter
from silo.images.references import Reference, check_digest, parse_any, parse_reference, tagged

HEX = "0123456789abcdef" * 4

component = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,2}", fullmatch=True)
path = st.lists(component, min_size=1, max_size=3).map("/".join)
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
domain = st.sampled_from(["docker.io", "index.docker.io", "localhost", "localhost:5000", "a.b", "Reg.example.com:443"])


@pytest.mark.parametrize(
    ("text", "normal", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("library/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("docker.io/busybox:x", "docker.io/library/busybox:x", "busybox:x"),
        ("user/app", "docker.io/user/app", "user/app"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/x", "localhost:5000/x", "localhost:5000/x"),
        ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
        ("FOO.com/x:latest", "FOO.com/x:latest", "FOO.com/x:latest"),
        ("Foo/bar", "Foo/bar", "Foo/bar"),
        ("[::1]:5000/a:1", "[::1]:5000/a:1", "[::1]:5000/a:1"),
        ("a_b__c---d.e/f", "a_b__c---d.e/f", "a_b__c---d.e/f"),
        ("sha256:abc", "docker.io/library/sha256:abc", "sha256:abc"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        (f"a:1@sha256:{HEX}", f"docker.io/library/a:1@sha256:{HEX}", f"a:1@sha256:{HEX}"),
    ],
)
def test_names_are_normalised_and_made_familiar(text: str, normal: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (normal, familiar)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "invalid reference format"),
        ("foo:", "invalid reference format"),
        (":foo", "invalid reference format"),
        ("foo:a:b", "invalid reference format"),
        ("-foo", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a___b", "invalid reference format"),
        ("a/", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("a\n", "invalid reference format"),
        ("a@sha256:x", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("Foo", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("Foo:x", "invalid reference format: repository name (library/Foo) must be lowercase"),
        ("foo/Bar", "invalid reference format: repository name (foo/Bar) must be lowercase"),
        ("localhost:5000/Foo", "invalid reference format: repository name (Foo) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a" * 300, "repository name must not be more than 255 characters"),
        ("x@md5:" + "0" * 64, "unsupported digest algorithm"),
        ("x@sha512:" + "0" * 64, "invalid checksum digest length"),
        ("x@sha256:" + "A" * 64, "invalid checksum digest format"),
    ],
)
def test_bad_names_get_dockerds_words(text: str, error: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        parse_reference(text)
    assert str(caught.value) == error


@settings(max_examples=60, deadline=None)
@given(domain, path, tag)
def test_what_is_written_is_read_back(domain: str, path: str, tag: str) -> None:
    reference = parse_reference(f"{domain}/{path}:{tag}")
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
    assert reference.tag == tag


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="aZ0_.-/:@[] \n\u0130", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidParameter:
        return
    assert parse_reference(reference.familiar) == reference


def test_a_key_is_a_digest_or_a_tag() -> None:
    assert parse_reference("a").key() == "docker.io/library/a:latest"
    assert parse_reference(f"a:1@sha256:{HEX}").key() == f"docker.io/library/a@sha256:{HEX}"


def test_an_id_is_no_name() -> None:
    assert parse_any(HEX) == parse_any(f"sha256:{HEX}") == f"sha256:{HEX}"
    assert isinstance(parse_any("abcd"), Reference)


def test_a_tag_beside_the_name_wins() -> None:
    assert tagged("x:1", "2").familiar == "x:2"
    assert tagged("x:1", "").familiar == "x:1"
    assert tagged("x", "").familiar == "x:latest"
    assert tagged(f"x@sha256:{HEX}", "a").familiar == "x:a"
    with pytest.raises(InvalidParameter, match="invalid tag format"):
        tagged("x", "-y")


@pytest.mark.parametrize("text", ["sha256", "sha256:", ":" + HEX, "sha256:" + HEX[:-1], "sha256:" + "g" * 64])
def test_digests_are_checked(text: str) -> None:
    with pytest.raises(InvalidParameter):
        check_digest(text)
