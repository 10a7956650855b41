"""Names of one line of refresh tokens, in every kind of store: see ``tests/oauth/test_home.py``."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from proxy.core.grants import Client
from proxy.core.lineage import Record, digest
from proxy.core.secret import Secret
from proxy.oauth.clock import system_clock
from proxy.oauth.home import Home
from proxy.oauth.line import Line, Obtained
from proxy.oauth.store import TokenStore
from tests.oauth import fakes
from tests.oauth.store.places import Place
from tests.oauth.test_line import Rotating

A = replace(fakes.client("a", grant="refresh_token"), refresh_token=Secret("the-configured-one"))
B = replace(A, tenant="b")


def prompt() -> Rotating:
    endpoint = Rotating()
    endpoint.latency = 0.0
    return endpoint


async def refresh(client: Client, store: TokenStore, endpoint: Rotating) -> None:
    """A new process gets the next token, with the next refresh token."""
    line = Line(client, endpoint, store, asked=lambda *_: None, clock=system_clock)
    before = len(endpoint.shown)
    while len(endpoint.shown) == before:  # the first may be what another has got
        assert isinstance(await line.next(rejected=True), Obtained)


async def test_a_line_goes_on_under_another_name(place: Place) -> None:
    endpoint = prompt()
    async with place.opened() as store:
        for client in (A, B, A, replace(B, refresh_token=None)):
            await refresh(client, store, endpoint)
    assert endpoint.shown == ["the-configured-one", "refresh-1", "refresh-2", "refresh-3"]


async def test_a_line_that_an_earlier_version_kept_goes_on_under_another_name(shared_place: Place) -> None:
    endpoint = prompt()
    assert A.refresh_token is not None
    kept = Record(refresh_token=Secret("the-last"), generation=3, seeds=(digest(A.refresh_token),))
    async with shared_place.opened() as store:
        await store.replace(await store.load(A.named), kept)
    async with shared_place.opened() as store:
        await refresh(A, store, endpoint)
    async with shared_place.opened() as store:
        await refresh(B, store, endpoint)
    assert endpoint.shown == ["the-last", "refresh-1"]


async def test_processes_that_find_a_line_at_once_by_several_names_find_one(place: Place) -> None:
    async with place.opened() as one, place.opened() as two, place.opened() as three:
        stores = [one, two, three] * 4
        found = await asyncio.gather(*(Home(store).load((A, B)[at % 2]) for at, store in enumerate(stores)))
    assert {seen.key for seen in found} == {A.line}


async def test_a_name_leads_nobody_to_a_token_who_has_the_store_alone(shared_place: Place) -> None:
    async with shared_place.opened() as store:
        await refresh(A, store, prompt())
        everything = shared_place.everything()
    assert A.refresh_token is not None
    assert (digest(A.refresh_token).encode() in everything) == (not shared_place.encrypted)
    assert not (shared_place.encrypted and b"the-configured-one" in everything)
