
"use strict";
(() => {
  const PAGE = 100; // rows drawn before somebody asks for more
  const RATE_OVER = 10; // seconds over which a rate is told
  const SPARK = 120; // seconds of the small graph
  const $ = (id) => document.getElementById(id);

  let head = null;
  let skew = 0; // our clock less the browser's, in seconds
  let order = [];
  let shown = PAGE;
  let arrived = 0; // the browser's clock at the last event
  const tenants = new Map(); // name → {data, samples, row}
  const totals = []; // {at, requests, durations} of the whole, oldest first

  const now = () => Date.now() / 1000 + skew;

  // --- words ---

  function duration(seconds) {
    const s = Math.max(0, Math.round(seconds));
    if (s < 90) return `${s} s`;
    if (s < 90 * 60) return `${Math.round(s / 60)} min`;
    if (s < 48 * 3600) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} days`;
  }
  function number(value) {
    return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
  }
  function millis(seconds) {
    if (seconds === null) return "–";
    if (seconds >= 0.9995) return `${seconds.toFixed(1)} s`;
    return `${seconds * 1000 < 10 ? (seconds * 1000).toFixed(1) : Math.round(seconds * 1000)} ms`;
  }
  const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;

  function set(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
  function attribute(element, name, value) {
    if (element.getAttribute(name) !== value) element.setAttribute(name, value);
  }

  // --- figures ---

  /** The quantile of a histogram, within the bucket that holds it; null if it is empty. */
  function quantile(counts, share) {
    const total = counts.reduce((sum, count) => sum + count, 0);
    if (!total) return null;
    const bounds = head.bounds;
    let rest = share * total;
    for (let bucket = 0; bucket < counts.length; bucket++) {
      if (rest <= counts[bucket]) {
        const low = bucket ? bounds[bucket - 1] : 0;
        return bucket < bounds.length ? low + (bounds[bucket] - low) * (rest / counts[bucket]) : low;
      }
      rest -= counts[bucket];
    }
    return bounds[bounds.length - 1];
  }
  const less = (later, earlier) => later.map((count, bucket) => count - earlier[bucket]);

  /** Keeps samples of the last `seconds`, and one that is older, so that a difference spans them. */
  function keep(samples, sample, seconds) {
    const last = samples[samples.length - 1];
    if (last && sample.requests < last.requests) samples.length = 0; // the program was started anew
    samples.push(sample);
    while (samples.length > 2 && samples[1].at < sample.at - seconds) samples.shift();
  }
  function rateOf(samples, at) {
    const last = samples[samples.length - 1];
    let first = samples[0];
    for (const sample of samples) if (sample.at <= last.at - RATE_OVER) first = sample;
    const span = Math.max(at - first.at, 1);
    return samples.length < 2 ? 0 : (last.requests - first.requests) / span;
  }

  // --- events ---

  function take(event) {
    const data = JSON.parse(event.data);
    head = data;
    skew = data.now - Date.now() / 1000;
    if (!arrived && data.now - data.started_at < 600) $("span").value = "300"; // of an hour, little has happened
    arrived = Date.now();
    nameLine();
    if (data.whole) {
      const named = new Set(data.order);
      for (const [name, tenant] of tenants) {
        if (named.has(name)) continue;
        if (tenant.row) tenant.row.element.remove();
        tenants.delete(name);
      }
      order = data.order;
    }
    for (const entry of data.tenants) {
      const tenant = tenants.get(entry.name) || { samples: [], row: null };
      tenant.data = entry;
      keep(tenant.samples, { at: data.now, requests: entry.requests, durations: entry.durations }, 60);
      tenants.set(entry.name, tenant);
    }
    let requests = 0;
    const durations = data.bounds.map(() => 0).concat(0);
    for (const { data: entry } of tenants.values()) {
      requests += entry.requests;
      entry.durations.forEach((count, bucket) => { durations[bucket] += count; });
    }
    keep(totals, { at: data.now, requests, durations }, SPARK);
    draw();
  }

  // --- the whole ---

  function drawOverview() {
    const all = [...tenants.values()].map((tenant) => tenant.data);
    const last = totals[totals.length - 1];
    set($("version"), head.version);
    set($("listening"), head.listening.length ? `on ${head.listening.join(", ")} · up ${duration(now() - head.started_at)}` : "");
    set($("rate"), number(rateOf(totals, last.at)));
    const failed = all.reduce((sum, entry) => sum + entry.failed, 0);
    set($("requests-hint"), `${plural(last.requests, "request")} since the start, ${number(failed)} × 5xx`);
    const minute = totals.find((sample) => sample.at >= last.at - 60) || totals[0];
    const recent = less(last.durations, minute.durations);
    set($("p50"), millis(quantile(recent, 0.5)));
    const p95 = quantile(recent, 0.95);
    set($("latency-hint"), p95 === null ? `none ${last.at - totals[0].at < 60 ? "since this page was opened" : "in the last minute"}` : `95 % within ${millis(p95)}`);
    const usable = all.filter((entry) => entry.usable).length;
    set($("usable"), number(usable));
    set($("usable-of"), `of ${number(all.length)}`);
    const next = Math.min(...all.filter((entry) => entry.usable).map((entry) => entry.refresh_at));
    set($("tokens-hint"), Number.isFinite(next) ? `next refresh ${next > now() ? `in ${duration(next - now())}` : "due"}` : "");
    const outcome = (name) => all.reduce((sum, entry) => sum + (entry.replays[name] || 0), 0);
    const refused = all.reduce((sum, entry) => sum + Object.values(entry.replays).reduce((a, b) => a + b, 0), 0);
    set($("replays"), number(outcome("accepted")));
    set($("replays-hint"), `of ${number(refused)} refused`);
    set($("clients"), number(head.connections.client));
    set($("connections-hint"), `${number(head.connections.upstream)} to Genesys Cloud`);
    const troubled = all.filter((entry) => entry.troubled);
    set($("troubled-count"), troubled.length ? number(troubled.length) : "");
    const dead = troubled.filter((entry) => !entry.usable).length;
    attribute($("news"), "data-look", dead ? "bad" : "warn");
    set($("news"), !troubled.length ? "" : dead === all.length
      ? `No tenant has a usable token.`
      : `${plural(troubled.length, "tenant")} can't get a new token; ${dead ? `${number(dead)} of them ${dead === 1 ? "has" : "have"} none left.` : "the old ones still last."}`);
    drawState(troubled.length);
    drawSpark();
  }

  function drawState(troubled) {
    const chip = $("state");
    const [look, text] = head.draining ? ["warn", "draining"] : !head.ready ? ["bad", "not ready"]
      : troubled ? ["warn", "ready, with trouble"] : ["good", "ready"];
    attribute(chip, "data-look", look);
    set(chip, text);
    document.title = troubled ? `(${troubled}) genesys-auth-proxy` : "genesys-auth-proxy";
  }

  function drawSpark() {
    const last = totals[totals.length - 1];
    const points = totals.slice(1).map((sample, index) => ({
      x: 120 - (last.at - sample.at), y: (sample.requests - totals[index].requests) / Math.max(0.2, sample.at - totals[index].at),
    })).filter((point) => point.x >= 0);
    const top = Math.max(1, ...points.map((point) => point.y)) * 1.1;
    const line = points.map((point, index) => `${index ? "L" : "M"}${point.x.toFixed(1)} ${(31 - (point.y / top) * 29).toFixed(1)}`).join("");
    const [area, stroke] = $("spark").children;
    attribute(stroke, "d", line);
    attribute(area, "d", points.length > 1 ? `${line}L120 32L${points[0].x.toFixed(1)} 32Z` : "");
  }

  // --- which tenants, in which order ---

  const RANKS = {
    trouble: (tenant) => [tenant.data.troubled ? (tenant.data.usable ? 1 : 0) : 2],
    name: () => [],
    expiry: (tenant) => [tenant.data.expires_at === null ? Infinity : tenant.data.expires_at],
    rate: (tenant) => [-Math.round(rateOf(tenant.samples, head.now))],
    headroom: (tenant) => [tenant.data.headroom ? tenant.data.headroom[0] / Math.max(1, tenant.data.headroom[1]) : Infinity],
  };

  function chosen() {
    const wanted = $("search").value.trim().toLowerCase();
    const rank = RANKS[$("sort").value];
    const found = order.map((name) => tenants.get(name)).filter((tenant) => tenant
      && tenant.data.name.includes(wanted) && (!$("only").checked || tenant.data.troubled));
    const ranked = found.map((tenant) => ({ tenant, rank: rank(tenant)[0] || 0 }));
    ranked.sort((a, b) => a.rank - b.rank || (a.tenant.data.name < b.tenant.data.name ? -1 : 1));
    return ranked.map((entry) => entry.tenant);
  }

  function drawRows() {
    const found = chosen();
    const visible = found.slice(0, shown);
    const rows = $("rows");
    // A row that has the focus is not moved away under it.
    const held = rows.contains(document.activeElement) ? document.activeElement.closest(".row") : null;
    const wanted = new Set(visible.map((tenant) => (tenant.row = tenant.row || makeRow(tenant.data.name)).element));
    for (const element of [...rows.children]) if (!wanted.has(element) && element !== held) element.remove();
    if (!held || [...rows.children].length === 0) {
      let place = rows.firstChild;
      for (const { row } of visible) {
        if (row.element === place) place = place.nextSibling;
        else rows.insertBefore(row.element, place);
      }
    } else {
      for (const { row } of visible) if (!row.element.parentNode) rows.append(row.element);
    }
    for (const tenant of visible) drawRow(tenant);
    const left = found.length - visible.length;
    $("more").hidden = !left;
    set($("more"), `Show ${number(Math.min(left, PAGE))} more of ${number(left)}`);
    set($("shown"), found.length === order.length ? plural(order.length, "tenant") : `${number(found.length)} of ${plural(order.length, "tenant")}`);
    $("empty").hidden = found.length > 0;
    set($("empty"), $("only").checked && !$("search").value ? "No tenant is in trouble." : "No tenant has such a name.");
  }

  // --- a row ---

  function make(tag, className, role, parent) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (role) element.setAttribute("role", role);
    if (parent) parent.append(element);
    return element;
  }

  function makeRow(name) {
    const element = make("div", "row", "row");
    const row = { element };
    const title = make("span", "name", "rowheader", element);
    title.append(name);
    row.state = make("small", "", null, title);
    const token = make("span", "token", "cell", element);
    row.bar = make("span", "bar", "meter", token);
    attribute(row.bar, "aria-label", `Token of ${name}`);
    attribute(row.bar, "aria-valuemin", "0");
    row.fill = make("i", "", null, row.bar);
    row.window = make("span", "window", null, row.bar);
    const under = make("span", "under", null, token);
    row.left = make("span", "", null, under);
    row.next = make("span", "", null, under);
    const line = make("span", "line", "cell", element);
    row.line = make("span", "timeline", "img", line);
    row.flow = make("span", "flow", "cell", element);
    row.rate = make("span", "", null, row.flow);
    row.latency = make("small", "", null, row.flow);
    const headroom = make("span", "left", "cell", element);
    row.headroom = make("span", "", null, headroom);
    row.headroomBar = make("span", "bar", null, headroom);
    row.headroomFill = make("i", "", null, row.headroomBar);
    const act = make("span", "act", "cell", element);
    row.button = make("button", "", null, act);
    row.button.type = "button";
    row.button.append("Refresh");
    attribute(row.button, "aria-label", `Refresh the token of ${name}`);
    row.button.addEventListener("click", () => refresh(name, row));
    row.trouble = make("span", "trouble", "cell", element);
    row.trouble.hidden = true;
    row.told = "";
    return row;
  }

  function drawRow({ data, samples, row }) {
    const look = data.troubled ? (data.usable ? "warn" : "bad") : "";
    attribute(row.element, "data-look", look);
    attribute(row.state, "data-look", look);
    set(row.state, data.troubled ? (data.usable ? "can't renew its token" : "has no token") : data.usable ? "" : data.state === "none" ? "not asked for yet" : data.state);
    drawToken(data, row, look);
    drawLine(data, row);
    const rate = rateOf(samples, head.now);
    set(row.rate, `${number(rate)} /s`);
    const recent = samples.length > 1 ? less(samples[samples.length - 1].durations, samples[0].durations) : [];
    const median = quantile(recent, 0.5);
    set(row.latency, median === null ? `${number(data.requests)} in all` : `${millis(median)} median`);
    const [remaining, allowed] = data.headroom || [null, null];
    set(row.headroom, allowed === null ? "–" : `${number(remaining)} of ${number(allowed)}`);
    row.headroomBar.hidden = allowed === null;
    row.headroomFill.style.width = `${allowed ? (100 * remaining) / allowed : 0}%`;
    attribute(row.headroomBar, "data-look", allowed !== null && remaining < allowed / 10 ? "warn" : "");
    const wait = data.retry_at === null ? "" : data.retry_at > now() ? ` Next attempt in ${duration(data.retry_at - now())}.` : " Asking now.";
    const why = (data.diagnosis || data.error || "").replace(`Tenant ${data.name}: `, "");
    const trouble = row.told || (data.troubled ? `${why.charAt(0).toUpperCase()}${why.slice(1)}${wait}` : "");
    row.trouble.hidden = !trouble;
    set(row.trouble, trouble);
  }

  function drawToken(data, row, look) {
    const left = data.usable || data.state === "expired" ? data.expires_at - now() : null;
    const lifetime = data.lifetime || 1;
    const share = left === null ? 0 : Math.min(1, Math.max(0, left / lifetime));
    row.fill.style.width = `${100 * share}%`;
    attribute(row.bar, "data-look", look);
    attribute(row.bar, "aria-valuemax", String(Math.round(lifetime)));
    attribute(row.bar, "aria-valuenow", String(left === null ? 0 : Math.max(0, Math.round(left))));
    const ahead = left === null ? 0 : data.expires_at - data.refresh_at;
    row.window.style.width = left === null ? "0" : `max(3px, ${Math.min(100, (100 * ahead) / lifetime)}%)`;
    row.window.hidden = left === null;
    set(row.left, left === null ? "no token" : left > 0 ? `expires in ${duration(left)}` : "expired");
    const due = data.refresh_at - now();
    set(row.next, left === null ? "" : due > 0 ? `refresh in ${duration(due)}` : "refresh due");
    attribute(row.bar, "aria-valuetext", [row.left.textContent, row.next.textContent].filter(Boolean).join(", "));
  }

  function drawLine(data, row) {
    const span = Number($("span").value);
    const recent = data.history.filter(([at]) => at > now() - span);
    const counts = { token: 0, "token bad": 0, replay: 0, "replay bad": 0 };
    recent.forEach(([at, what, outcome], index) => {
      const kind = (what === "token" ? outcome === "ok" : outcome === "accepted") ? what : `${what} bad`;
      counts[kind] += 1;
      const mark = row.line.children[index] || make("i", "", null, row.line);
      if (mark.className !== `mark ${kind}`) mark.className = `mark ${kind}`;
      mark.style.left = `${100 * (1 - (now() - at) / span)}%`;
      attribute(mark, "title", `${duration(now() - at)} ago: ${what === "token" ? "token request" : "refused token"}, ${outcome}`);
    });
    while (row.line.children.length > recent.length) row.line.lastChild.remove();
    const told = [[counts.token, "new token"], [counts["token bad"], "failed token request"], [counts.replay, "refused request sent again"], [counts["replay bad"], "refused request passed on"]]
      .filter(([count]) => count).map(([count, word]) => `${count} × ${word}`).join(", ");
    attribute(row.line, "aria-label", told || "nothing happened");
  }

  async function refresh(name, row) {
    if (row.button.getAttribute("aria-disabled") === "true") return;
    attribute(row.button, "aria-disabled", "true");
    set(row.button, "Asking…");
    let told = "";
    try {
      const answer = await fetch(`/tenants/${encodeURIComponent(name)}/refresh`, { method: "POST" });
      if (!answer.ok) told = (await answer.json()).message;
    } catch {
      told = "The proxy does not answer.";
    }
    row.button.removeAttribute("aria-disabled");
    set(row.button, told ? "Try again" : "Done");
    row.told = told;
    setTimeout(() => { row.told = ""; set(row.button, "Refresh"); }, told ? 8000 : 2000);
    if (head) draw();
  }

  // --- all of it ---

  function draw() {
    drawOverview();
    drawRows();
  }

  function nameLine() {
    const span = $("span");
    set($("line-head"), `Last ${span.options[span.selectedIndex].text.replace(/^1 h$/, "hour")}`);
  }
  for (const id of ["search", "sort", "span", "only"]) {
    $(id).addEventListener("input", () => {
      shown = PAGE;
      nameLine();
      if (head) drawRows();
    });
  }
  $("more").addEventListener("click", () => {
    const first = $("rows").children.length;
    shown += PAGE;
    drawRows();
    const next = $("rows").children[first];
    if (next) next.querySelector("button").focus();
  });
  document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      event.preventDefault();
      $("search").focus();
    }
  });

  const source = new EventSource("/events");
  source.onmessage = take;
  source.onerror = () => {
    document.body.dataset.stale = "yes";
    attribute($("state"), "data-look", "bad");
    set($("state"), arrived ? "connection lost, trying again" : "no connection");
    if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
  };
  source.onopen = () => { document.body.dataset.stale = "no"; };
  setInterval(() => { if (head && document.body.dataset.stale !== "yes" && Date.now() - arrived > 1500) drawRows(); }, 1000);
})();
