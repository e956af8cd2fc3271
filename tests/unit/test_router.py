"""Routes, versions and targets: what a path means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo import errors
from silo.api.problem import STATUS, problem, status_of
from silo.api.router import Router
from silo.api.server import negotiate, split_version
from silo.errors import InvalidParameter
from silo.httpd.messages import Headers, Query, Response
from silo.wire.http1 import Refused, cleaned, split_target


async def handler(request):
    return Response()


@pytest.fixture
def router():
    router = Router()
    for method, pattern in (
        ("GET", "/_ping"),
        ("GET", "/containers/json"),
        ("GET", "/containers/{name}/json"),
        ("DELETE", "/containers/{name}"),
        ("POST", "/containers/create"),
        ("GET", "/images/json"),
        ("GET", "/images/{name:.*}/json"),
        ("POST", "/images/{name:.*}/tag"),
        ("GET", "/exec/{id:[0-9a-f]+}/json"),
    ):
        router.add(method, pattern, handler)
    return router


@pytest.mark.parametrize(
    ("method", "path", "pattern", "params"),
    [
        ("GET", "/_ping", "/_ping", {}),
        ("GET", "/%5Fping", "/_ping", {}),
        ("GET", "/containers/json", "/containers/json", {}),
        ("GET", "/containers/web/json", "/containers/{name}/json", {"name": "web"}),
        ("GET", "/containers/a%2Fb/json", "/containers/{name}/json", {"name": "a/b"}),
        ("GET", "/containers/a%252Fb/json", "/containers/{name}/json", {"name": "a%2Fb"}),
        ("DELETE", "/containers/json", "/containers/{name}", {"name": "json"}),
        ("GET", "/images/json", "/images/json", {}),
        ("GET", "/images/reg:5000/a/b:c/json", "/images/{name:.*}/json", {"name": "reg:5000/a/b:c"}),
        ("GET", "/images/reg%2Fa@sha256:0/json", "/images/{name:.*}/json", {"name": "reg/a@sha256:0"}),
        ("POST", "/images/json/tag", "/images/{name:.*}/tag", {"name": "json"}),
        ("GET", "/exec/0af/json", "/exec/{id:[0-9a-f]+}/json", {"id": "0af"}),
    ],
)
def test_routes(router, method, path, pattern, params):
    route, found = router.match(method, path)
    assert (route.pattern, found) == (pattern, params)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/_ping"),
        ("get", "/_ping"),
        ("GET", "/_ping/"),
        ("GET", "/"),
        ("GET", "/containers/create"),
        ("GET", "/containers//json"),
        ("GET", "/containers/a/b/json"),
        ("GET", "/images//json"),
        ("GET", "/exec/xyz/json"),
    ],
)
def test_what_is_not_there(router, method, path):
    assert router.match(method, path) is None


def test_who_is_cancelled_when_the_client_leaves(router):
    router.add("POST", "/build", handler, cancelled=True)
    router.add("GET", "/must", handler, cancelled=False)
    wanted = {
        ("GET", "/_ping"): True,
        ("POST", "/containers/create"): False,
        ("POST", "/build"): True,
        ("GET", "/must"): False,
    }
    assert {key: router.match(*key)[0].cancelled for key in wanted} == wanted


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/_ping", ("", "/_ping")),
        ("/v1.41/_ping", ("1.41", "/_ping")),
        ("/v1/_ping", ("1", "/_ping")),
        ("/v1.41/", ("1.41", "/")),
        ("/v1.41", ("", "/v1.41")),
        ("/v1.x/_ping", ("", "/v1.x/_ping")),
        ("/volumes/v1.41/x", ("", "/volumes/v1.41/x")),
        ("/v" + "9" * 5000 + "/_ping", ("", "/v" + "9" * 5000 + "/_ping")),
    ],
)
def test_version_prefix(path, parts):
    assert split_version(path) == parts


def test_versions():
    assert negotiate("") == (1, 50)
    assert negotiate("1.24") == (1, 24)
    assert negotiate("1.041") == (1, 41)
    assert negotiate("1.49.3") == (1, 49)
    for asked in ("1.51", "2", "1.50.1", "9" * 20 + ".1"):
        with pytest.raises(
            InvalidParameter, match=f"^client version {asked} is too new. Maximum supported API version is 1.50$"
        ):
            negotiate(asked)
    for asked in ("1.23", "1", "1..", "."):
        with pytest.raises(
            InvalidParameter, match=f"^client version {asked} is too old. Minimum supported API version is 1.24, "
        ):
            negotiate(asked)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a?b=c?d", ("/a", "b=c?d")),
        (b"*", ("*", "")),
        (b"http://host:1/a/b?c", ("/a/b", "c")),
        (b"HTTP://host", ("/", "")),
        (b"/a%20b", ("/a%20b", "")),
    ],
)
def test_targets(target, parts):
    assert split_target(target) == parts


@pytest.mark.parametrize("target", [b"a", b"", b"/a%zz", b"/a%2", b"?x", b"ftp://x/y"])
def test_targets_that_are_none(target):
    with pytest.raises(Refused) as refused:
        split_target(target)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("path", "clean"),
    [
        ("//_ping", "/_ping"),
        ("/a/../_ping", "/_ping"),
        ("/a//b/", "/a/b/"),
        ("/../..", "/"),
        ("/a/./b", "/a/b"),
        ("/a/.b", "/a/.b"),
        ("*", "*"),
    ],
)
def test_clean_paths(path, clean):
    assert cleaned(path) == clean
    assert cleaned(clean) == clean


@given(st.text("/.a", max_size=20))
def test_a_clean_path_is_clean(text):
    assert cleaned(cleaned("/" + text)) == cleaned("/" + text)


def test_query_rules():
    query = Query("a=1&a=2&t=True&f=0&n=No&none=nOne&e=&x=yes&num=-3&bad=1x&big=%209")
    assert (query.get("a"), query.all("a"), query.get("zz"), query.get("zz", "d")) == ("1", ["1", "2"], None, "d")
    assert [query.flag(name) for name in ("t", "f", "n", "none", "e", "x", "zz")] == [
        True,
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert query.flag("zz", default=True)
    assert (query.number("num", 0), query.number("zz", 7), query.number("e", 7)) == (-3, 7, 7)
    for name, text in (("bad", "1x"), ("big", " 9")):
        with pytest.raises(InvalidParameter, match=f'^strconv.Atoi: parsing "{text}": invalid syntax$'):
            query.number(name, 0)


@pytest.mark.parametrize("text", ["1_0", "٣", "0x10", "1.0", "+ 1"])
def test_numbers_that_only_python_reads(text):
    with pytest.raises(InvalidParameter, match="invalid syntax"):
        Query(f"n={text.replace('+', '%2B')}").number("n", 0)


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "9" * 5000])
def test_numbers_beyond_64_bits(text):
    with pytest.raises(InvalidParameter, match="value out of range"):
        Query(f"n={text}").number("n", 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a=%zz", 'invalid URL escape "%zz"'),
        ("a=%4", 'invalid URL escape "%4"'),
        ("a;b", "invalid semicolon separator in query"),
    ],
)
def test_queries_that_cannot_be_parsed(text, sentence):
    query = Query(text)
    with pytest.raises(InvalidParameter, match=f"^{sentence}$"):
        query.flag("a")


def test_headers_know_no_case():
    headers = Headers([("Accept", "a"), ("ACCEPT", "b"), ("Connection", "keep-alive, Upgrade")])
    assert (headers.get("accept"), headers.all("Accept"), "aCCept" in headers, headers.get("x", "d")) == (
        "b",
        ["a", "b"],
        True,
        "d",
    )
    assert headers.has_token("connection", "upgrade")


def test_every_kind_of_error_has_a_status():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SiloError)]
    assert {kind for kind in kinds if kind not in STATUS} == set()

    class Narrower(errors.Conflict):
        pass

    assert status_of(Narrower("x")) == 409
    assert (problem(errors.NotModified("x")).status, problem(errors.NotModified("x")).body) == (304, b"")
    assert problem(Narrower("is taken")).body == b'{"message":"is taken"}\n'
    hidden = problem(KeyError("secret"))
    assert hidden.status == 500
    assert b"secret" not in hidden.body
