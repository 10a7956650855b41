"""Tenants apart: however a name is spelled, the token that goes upstream is that tenant's, or none goes."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.routing import TENANT_NAME, split, tenant_of
from proxy.errors import BadRequest
from tests.support.rig import Rig, request, rig

NAMES = ("acme", "acme2", "acm", "a-b", "a_b", "e", "xn--80ak6aa92e", "t", "k", "0", "localhost", "api")
"""Near to one another, and to words with a meaning in a target."""

LOOK_ALIKES = {"a": "\u0430", "c": "\u0441", "e": "\uff45", "b": "\u0412", "m": "\u217f", "k": "\u212a", "0": "\u04e8"}


def spellings(name: str) -> Iterator[bytes]:
    """Ways to write a name that some server somewhere takes for it."""
    coded = name.encode()
    yield name.upper().encode()
    yield name.title().encode()
    yield b"".join(b"%%%02x" % byte for byte in coded)
    yield b"".join(b"%%25%02X" % byte for byte in coded)
    yield b"%%%02x%b" % (coded[0], coded[1:])
    for end in b". .. %20 %09 %00 %0a %2e %2f %5c %3f %23 ; ;x : @x".split():
        yield coded + end
        yield end + coded
    for before in (b"x/..", b".", b"..", b"%2e%2e", b"", b"*"):
        yield before + b"/" + coded
        yield before + b"%2f" + coded
    yield coded + b"\\"
    yield "".join(LOOK_ALIKES.get(letter, letter) for letter in name).encode()
    yield "".join(chr(ord(letter) + 0xFEE0) if letter.isalnum() else letter for letter in name).encode()
    yield f"{name}\u200b".encode()
    yield f"\ufeff{name}".encode()
    yield f"{name[0]}\u00ad{name[1:]}".encode()
    yield coded + b"\xc0\xae"


@contextlib.asynccontextmanager
async def many() -> AsyncIterator[Rig]:
    """A tenant for each name; each client has a token with its name in it, and the API tells what it was shown."""

    async def issue(request: web.Request) -> web.Response:
        basic = request.headers["Authorization"].removeprefix("Basic ")
        client = base64.b64decode(basic).decode().partition(":")[0]
        return web.json_response({"access_token": f"token-of-{client}", "token_type": "bearer", "expires_in": 3600})

    async def tell(request: web.Request) -> web.Response:
        return web.Response(text=request.headers.get("Authorization", "none"))

    app = web.Application()
    app.add_routes([web.post("/oauth/token", issue), web.route("*", "/{tail:.*}", tell)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        tenants: dict[str, Mapping[str, object]] = {
            name: {"client_id": name, "login_url": url, "api_url": url} for name in NAMES
        }
        async with rig(tenants=tenants) as proxy:
            yield proxy
    finally:
        await runner.cleanup()


async def shown(proxy: Rig, sent: bytes) -> str | None:
    """The credential that a request brought to the API; None where it was refused."""
    async with proxy.client() as client:
        client.send(sent)
        got = await client.message()
    if got.status == 200:
        return got.body.decode()
    assert got.status in (400, 403, 404)
    return None


def ways(name: bytes) -> Iterator[bytes]:
    """Requests that name a tenant: in the path, in the field and in the host."""
    plain = request("GET", "/api/v2/x")
    yield plain.replace(b"GET /", b"GET /t/%b/" % name)
    yield plain.replace(b"GET /", b"GET http://localhost/t/%b/" % name)
    yield plain.replace(b"Host: localhost\r\n", b"Host: localhost\r\nX-Genesys-Tenant: %b\r\n" % name)
    yield plain.replace(b"Host: localhost\r\n", b"Host: %b.localhost:8080\r\n" % name)


async def test_every_name_finds_its_own_tenant_in_every_way() -> None:
    async with many() as proxy:
        for name in NAMES:
            in_path, absolute, in_field, in_host = ways(name.encode())
            for sent in (in_path, absolute, in_field):
                assert await shown(proxy, sent) == f"Bearer token-of-{name}"
            # A label of a host has no underscore at its end, and some names are none; then nothing goes out.
            assert await shown(proxy, in_host) in (f"Bearer token-of-{name}", None)


async def test_no_spelling_of_a_name_finds_another_tenant() -> None:
    async with many() as proxy:
        for name in ("acme", "a-b", "e"):
            for spelling in spellings(name):
                for sent in ways(spelling):
                    found = await shown(proxy, sent)
                    # A host's name is the same in upper case (RFC 4343); anything else is no tenant at all, or
                    # is one by the part that stands before the next slash.
                    named = spelling.decode("latin-1").lower().partition("/")[0]
                    assert found in (None, f"Bearer token-of-{named}"), (sent, found)
                    if b"Host: localhost" in sent and named != spelling.decode("latin-1").partition("/")[0]:
                        assert found is None, (sent, found)


labels = st.one_of(
    st.sampled_from(NAMES),
    st.text(max_size=12),
    st.sampled_from(NAMES).flatmap(lambda name: st.sampled_from([s.decode("latin-1") for s in spellings(name)])),
)


@given(labels, labels, labels)
def test_what_is_found_is_byte_for_byte_what_was_named(path: str, field: str, host: str) -> None:
    """Path before field before host, each exactly, so that a table of names finds that name or none."""
    names = [part.encode("utf-8", "replace") for part in (path, field, host)]
    target = b"/t/%b/api" % names[0].replace(b"#", b"")
    try:
        found = tenant_of(split(b"GET", target), names[1], names[2] + b".localhost", b"default")
    except BadRequest:
        return
    first = names[0].replace(b"#", b"").partition(b"/")[0].partition(b"?")[0]
    assert found == first
    assert (found.decode("utf-8", "replace") in NAMES) <= (TENANT_NAME.fullmatch(found) is not None)
    in_host = tenant_of(split(b"GET", b"/api"), None, names[2] + b".localhost", b"default")
    assert in_host in (names[2].partition(b":")[0].lower(), b"default")


async def test_connections_that_tenants_share_carry_nothing_of_one_to_another() -> None:
    """HTTP/1.1 authenticates each request by itself (RFC 9110 11.1), so one pool serves all tenants of an API."""
    two: dict[str, Mapping[str, object]] = {"acme": {}, "globex": {"client_id": "another"}}
    async with rig(tenants=two) as proxy, proxy.client() as client:
        acme, globex = (request("GET", f"/t/{name}/api/v2/x") for name in ("acme", "globex"))
        kept = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=of-acme; Path=/\r\nContent-Length: 0\r\n\r\n"
        first, _, upstream = await proxy.exchange(client, acme, kept)
        client.send(globex)
        second = await upstream.message()
        upstream.send(kept)
        await client.message()
        client.send(acme)
        third = await upstream.message()
        upstream.send(kept)
        assert proxy.api.connections == 1
        credentials = [each.all(b"Authorization") for each in (first, second, third)]
        assert credentials[0] == credentials[2] != credentials[1]
        assert all(len(each) == 1 for each in credentials)
        assert all(each.get(b"Cookie") is None for each in (first, second, third))


@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate", "negotiate"])
async def test_no_caller_authenticates_a_connection_that_others_share(scheme: str) -> None:
    async with rig() as proxy, proxy.client() as client:
        guest = "/api/v2/webmessaging/messages"
        client.send(request("GET", guest, f"Authorization: {scheme} TlRMTVNTUAAB"))
        assert (await client.message()).status == 403
        assert proxy.api.connections == 0
        arrived, _, _ = await proxy.exchange(client, request("GET", guest, "Authorization: Bearer jwt"))
        assert arrived.get(b"Authorization") == b"Bearer jwt"
