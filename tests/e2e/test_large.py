"""Bodies of any size through the program, in memory that does not depend on it, and readers that are slow.

2 GB in each direction: ``make test PYTEST_ARGS='-m slow -k large -s'``, which tells the figures as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.sandbox import Sandbox, SandboxOptions
from tests.support.certificates import ca_file, server_context
from tests.support.flow import PIECE, FlowApi, check_flow, flow_api, framing, send_flow
from tests.support.proxies import RunningProxy, run_proxy
from tests.support.stages import make_orgs, tenant_toml

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of another program is known on Linux")

SMALL, LARGE = 64 << 20, 2 << 30

MOST = 8 << 20
"""Bytes that a transfer of any size may cost beside what an earlier one did: buffers, and the allocator's rounding."""

SLOW, EACH = 10, 16 << 20
"""Slow readers in each direction, and the bytes that each does not read; 320 MB in all."""

HEAD = b"Host: localhost\r\n"


@dataclass(frozen=True, slots=True)
class Way:
    """The program between a client and an API."""

    proxy: RunningProxy
    api: FlowApi

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(self.proxy.host, self.proxy.port, limit=PIECE)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def upload(self, size: int, *, chunked: bool) -> None:
        async with self.client() as (reader, writer):
            target = b"/api/v2/flow/%b/%d" % (b"chunks" if chunked else b"length", size)
            writer.write(b"POST %b HTTP/1.1\r\n%b%b\r\n" % (target, HEAD, framing(size, chunked=chunked)))
            await send_flow(writer, size, chunked=chunked)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 201 "), head

    async def download(self, size: int, *, chunked: bool) -> None:
        async with self.client() as (reader, writer):
            target = b"/api/v2/flow/%b/%d" % (b"chunks" if chunked else b"length", size)
            writer.write(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, HEAD))
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            await check_flow(reader, size, chunked=chunked)

    async def call(self) -> float:
        """Seconds that a small request takes."""
        async with self.client() as (reader, writer):
            started = time.perf_counter()
            writer.write(b"GET /api/v2/x HTTP/1.1\r\n%b\r\n" % HEAD)
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")
            return time.perf_counter() - started


@contextlib.asynccontextmanager
async def through(folder: Path, *, secure: bool) -> AsyncIterator[Way]:
    (org,) = make_orgs(["acme"])
    tls = server_context("localhost") if secure else None
    async with Sandbox(SandboxOptions(orgs=(org,))) as sandbox, flow_api(tls) as api:
        text = (
            f'[listen]\nport = 0\n[admin]\nport = 0\n[upstream]\nca_file = "{ca_file(folder)}"\n'
            f'[defaults]\nlogin_url = "{sandbox.base_url}"\n'
            f'api_url = "{"https" if secure else "http"}://localhost:{api.port}"\n' + tenant_toml(org)
        )
        async with run_proxy(text) as proxy:
            yield Way(proxy, api)


async def carry_all(way: Way, size: int) -> None:
    """A body of this size, in either direction and framing, costs no more memory than small ones."""
    ways = [(carry, chunked) for carry in (way.upload, way.download) for chunked in (False, True)]
    for carry, chunked in ways:
        await carry(8 << 20, chunked=chunked)
    for carry, chunked in ways:
        before, started = way.proxy.most_resident, time.perf_counter()
        await carry(size, chunked=chunked)
        more, seconds = way.proxy.most_resident - before, time.perf_counter() - started
        told = f"{carry.__name__} of {size / 1e6:.0f} MB{' in chunks' if chunked else ''}"
        print(f"{told}: {more / 1e6:.1f} MB of memory more, {seconds:.1f} s")
        assert more < MOST, told
    assert way.api.taken == 4
    assert len(way.api.refused) == 1  # the first upload was sent again with another token, by asking first


@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
async def test_a_large_body_costs_no_more_memory_than_a_small_one(tmp_path: Path, secure: bool) -> None:
    async with through(tmp_path, secure=secure) as way:
        await carry_all(way, SMALL)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
async def test_two_large_gigabytes_cost_no_more_memory(tmp_path: Path, secure: bool) -> None:
    async with through(tmp_path, secure=secure) as way:
        await carry_all(way, LARGE)


async def test_readers_that_are_slow_hold_nobody_else_up_and_cost_little_memory(tmp_path: Path) -> None:
    async with through(tmp_path, secure=False) as way, contextlib.AsyncExitStack() as opened:
        await way.upload(8 << 20, chunked=False)
        await way.download(8 << 20, chunked=False)
        before = way.proxy.most_resident
        way.api.reading.clear()
        async with asyncio.TaskGroup() as uploads:
            readers = []
            for number in range(SLOW):
                uploads.create_task(way.upload(EACH, chunked=number % 2 == 1), name="upload")
                reader, writer = await opened.enter_async_context(way.client())
                writer.write(b"GET /api/v2/flow/length/%d HTTP/1.1\r\n%b\r\n" % (EACH, HEAD))
                readers.append(reader)
            # By now the kernel's buffers are full, and each further call is one beside 20 bodies that don't move.
            await asyncio.sleep(1)
            seconds = [await way.call() for _ in range(50)]
            more = way.proxy.most_resident - before
            middle = statistics.median(seconds)
            print(f"{2 * SLOW} slow readers: {more / 1e6:.1f} MB of memory more, {middle * 1e3:.1f} ms a call")
            assert middle < 0.5
            assert more < SLOW * (2 << 20)
            way.api.reading.set()
        for reader in readers:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await check_flow(reader, EACH, chunked=False)
        assert way.api.taken == 1 + SLOW
