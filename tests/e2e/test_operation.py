"""What operators do to a proxy at work: reload it, stop it, and nobody's request is lost."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from math import ceil
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK

from tests.support.certificates import ca_file
from tests.support.proxies import RunningProxy
from tests.support.stages import CONTACTS, ECHO, Answer, Stage, Tenant, make_orgs, open_stage, tenant_toml, until

pytestmark = pytest.mark.asyncio(loop_scope="function")

FIRST, SECOND = make_orgs(["first", "second"])


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """The tenant ``second`` is not configured yet."""
    async with open_stage(
        (FIRST, SECOND), "keep_warm = false\n", tenants=lambda org: tenant_toml(org) if org is FIRST else ""
    ) as stage:
        yield stage


@pytest.fixture
def first(stage: Stage) -> Tenant:
    return Tenant(stage, FIRST)


@pytest.fixture
def second(stage: Stage) -> Tenant:
    return Tenant(stage, SECOND)


def change(proxy: RunningProxy, edit: Callable[[str], str]) -> None:
    text = proxy.configuration.read_text("utf-8")
    proxy.configuration.write_text(edit(text), "utf-8")


async def keep_calling(tenant: Tenant, stop: asyncio.Event) -> list[Answer]:
    answers = []
    while not stop.is_set():
        answers.append(await tenant.call("POST", ECHO, data=os.urandom(1000)))
    return answers


async def test_sighup_takes_up_a_new_tenant_while_the_others_work_on(first: Tenant, second: Tenant) -> None:
    proxy, stop = first.stage.proxy, asyncio.Event()
    assert (await second.get()).status == 404
    async with asyncio.TaskGroup() as group:
        working = [group.create_task(keep_calling(first, stop), name="client") for _ in range(5)]
        await until(lambda: first.stage.sandbox.ledger.accepted(first.name) > 20)
        change(proxy, lambda text: text + tenant_toml(SECOND))
        proxy.signal(signal.SIGHUP)
        await proxy.said("configuration reloaded")
        assert (await second.get()).status == 200
        assert (await first.get()).status == 200
        stop.set()
    assert {answer.status for task in working for answer in task.result()} == {200}
    assert first.token_requests == {"ok": 1}, "a token whose client is unchanged stays"


async def test_sighup_keeps_the_old_configuration_where_the_new_one_is_wrong(first: Tenant) -> None:
    proxy = first.stage.proxy
    change(proxy, lambda text: text.replace("keep_warm", "keep_wram"))
    proxy.signal(signal.SIGHUP)
    await proxy.said("keep_wram")
    assert (await first.get()).status == 200
    reload = await first.stage.admin("POST", "/reload")
    assert 400 <= reload.status < 500
    assert b"keep_wram" in reload.body
    assert (await first.get()).status == 200


async def test_a_reload_forgives_a_client_whose_secret_was_mended(first: Tenant) -> None:
    """Whoever reloads has changed something, and need not wait for the end of a pause."""
    first.fault("token_invalid_client", count=1)
    assert (await first.get()).status == 502
    assert (await first.stage.admin("POST", "/reload")).status in (200, 204)
    assert (await first.get()).status == 200


async def test_reloads_forgive_what_they_do_not_change_ten_times_a_minute_at_most(first: Tenant) -> None:
    """Whoever reaches the admin port could have every tenant's login asked as often as it reloads."""
    first.fault("token_invalid_client")
    began = time.monotonic()
    for _ in range(25):
        assert (await first.stage.admin("POST", "/reload")).status == 200
        assert (await first.get()).status == 502
    more = ceil((time.monotonic() - began) / 6)
    assert 10 <= first.token_requests["invalid_client"] <= 10 + more


async def test_a_reload_forgives_at_once_the_tenant_that_it_changes(first: Tenant) -> None:
    first.fault("token_invalid_client")
    for _ in range(15):
        await first.stage.admin("POST", "/reload")
    assert (await first.get()).status == 502
    first.stage.sandbox.faults.clear()
    assert (await first.get()).status == 502, "from memory"
    change(first.stage.proxy, lambda text: text.replace("[tenants.first]", "[tenants.first]\nrefresh_ahead = 61"))
    assert (await first.stage.admin("POST", "/reload")).status == 200
    assert (await first.get()).status == 200
    assert first.token_requests == {"invalid_client": 1, "ok": 1}


@pytest.mark.parametrize("key", ["connect_timeout", "ca_file"])
async def test_a_reload_forgives_all_at_once_where_it_changes_the_way_to_their_logins(
    first: Tenant, key: str, tmp_path: Path
) -> None:
    ca, proxy = ca_file(tmp_path), first.stage.proxy
    change(proxy, lambda text: f'{text}\n[limits]\nconnect_timeout = 5\n[upstream]\nca_file = "{ca}"\n')
    first.fault("token_invalid_client")
    for _ in range(15):
        await first.stage.admin("POST", "/reload")
    assert (await first.get()).status == 502
    first.stage.sandbox.faults.clear()
    if key == "ca_file":
        ca.write_bytes(ca.read_bytes() * 2)
    else:
        change(proxy, lambda text: text.replace("connect_timeout = 5", "connect_timeout = 4"))
    assert (await first.stage.admin("POST", "/reload")).status == 200
    assert (await first.get()).status == 200


async def test_a_reload_has_the_organization_told_by_the_api_that_it_names(first: Tenant) -> None:
    stage = first.stage
    right = f'[tenants.first]\norg_id = "{first.org.id}"'
    wrong = f'{right}\napi_url = "{stage.sandbox.base_url}/nowhere"'
    change(stage.proxy, lambda text: text.replace("[tenants.first]", wrong))
    assert (await stage.admin("POST", "/reload")).status == 200
    assert b"check api_url" in (await first.get()).body
    change(stage.proxy, lambda text: text.replace(wrong, right))
    assert (await stage.admin("POST", "/reload")).status == 200
    assert (await first.get()).status == 200


async def test_a_wrong_new_secret_is_no_outage_while_the_old_token_lives(first: Tenant) -> None:
    assert (await first.get()).status == 200
    good = first.org.clients[0].secret or ""
    change(first.stage.proxy, lambda text: text.replace(good, "wrong"))
    assert (await first.stage.admin("POST", "/reload")).status in (200, 204)
    assert (await first.get()).status == 200

    async def refused() -> bool:
        return bool((await first.status())["error"] == "invalid_client")

    await until(refused)
    assert (await first.get()).status == 200
    assert first.token_requests == {"ok": 1, "invalid_client": 1}
    change(first.stage.proxy, lambda text: text.replace("wrong", good))
    assert (await first.stage.admin("POST", "/reload")).status in (200, 204)
    assert {(await first.get()).status for _ in range(3)} == {200}

    async def mended() -> bool:
        return (await first.status())["error"] is None

    await until(mended)


async def by_hand(tenant: Tenant) -> Answer:
    return await tenant.stage.admin("POST", f"/tenants/{tenant.name}/refresh")


async def test_a_tenant_is_refreshed_by_hand_ten_times_a_minute_at_most(first: Tenant) -> None:
    assert (await first.get()).status == 200
    assert [(await by_hand(first)).status for _ in range(6)] == [200] * 6
    first.fault("token_invalid_client")
    answers = [await by_hand(first) for _ in range(6)]
    assert [answer.status for answer in answers] == [502] * 4 + [503] * 2
    assert first.token_requests == {"ok": 1 + 6, "invalid_client": 4}
    assert 1 <= int(answers[-1].fields["Retry-After"]) <= 6
    assert answers[-1].json["details"] == [{"errorCode": "too_often"}]
    assert (await first.get()).status == 200


async def test_a_renamed_tenant_keeps_its_token_and_is_counted_and_told_by_its_new_name(first: Tenant) -> None:
    assert (await first.get()).status == 200
    change(first.stage.proxy, lambda text: text.replace("[tenants.first]", "[tenants.renamed]"))
    assert (await first.stage.admin("POST", "/reload")).status in (200, 204)
    renamed = Tenant(first.stage, FIRST)
    renamed.name, renamed.path = "renamed", "/t/renamed"
    assert (await renamed.get()).status == 200
    assert first.token_requests == {"ok": 1}
    first.fault("token_invalid_client")
    assert (await first.stage.admin("POST", "/tenants/renamed/refresh")).status == 502
    status = await renamed.status()
    assert "renamed" in status["diagnosis"]
    assert status["token_requests"] == [{"grant": "client_credentials", "outcome": "invalid_client", "count": 1}]


async def test_tenants_of_one_client_share_its_token_and_each_is_told_of_its_requests(first: Tenant) -> None:
    twin = tenant_toml(FIRST).replace("[tenants.first]", "[tenants.twin]")
    change(first.stage.proxy, lambda text: text + twin)
    assert (await first.stage.admin("POST", "/reload")).status in (200, 204)
    other = Tenant(first.stage, FIRST)
    other.name, other.path = "twin", "/t/twin"
    assert {(await first.get()).status, (await other.get()).status} == {200}
    assert first.token_requests == {"ok": 1}
    for tenant in (first, other):
        assert (await tenant.status())["token_requests"][0]["count"] == 1


async def test_a_changed_file_is_taken_up_and_so_is_one_that_is_added(first: Tenant, second: Tenant) -> None:
    proxy = first.stage.proxy
    folder = proxy.configuration.parent / "more.d"
    folder.mkdir()
    change(proxy, lambda text: 'include = ["more.d/*.toml"]\n' + text)
    await proxy.said("configuration reloaded")
    (folder / "second.toml").write_text(tenant_toml(SECOND), "utf-8")

    async def served() -> bool:
        return (await second.get()).status == 200

    await until(served, 15)


async def test_a_reload_takes_up_the_hosts_that_the_admin_port_answers(first: Tenant) -> None:
    stage = first.stage
    fields = {"Host": "proxy.internal"}
    assert (await stage.admin("GET", "/healthz", fields)).status == 403
    change(stage.proxy, lambda text: '[access]\nallowed_hosts = ["proxy.internal"]\n' + text)
    assert (await stage.admin("POST", "/reload")).status in (200, 204)
    assert (await stage.admin("GET", "/healthz", fields)).status == 200


async def test_a_reload_names_what_counts_from_the_next_start_on(first: Tenant) -> None:
    proxy = first.stage.proxy
    assert (await first.get()).status == 200
    change(proxy, lambda text: f'[store]\nurl = "sqlite:another.db"\nencryption_keys = ["{"k" * 32}"]\n{text}')
    answer = await first.stage.admin("POST", "/reload")
    assert (answer.status, answer.json) == (200, {"reloaded": True, "needs_restart": ["store"]})
    assert (await first.stage.admin("GET", "/status.json")).json["needs_restart"] == ["store"]
    assert (await first.get()).status == 200
    assert not (proxy.configuration.parent / "another.db").exists()


async def test_sigterm_waits_for_no_token_request_that_can_be_made_again(first: Tenant) -> None:
    first.fault("token_latency", 60, count=1)
    stage = first.stage
    asking = asyncio.get_running_loop().create_task(stage.admin("POST", "/tenants/first/refresh"), name="operator")
    await first.met("token_latency")
    stage.proxy.signal(signal.SIGTERM)
    assert await stage.proxy.ended() == 0, "within less than drain_timeout"
    await asyncio.wait({asking})


async def test_a_request_in_flight_survives_a_reload_that_removes_its_tenant(first: Tenant) -> None:
    first.fault("api_latency", 0.5, count=1)
    async with asyncio.TaskGroup() as group:
        call = group.create_task(first.get(), name="call")
        await first.met("api_latency")
        change(first.stage.proxy, lambda text: text.replace("[tenants.first]", "[tenants.other]"))
        assert (await first.stage.admin("POST", "/reload")).status in (200, 204)
    assert call.result().status == 200
    assert (await first.get()).status == 404


async def refuses_connections(proxy: RunningProxy) -> bool:
    try:
        _, writer = await asyncio.open_connection(proxy.host, proxy.port)
    except ConnectionRefusedError:
        return True
    writer.transport.abort()
    return False


async def test_sigterm_answers_what_is_in_flight_and_takes_nothing_new(first: Tenant) -> None:
    proxy = first.stage.proxy
    assert (await first.get()).status == 200
    first.fault("api_latency", 1.5, count=20)
    async with asyncio.TaskGroup() as group:
        calls = [
            group.create_task(first.call("POST", CONTACTS, json={"externalId": str(n)}), name="call") for n in range(20)
        ]
        await first.met("api_latency")
        proxy.signal(signal.SIGTERM)
        await proxy.said("stopping")
        await until(lambda: refuses_connections(proxy))
        assert not any(call.done() for call in calls)
    assert {call.result().status for call in calls} == {200}
    assert first.stage.sandbox.ledger.contacts_created[first.name] == 20
    assert await proxy.ended() == 0


async def test_sigterm_tells_web_messaging_guests_to_come_back_elsewhere(first: Tenant) -> None:
    proxy = first.stage.proxy
    url = f"ws://{proxy.host}:{proxy.port}{first.path}/v1?deploymentId={FIRST.deployments[0]}"
    async with connect(url, proxy=None) as socket:
        proxy.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()
        assert socket.close_code == 1001
    assert await proxy.ended() == 0, "within less than drain_timeout"


async def test_sigterm_waits_for_a_body_that_is_still_coming(first: Tenant) -> None:
    proxy, body = first.stage.proxy, os.urandom(300_000)
    half_sent, stopped = asyncio.Event(), asyncio.Event()

    async def halves() -> AsyncIterator[bytes]:
        yield body[:150_000]
        half_sent.set()
        await stopped.wait()
        yield body[150_000:]

    async with asyncio.TaskGroup() as group:
        call = group.create_task(first.call("PUT", ECHO, data=halves()), name="call")
        await half_sent.wait()
        await until(lambda: first.token_requests.total() == 1)
        proxy.signal(signal.SIGTERM)
        await proxy.said("stopping")
        stopped.set()
    answer = call.result()
    assert (answer.status, answer.json["bodySha256"]) == (200, hashlib.sha256(body).hexdigest())
    assert answer.fields["Connection"] == "close"
    assert await proxy.ended() == 0


async def test_sigterm_lets_those_who_wait_for_the_first_token_have_it(first: Tenant) -> None:
    async def connected_ten_times() -> bool:
        return await first.stage.connections() >= 10

    first.fault("token_latency", 1.0, count=1)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(first.get(), name="call") for _ in range(10)]
        await until(connected_ten_times)
        first.stage.proxy.signal(signal.SIGTERM)
    assert {call.result().status for call in calls} == {200}
    assert await first.stage.proxy.ended() == 0


async def test_sigterm_ends_an_idle_proxy_at_once(first: Tenant) -> None:
    """Although the client keeps its connection, and so do we to the upstream."""
    assert (await first.get()).status == 200
    first.stage.proxy.signal(signal.SIGTERM)
    assert await first.stage.proxy.ended() == 0, "within less than drain_timeout"
