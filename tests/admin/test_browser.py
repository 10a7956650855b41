"""The page in a real browser: what people see, press and hear, with few tenants and many, healthy and broken.

With SCREENSHOTS=folder each picture that a test takes is kept there, to be looked at.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright, expect

from proxy.admin.server import AdminServer, ServerOptions
from proxy.core.report import Happening, Headroom, ProxyReport, Tally, TenantReport, TokenState
from proxy.errors import TokenRefused
from tests.admin.fakes import FakeControl, dead, report, tenant
from tests.system import chromium

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="module")]

ATTACK = "<img src=x onerror=alert(1)>"


def living(name: str = "acme", *, left: float = 3000.0, tally: Tally | None = None) -> TenantReport:
    """A tenant whose token has so many seconds left, of an hour, by today's clock."""
    made = replace(tenant(name, tally=tally), expires_in=left, refresh_in=left - 600, expires_at=time.time() + left)
    return replace(made, headroom=Headroom(291, 300))


def weak(name: str) -> TenantReport:
    """A tenant whose old token lives while no new one can be had."""
    told = f"Tenant {name}: the token endpoint gives no answer; check the network."
    return replace(living(name), state=TokenState.STALE, error="unreachable", diagnosis=told, retry_in=12.0)


def many(count: int) -> ProxyReport:
    """Tenants of which each tenth is in trouble, and each twentieth has no token."""
    kinds = {0: dead, 10: weak}
    return report(*(kinds.get(number % 20, living)(f"org-{number:04d}") for number in range(count)))


class Screen:
    """A page open in the browser, and what it shows.

    :ivar complaints: what its console says, policy violations among it
    """

    def __init__(self, page: Page, control: FakeControl, pictures: Path, server: AdminServer) -> None:
        self.page = page
        self.control = control
        self.server = server
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self._pictures = pictures
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda asked: self.foreign.append(asked.url) if "127.0.0.1" not in asked.url else None)

    async def names(self) -> list[str]:
        """The tenants that it lists, in order."""
        names = "all => all.map(e => e.firstChild.textContent)"
        found: list[str] = await self.page.locator("#rows .name").evaluate_all(names)
        return found

    async def picture(self, name: str) -> None:
        data = await self.page.screenshot(path=self._pictures / f"{name}.png")
        assert len(data) > 5_000, "a picture of nothing is smaller"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        # Debian's runs as root here, which its own sandbox refuses.
        browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures are kept."""
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture(loop_scope="module")
async def screen(request: pytest.FixtureRequest, browser: Browser, pictures: Path) -> AsyncIterator[Screen]:
    """A page of ``report(living())``, or of what the test is parametrized with, in the window it asks for."""
    control = FakeControl()
    server = AdminServer(control, ServerOptions(port=0))
    port = await server.start()
    wanted = getattr(request, "param", {})
    context = await browser.new_context(viewport=wanted.get("viewport"), color_scheme=wanted.get("scheme"))
    page = await context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=60_000)
    screen = Screen(page, control, pictures, server)
    control.shown = wanted.get("shown", lambda: report(living()))()
    await page.goto(f"http://127.0.0.1:{port}/")
    await expect(page.locator("#rows .row").first).to_be_visible()
    yield screen
    await context.close()
    await screen.server.close()
    assert screen.complaints == []
    assert screen.foreign == []


def showing(shown: Callable[[], ProxyReport], **wanted: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("screen", [{"shown": shown, **wanted}], indirect=True, ids=[""])


@showing(lambda: report(living("acme", left=3000), living("globex", left=1800)))
async def test_a_token_is_a_bar_that_runs_down_with_its_refresh_marked(screen: Screen) -> None:
    bar = screen.page.get_by_role("meter", name="Token of acme")
    await expect(bar).to_have_attribute("aria-valuetext", re.compile("expires in (50|49) min, refresh in (40|39) min"))
    await expect(bar).to_have_attribute("aria-valuemax", "3600")
    width = "e => e.getBoundingClientRect().width"
    whole, fill, window = [await bar.locator(where).evaluate(width) for where in ("xpath=.", "i", "span")]
    assert 0.78 < fill / whole < 0.86
    assert 0.15 < window / whole < 0.19
    first = int(await bar.get_attribute("aria-valuenow") or 0)
    await expect(bar).not_to_have_attribute("aria-valuenow", str(first))
    assert int(await bar.get_attribute("aria-valuenow") or 0) < first
    await screen.picture("two-healthy")


async def test_it_follows_what_happens(screen: Screen) -> None:
    await expect(screen.page.locator("#state")).to_have_text("ready")
    await expect(screen.page.locator("#latency-hint")).to_have_text("none since this page was opened")
    tally = Tally(replays={"accepted": 5, "refused": 1})
    for status in [200] * 1200 + [502] * 3:
        tally.count(status, 0.02)
    tally.history = (
        Happening(time.time() - 600, "token", "ok"),
        Happening(time.time() - 60, "replay", "accepted"),
        Happening(time.time() - 7200, "token", "invalid_client"),
    )
    screen.control.shown = report(living(tally=tally), living("new"))
    await expect(screen.page.locator("#rows .row")).to_have_count(2)
    await expect(screen.page.locator("#requests-hint")).to_have_text("1,203 requests since the start, 3 × 5xx")
    await expect(screen.page.locator("#replays-hint")).to_have_text("of 6 refused")
    await expect(screen.page.locator("#rate")).not_to_have_text("0")
    await expect(screen.page.locator("#line-head")).to_have_text("Last 5 min")  # it has just been started
    await screen.page.locator("#span").select_option("1 h")
    await expect(screen.page.locator("#line-head")).to_have_text("Last hour")
    line = screen.page.get_by_role("img", name="1 × new token, 1 × refused request sent again")
    await expect(line.locator(".mark")).to_have_count(2)
    await screen.page.locator("#span").select_option("6 h")
    await expect(screen.page.get_by_role("img", name=re.compile("1 × failed token request"))).to_be_visible()
    screen.control.shown = replace(screen.control.shown, draining=True)
    await expect(screen.page.locator("#state")).to_have_text("draining")


@showing(lambda: report(living("fine"), dead(), weak("weak")))
async def test_tenants_in_trouble_come_first_with_what_to_do(screen: Screen) -> None:
    assert await screen.names() == ["dead", "weak", "fine"]
    rows = screen.page.locator("#rows .row")
    await expect(rows.nth(0)).to_contain_text("has no token")
    await expect(rows.nth(0).locator(".trouble")).to_have_text(
        re.compile(r"Check the region and the client id\. Next attempt in \d+ s\.")
    )
    await expect(rows.nth(1)).to_contain_text("can't renew its token")
    await expect(rows.nth(1).locator(".trouble")).to_contain_text("The token endpoint gives no answer")
    await expect(rows.nth(2).locator(".trouble")).to_be_hidden()
    await expect(screen.page.locator("#news")).to_have_text("2 tenants can't get a new token; 1 of them has none left.")
    await expect(screen.page.locator("#state")).to_have_text("ready, with trouble")
    await expect(screen.page).to_have_title("(2) genesys-auth-proxy")
    await screen.picture("three-broken")
    screen.control.shown = report(living("fine"), living("dead"), living("weak"))
    await expect(screen.page.locator("#news")).to_be_empty()
    await expect(screen.page.locator(".trouble:visible")).to_have_count(0)


@showing(lambda: report(dead()))
async def test_without_any_usable_token_it_is_not_ready(screen: Screen) -> None:
    await expect(screen.page.locator("#state")).to_have_text("not ready")
    await expect(screen.page.locator("#news")).to_have_text("No tenant has a usable token.")


@showing(lambda: replace(report(replace(dead(diagnosis=ATTACK), error=ATTACK)), version=ATTACK, listening=(ATTACK,)))
async def test_no_text_of_a_report_becomes_markup(screen: Screen) -> None:
    await expect(screen.page.locator(".trouble")).to_contain_text(ATTACK)
    await expect(screen.page.locator("#version")).to_have_text(ATTACK)
    assert await screen.page.locator("img").count() == 0


async def test_a_press_gets_a_tenant_a_new_token(screen: Screen) -> None:
    button = screen.page.get_by_role("button", name="Refresh the token of acme")
    screen.control.go.clear()
    await button.click()
    await expect(button).to_have_text("Asking…")
    await button.dispatch_event("click")
    screen.control.go.set()
    await expect(button).to_have_text("Done")
    assert screen.control.refreshed == ["acme"], "a second press while it asks is none"
    await expect(button).to_have_text("Refresh")


async def test_a_press_that_fails_says_why(screen: Screen) -> None:
    page = screen.page
    screen.control.go.clear()
    await page.get_by_role("button", name="Refresh the token of acme").click()
    await screen.control.asked.wait()
    failing = screen.control
    failing.refresh_failure = TokenRefused("Tenant acme: check the region first.", error="invalid_client")
    failing.go.set()
    await expect(page.locator(".trouble")).to_have_text("Tenant acme: check the region first.")
    await expect(page.get_by_role("button", name="Refresh the token of acme")).to_have_text("Try again")
    screen.complaints.clear()  # the browser tells of the 502


@showing(lambda: many(2000))
async def test_two_thousand_tenants_can_be_searched_sorted_and_narrowed(screen: Screen) -> None:
    page = screen.page
    await expect(page.locator("#shown")).to_have_text("2,000 tenants")
    await expect(page.locator("#rows .row")).to_have_count(100)
    assert (await screen.names())[:2] == ["org-0000", "org-0020"]
    await screen.picture("two-thousand")
    await page.get_by_role("button", name="Show 100 more of 1,900").click()
    await expect(page.locator("#rows .row")).to_have_count(200)
    assert await page.evaluate("document.activeElement.textContent") == "Refresh", "the focus goes on where it was"
    await page.get_by_label("Sort").select_option("Name")
    await page.locator("#search").focus()
    await expect(page.locator("#rows .row").nth(1)).to_contain_text("org-0001")
    await expect(page.locator("#rows .row")).to_have_count(100)
    await page.get_by_label("Only troubled").check()
    await expect(page.locator("#shown")).to_have_text("200 of 2,000 tenants")
    await page.get_by_label("Search tenants").fill("-101")
    assert await screen.names() == ["org-1010"]
    await page.get_by_label("Search tenants").fill("nobody")
    await expect(page.locator("#empty")).to_have_text("No tenant has such a name.")
    started = time.monotonic()
    await page.get_by_label("Search tenants").fill("")
    await expect(page.locator("#rows .row")).to_have_count(100)
    assert time.monotonic() - started < 10


@showing(lambda: many(3))
async def test_it_works_with_the_keyboard_alone(screen: Screen) -> None:
    page = screen.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the tenants")).to_be_focused()
    await page.keyboard.press("/")
    await page.keyboard.type("org-0002")
    await expect(page.locator("#rows .row")).to_have_count(1)
    button = page.get_by_role("button", name="Refresh the token of org-0002")
    for _ in range(8):
        await page.keyboard.press("Tab")
        if await button.evaluate("e => e === document.activeElement"):
            break
    await expect(button).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(button).to_have_text("Done")
    assert screen.control.refreshed == ["org-0002"]


@showing(lambda: report(living(), weak("weak")))
async def test_a_row_that_has_the_focus_stays_where_it_is(screen: Screen) -> None:
    button = screen.page.get_by_role("button", name="Refresh the token of acme")
    await button.focus()
    screen.control.shown = report(living(), living("weak"), dead("a-new-one"))
    await expect(screen.page.locator("#rows .row")).to_have_count(3)
    await expect(button).to_be_focused()


@showing(lambda: report(living(), dead()))
async def test_a_screen_reader_hears_a_table_with_names(screen: Screen) -> None:
    table = screen.page.get_by_role("table", name="Tenants")
    heard = await table.aria_snapshot()
    for line in (
        '- columnheader "Tenant"',
        '- rowheader "acme',
        '- meter "Token of acme"',
        '- button "Refresh the token of dead"',
        "Check the region and the client id.",
    ):
        assert line in heard, heard
    for landmark in ("banner", "main", "search"):
        await expect(screen.page.get_by_role(landmark)).to_be_visible()


@pytest.mark.parametrize(
    "screen",
    [
        {
            "shown": lambda: report(living("a-name-of-some-length"), dead(), weak("w")),
            "viewport": {"width": 320, "height": 700},
        }
    ],
    indirect=True,
    ids=[""],
)
async def test_a_narrow_window_needs_no_scrolling_sideways(screen: Screen) -> None:
    assert await screen.page.evaluate("document.documentElement.scrollWidth") <= 320
    await screen.picture("narrow")


@pytest.mark.parametrize(
    "screen",
    [{"shown": lambda: many(30), "scheme": scheme} for scheme in ("light", "dark")],
    indirect=True,
    ids=["light", "dark"],
)
async def test_text_can_be_read_in_light_and_dark(screen: Screen, request: pytest.FixtureRequest) -> None:
    contrasts = await screen.page.evaluate(CONTRASTS)
    assert len(contrasts) > 50
    assert min(contrasts.values()) >= 4.5, min(contrasts.items(), key=lambda item: item[1])  # WCAG 2.2, 1.4.3
    await screen.picture(request.node.callspec.id)


async def test_when_the_proxy_is_gone_it_says_so_and_follows_the_next_one(screen: Screen) -> None:
    page = screen.page
    port = int(page.url.rstrip("/").rpartition(":")[2])
    await screen.server.close()
    await expect(page.locator("#state")).to_have_text("connection lost, trying again")
    screen.control.shown = report(living("globex"))
    screen.server = AdminServer(screen.control, ServerOptions(port=port))
    await screen.server.start()
    await expect(page.locator("#state")).to_have_text("ready")
    assert await screen.names() == ["globex"]
    screen.complaints.clear()  # the browser tells of connections that it could not make


async def test_another_sites_page_can_press_nothing(screen: Screen, browser: Browser) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\nConnection: close\r\n\r\n.")
        await writer.drain()
        writer.close()

    admin = screen.page.url
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        page = await browser.new_page()
        await page.goto(f"http://localhost:{other.sockets[0].getsockname()[1]}/")
        for press in (
            f"fetch('{admin}tenants/acme/refresh', {{method: 'POST', mode: 'no-cors'}})",
            f"fetch('{admin}reload', {{method: 'POST', mode: 'no-cors', credentials: 'include'}})",
        ):
            await page.evaluate(f"{press}.catch(() => 0).then(() => 0)")
        form = "const f = document.createElement('form'); f.method = 'post'; document.body.append(f);"
        async with page.expect_navigation():
            await page.evaluate(f"{form} f.action = '{admin}tenants/acme/refresh'; f.submit()")
        assert "not.allowed" in await page.content()
        assert await page.evaluate(f"fetch('{admin}status.json').then(() => 'read', () => 'refused')") == "refused"
        await page.close()
    assert screen.control.refreshed == []
    assert screen.control.reloads == 0


CONTRASTS = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const read = (text) => { const [r, g, b, a] = text.match(/[0-9.]+/g).map(Number); return {r, g, b, a: a ?? 1}; };
  const luminance = ({r, g, b}) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = read(getComputedStyle(e).backgroundColor);
      if (color.a === 1) return color;
    }
    return {r: 255, g: 255, b: 255};
  };
  const found = {};
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || /SCRIPT|STYLE|OPTION/.test(e.tagName)) continue;
    const [one, two] = [luminance(read(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => b - a);
    found[`${e.tagName}.${e.className} ${e.textContent.slice(0, 20)}`] = (one + 0.05) / (two + 0.05);
  }
  return found;
}"""
