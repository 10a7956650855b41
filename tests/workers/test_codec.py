"""What crosses the channel arrives as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proxy.core.report import (
    CallerTally,
    Happening,
    Headroom,
    ProxyReport,
    Tally,
    TenantReport,
    TokenState,
    WorkerReport,
)
from proxy.settings import load
from proxy.workers.codec import pack, pack_settings, unpack, unpack_settings


def busy() -> Tally:
    tally = Tally(
        replays={"accepted": 1},
        token_requests={("client_credentials", "ok"): 2},
        history=(Happening(1.0, "replay", "accepted"),),
    )
    for status in (200, 200, 499, 418):
        tally.count(status, 0.25)
    tally.hear(b"300", b"9", b"\xff", 1000.5)
    return tally


REPORT = ProxyReport(
    "1.2.3", 1000.0, ("http://[::1]:1",), False, True, 3, 2, {404: 1},
    (
        TenantReport("acme", TokenState.STALE, 1.5, 300.0, -1.0, 1001.5, 298.5, "invalid_client", "Wé.", None,
                     Headroom(291, 300), busy()),
        TenantReport("globex", TokenState.NONE, None, None, None, None, None, None, None, None, None, Tally()),
    ),
    {"crm": CallerTally({200: 1}, 2)},
    (WorkerReport(1, None, 2),),
)  # fmt: skip


def test_a_report_arrives_as_it_was() -> None:
    arrived = unpack(ProxyReport, json.loads(json.dumps(pack(REPORT))))
    assert arrived == REPORT
    assert isinstance(arrived.tenants[0].tally.history[0], Happening)
    assert isinstance(arrived.tenants[0].state, TokenState)


@pytest.mark.parametrize("wrong", [[], [1, 2], None, "text", pack(REPORT)[:-1], [*pack(REPORT), 1]])
def test_what_is_no_report_is_refused(wrong: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        unpack(ProxyReport, wrong)


def test_settings_arrive_as_they_were_with_their_secrets(tmp_path: Path) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text(
        '[access]\ncaller_keys = ["0123456789abcdef"]\n[tenants.acme]\nregion = "eu-central-1"\nclient_id = "a"\n'
        'client_secret = "not-a-secret"\ntoken_parameters = { orgName = ["x", "y"] }\n',
        encoding="utf-8",
    )
    settings = load(file)
    arrived = unpack_settings(pack_settings(settings))
    assert arrived == settings
    assert arrived.access.caller_keys[0].key.reveal() == "0123456789abcdef"
    with pytest.raises(TypeError):
        arrived.tenants["other"] = arrived.tenants["acme"]  # type: ignore[index]
