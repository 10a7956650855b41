"""A corporate network: API and login are reached through a forward proxy, with TLS verified all the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.forward.test_upgrade import AGREED, HANDSHAKE
from tests.support.certificates import ca_file, server_context
from tests.support.forward_proxy import ForwardingProxy, forward_proxy
from tests.support.peers import Peer, Server
from tests.support.rig import OK, Rig, answer, request, rig

pytestmark = pytest.mark.one_loop

API, LOGIN = "api.example.com", "login.example.com"
TOKEN = answer(
    200, body=json.dumps({"access_token": "from-behind", "token_type": "bearer", "expires_in": 600}).encode()
)


@contextlib.asynccontextmanager
async def corporate(
    folder: Path, *, certified: tuple[str, ...] = (API, LOGIN), **upstream: object
) -> AsyncIterator[tuple[Rig, ForwardingProxy, Server]]:
    """A proxy whose API and login have names that only the forward proxy knows.

    :param certified: the names in the certificate of both
    """
    login = Server(server_context(*certified))
    async with forward_proxy() as corp, login:
        api = Server(server_context(*certified))
        urls = {"api_url": f"https://{API}", "login_url": f"https://{LOGIN}"}
        keys = {"proxy": corp.url, "ca_file": str(ca_file(folder)), **upstream}
        soon = {"request_timeout": 1}
        async with rig(api=api, upstream=keys, limits=soon, tenants={"acme": urls}) as proxy:
            corp.ports = {f"{API}:443": api.port, f"{LOGIN}:443": login.port}
            yield proxy, corp, login


async def log_in(login: Server) -> None:
    peer = await login.accept()
    await peer.message()
    peer.send(TOKEN)


async def failed(client: Peer, status: int) -> str:
    client.send(request())
    got = await client.message()
    assert got.status == status
    assert b"word" not in b"".join(got.lines) + got.body
    return str(json.loads(got.body)["message"])


async def test_api_and_login_are_reached_through_it_with_its_credentials_and_nobody_elses(tmp_path: Path) -> None:
    async with corporate(tmp_path) as (proxy, corp, login), proxy.client() as client:
        client.send(request())
        await log_in(login)
        upstream = await proxy.api.accept()
        arrived = await upstream.message()
        upstream.send(OK)
        assert (await client.message()).status == 200
        assert arrived.get(b"Authorization") == b"Bearer from-behind"
        assert arrived.get(b"Host") == API.encode()
        assert arrived.get(b"Proxy-Authorization") is None
        asked = {each.start for each in corp.asked}
        assert asked == {f"CONNECT {host}:443 HTTP/1.1".encode() for host in (API, LOGIN)}
        for each in corp.asked:
            assert each.get(b"Proxy-Authorization") == b"Basic dXNlcjpwYXNzIHdvcmQ="
            assert each.get(b"Authorization") is None
        client.send(request("POST", body=b"again"))
        assert (await upstream.message()).body == b"again"  # the tunnel is kept
        assert len(corp.asked) == 2


async def test_a_websocket_goes_through_it_too(tmp_path: Path) -> None:
    async with corporate(tmp_path) as (proxy, _, login), proxy.client() as client:
        client.send(request("GET", "/api/v2/ws", *HANDSHAKE))
        await log_in(login)
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(AGREED, b"frame")
        assert (await client.head()).status == 101
        assert await client.read(5) == b"frame"
        client.reset()


async def test_the_name_behind_it_is_verified(tmp_path: Path) -> None:
    async with (
        corporate(tmp_path, certified=("other.example.com", LOGIN)) as (proxy, _, login),
        proxy.client() as client,
    ):
        client.send(request())
        await log_in(login)
        got = await client.message()
        assert got.status == 502
        assert b"The certificate of the upstream api.example.com is not trusted" in got.body


async def test_a_login_behind_it_whose_certificate_is_anothers_gets_no_secret(tmp_path: Path) -> None:
    async with corporate(tmp_path, certified=(API, "other.example.com")) as (proxy, _, _), proxy.client() as client:
        assert "the certificate of login.example.com:443 is not trusted" in await failed(client, 503)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "403"),
        (b"nonsense\r\n\r\n", "gave no answer"),
        (b"", "gave no answer"),
        (b"x" * 20_000, "gave no answer"),
    ],
)
async def test_a_login_that_it_does_not_lead_to_is_said_so(tmp_path: Path, said: bytes, words: str) -> None:
    async with corporate(tmp_path) as (proxy, corp, _), proxy.client() as client:
        corp.answer = said
        assert words in await failed(client, 503)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "asks for other credentials (407)"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "refuses a tunnel to the upstream (403)"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "sent more than its answer"),
        (b"nonsense\r\n\r\n", "gave no usable answer"),
        (b"", "gave no usable answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000, "gave no usable answer"),
    ],
)
async def test_an_api_that_it_does_not_lead_to_is_said_so(tmp_path: Path, said: bytes, words: str) -> None:
    async with corporate(tmp_path) as (proxy, corp, login), proxy.client() as client:
        client.send(request("POST", "/oauth/token", body=b"grant_type=client_credentials"))
        await log_in(login)
        assert (await client.message()).status == 200
        corp.answer = said
        assert words in await failed(client, 502)
        assert proxy.api.connections == 0


async def test_one_that_can_not_be_reached_is_named(tmp_path: Path) -> None:
    async with corporate(tmp_path) as (proxy, corp, login), proxy.client() as client:
        client.send(request("POST", "/oauth/token"))
        await log_in(login)
        await client.message()
        corp.server.stop()
        assert "forward proxy can't be reached" in await failed(client, 502)


async def test_this_machine_and_what_no_proxy_names_are_reached_without_it() -> None:
    async with forward_proxy() as corp, rig(upstream={"proxy": corp.url}) as proxy, proxy.client() as client:
        await proxy.exchange(client, request())
        assert corp.asked == []


async def test_a_reload_takes_up_another_way(tmp_path: Path) -> None:
    async with corporate(tmp_path) as (proxy, corp, login), proxy.client() as client:
        client.send(request())
        await log_in(login)
        upstream = await proxy.api.accept()
        await upstream.message()
        upstream.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await client.message()).status == 200
        proxy.edit(f'"{corp.url}"', '"http://127.0.0.1:1"')
        assert await proxy.proxy.reload() == []
        assert "forward proxy can't be reached" in await failed(client, 502)
