"""Ways in other than a plain port: a Unix socket with its mode and its users, and TLS with or without certificates."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from proxy.wire.server import HANDSHAKE_TIMEOUT
from proxy.wire.unix import UnixSocket
from tests.support.certificates import authority, ca_file
from tests.support.loops import SkippingLoop
from tests.support.peers import Peer
from tests.support.rig import OK, Rig, request, rig
from tests.support.stages import until

UNIX = {"unix_socket": "proxy.sock"}


@contextlib.asynccontextmanager
async def unix_client(path: Path) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def tls_client(proxy: Rig, context: ssl.SSLContext) -> AsyncIterator[Peer]:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", proxy.port, ssl=context, server_hostname="localhost"
        )
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


def trusting(issuer: trustme.CA | None = None, *, certificate: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """A client's TLS that trusts the authority of the tests, or another."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    (issuer or authority()).configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def served_with(folder: Path, issuer: trustme.CA | None = None, **further: object) -> dict[str, object]:
    """Keys of ``[listen]`` for a certificate that is written into a folder."""
    leaf = (issuer or authority()).issue_cert("localhost")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "certificate.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    files = {"tls_certificate": str(folder / "certificate.pem"), "tls_key": str(folder / "key.pem")}
    return {"port": 0, **files, **further}


async def answered(proxy: Rig, client: Peer) -> bool:
    """Whether a request passes; with its answer the upstream's connection ends."""
    client.send(request())
    upstream = await proxy.api.accept()
    await upstream.message()
    upstream.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    return (await client.message()).status == 200


async def let_in(proxy: Rig, context: ssl.SSLContext) -> bool:
    """Whether a client has any answer. With TLS 1.3 it learns that it is refused after its own handshake."""
    try:
        async with tls_client(proxy, context) as client:
            client.send(request("TRACE"))
            await client.read(1)
    except (OSError, asyncio.IncompleteReadError):
        return False
    return True


# --- a Unix socket ---


async def test_a_unix_socket_is_served_alone_unless_a_port_is_given_too() -> None:
    async with rig(listen=UNIX) as proxy:
        path = proxy.file.parent / "proxy.sock"
        assert proxy.proxy.urls == (f"unix:{path}",)
        async with unix_client(path) as client:
            assert await answered(proxy, client)
    assert not path.exists()
    async with rig(listen={**UNIX, "port": 0}) as proxy:
        path = proxy.file.parent / "proxy.sock"
        assert proxy.proxy.urls == (f"unix:{path}", f"http://127.0.0.1:{proxy.port}")
        async with unix_client(path) as client, proxy.client() as other:
            assert await answered(proxy, client)
            assert await answered(proxy, other)


@pytest.mark.parametrize(("given", "mode"), [({}, 0o600), ({"unix_socket_mode": "0660"}, 0o660)])
async def test_a_unix_socket_has_its_mode(given: dict[str, object], mode: int) -> None:
    async with rig(listen={**UNIX, **given}) as proxy:
        assert stat.S_IMODE((proxy.file.parent / "proxy.sock").stat().st_mode) == mode


async def test_only_processes_of_the_users_named_may_connect() -> None:
    me = os.getuid()
    listen = {**UNIX, "unix_socket_users": [me, me + 1]}
    async with rig(listen=listen) as proxy, unix_client(proxy.file.parent / "proxy.sock") as client:
        assert await answered(proxy, client)
    async with rig(listen={**UNIX, "unix_socket_users": [me + 1], "port": 0}) as proxy:
        async with unix_client(proxy.file.parent / "proxy.sock") as client:
            client.send(request())
            got = await client.message()
            assert got.status == 403
            assert b"unix_socket_users" in got.body
            assert await client.rest() == b""
            assert proxy.api.connections == 0
        async with proxy.client() as other:  # they are not asked at the port
            assert await answered(proxy, other)


async def test_host_and_origin_count_on_a_unix_socket_too() -> None:
    async with rig(listen=UNIX) as proxy, unix_client(proxy.file.parent / "proxy.sock") as client:
        client.send(request(host="evil.example"))
        assert (await client.message()).status == 403
        client.send(request("GET", "/api/v2/x", "Origin: https://evil.example"))
        assert (await client.message()).status == 403
        assert proxy.api.connections == 0


def test_a_socket_that_a_dead_program_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    made = UnixSocket.open(path, 0o600)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    made.sock.close()
    made.remove()
    assert not path.exists()


def test_a_socket_that_a_living_program_has_and_a_file_are_left_alone(tmp_path: Path) -> None:
    path, file = tmp_path / "s", tmp_path / "f"
    file.write_text("mine")
    living = UnixSocket.open(path, 0o600)
    with pytest.raises(OSError) as caught:  # noqa: PT011 - its number is looked at
        UnixSocket.open(path, 0o600)
    assert (caught.value.errno, caught.value.filename) == (errno.EADDRINUSE, str(path))
    with pytest.raises(FileExistsError):
        UnixSocket.open(file, 0o600)
    assert file.read_text() == "mine"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    living.sock.close()


def test_a_socket_that_another_program_has_put_there_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "s"
    ours = UnixSocket.open(path, 0o600)
    ours.sock.close()
    theirs = UnixSocket.open(path, 0o600)
    ours.remove()
    assert path.exists() == (theirs.inode != ours.inode)
    theirs.sock.close()


def test_nobody_can_connect_before_the_socket_has_its_mode(tmp_path: Path) -> None:
    seen: list[int] = []

    class Watched(type(tmp_path)):  # type: ignore[misc]  # a class of this system's own
        def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
            seen.append(stat.S_IMODE(self.stat().st_mode))
            super().chmod(mode, follow_symlinks=follow_symlinks)

    before = os.umask(0)
    try:
        made = UnixSocket.open(Watched(tmp_path / "s"), 0o600)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert seen == [0]
    made.sock.close()


# --- TLS ---


async def test_clients_are_served_over_tls_and_not_in_the_clear(tmp_path: Path) -> None:
    async with rig(listen=served_with(tmp_path)) as proxy:
        assert proxy.proxy.url == f"https://127.0.0.1:{proxy.port}"
        async with tls_client(proxy, trusting()) as client:
            assert await answered(proxy, client)
        async with proxy.client() as plain:
            plain.send(request())
            with contextlib.suppress(ConnectionResetError):
                assert not (await plain.rest()).startswith(b"HTTP/")
        await until(lambda: not proxy.client_connections)
        assert proxy.api.connections == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_a_client_that_speaks_no_tls_1_2_is_refused(tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = trusting()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = context.maximum_version = version
    async with rig(listen=served_with(tmp_path)) as proxy:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with tls_client(proxy, context):
                pass
        async with tls_client(proxy, trusting()) as client:
            assert await answered(proxy, client)


async def test_a_client_needs_a_certificate_of_the_authority_named(tmp_path: Path) -> None:
    stranger = trustme.CA()
    listen = served_with(tmp_path, client_ca=str(ca_file(tmp_path)))
    async with rig(listen=listen) as proxy:
        known = trusting(certificate=authority().issue_cert("client.example"))
        async with tls_client(proxy, known) as client:
            assert await answered(proxy, client)
        assert await let_in(proxy, known)
        for context in (trusting(), trusting(certificate=stranger.issue_cert("client.example"))):
            assert not await let_in(proxy, context)
        assert proxy.api.connections == 1


async def test_a_certificate_that_was_renewed_is_served_from_the_next_connection_on(tmp_path: Path) -> None:
    old, new = authority(), trustme.CA()
    async with rig(listen=served_with(tmp_path, old)) as proxy, tls_client(proxy, trusting(old)) as before:
        assert await answered(proxy, before)
        served_with(tmp_path, new)
        assert await proxy.proxy.reload() == []
        async with tls_client(proxy, trusting(new)) as client:
            assert await answered(proxy, client)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with tls_client(proxy, trusting(old)):
                pass
        assert await answered(proxy, before)


async def test_clients_whose_authority_was_taken_out_come_in_no_more(tmp_path: Path) -> None:
    other = trustme.CA()
    listen = served_with(tmp_path, client_ca=str(ca_file(tmp_path)))
    known = trusting(certificate=authority().issue_cert("client.example"))
    async with rig(listen=listen) as proxy:
        async with tls_client(proxy, known) as client:
            assert await answered(proxy, client)
        other.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert await proxy.proxy.reload() == []
        assert not await let_in(proxy, known)


async def test_a_renewed_key_that_does_not_fit_leaves_the_old_pair_in_use(tmp_path: Path) -> None:
    async with rig(listen=served_with(tmp_path)) as proxy:
        authority().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "key.pem")
        (problem,) = await proxy.proxy.reload()
        assert "listen.tls_certificate" in problem
        async with tls_client(proxy, trusting()) as client:
            assert await answered(proxy, client)


async def test_a_handshake_that_stalls_has_an_end(clock: SkippingLoop, tmp_path: Path) -> None:
    async with rig(listen=served_with(tmp_path)) as proxy, proxy.client() as silent:
        silent.send(b"\x16\x03\x01")
        await clock.skip(HANDSHAKE_TIMEOUT - 1)
        assert await silent.silent()
        await clock.skip(1.1)
        with contextlib.suppress(ConnectionResetError):
            assert await silent.rest() == b""
