"""Who may ask the token endpoint next, with what, and what the answer makes of a record: decided without any I/O.

Processes that share a store act on the same record. The one that writes its lease into it asks; the others wait for
what it writes next, an answer or a failure. A refresh token is sent only after a journal entry says so; who finds
that entry without a living lease knows that its writer died in between, and sends the token once more, since a server
may forgive that, but never again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from proxy.core import tokens
from proxy.core.grants import Client
from proxy.core.lineage import Access, Journal, Lease, Record, Setback, Verdict, digest
from proxy.core.secret import Secret
from proxy.errors import TokenError, TokenRefused, TokenUnavailable

LEASE = 12.0
"""Seconds: longer than any token request, so that no second one is sent while a first is under way."""

GRACE = 5.0
"""Seconds for which a refresh token that was under way is left alone after its lease is over: while a store was out of
reach, the lease's owner may have got the next one, and stores it as soon as it can."""

LOOK_AGAIN = 5.0
"""Seconds after which it is looked whether somebody has brought a refresh token; the endpoint is not asked."""

CLOCK_SLACK = 2.0
"""Seconds by which a time may lie in the future; beyond, the clock was set back, and its times say nothing."""

SEEDS = 16
"""Digests of configured refresh tokens that are remembered."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who needs a token, and what it knows beside the record."""

    client: Client
    owner: str
    """Begins with the store's owner, then a slash."""
    access: Access | None
    """The newest access token it has had; it takes only a newer one."""
    rejected: bool = False
    """The upstream refused that one, so that nobody should take it."""
    pardoned: Setback | None = None
    """A failure that is forgotten."""
    watching: Lease | None = None
    """The lease it has waited for."""
    watched: float = 0.0
    """Seconds since it saw that first, by its own clock."""
    seeds: bool = True
    """The record is the line of its configured refresh token, which is taken up nowhere else."""


@dataclass(frozen=True, slots=True)
class Adopt:
    """Another process has got a token: use that."""

    access: Access


@dataclass(frozen=True, slots=True)
class Wait:
    """Another process is asking: wait for what it writes, at most so long, and look again."""

    lease: Lease
    seconds: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """There is nothing to be had for now."""

    error: TokenError
    pause: float
    """Seconds until it is worth looking again."""
    count: int = 1
    """Failures in a row."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Write the record, and if nobody was faster, ask as this client."""

    record: Record
    client: Client
    refresh_token: Secret | None = field(default=None)


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Write the record, whose verdict says that the refresh token is lost, and look again."""

    record: Record


Step = Adopt | Wait | Refuse | Ask | GiveUp


def next_step(record: Record, asker: Asker, now: float, *, abandoned: bool = False) -> Step:
    """What to do with a record that was read just now.

    :param now: by the store's clock
    :param abandoned: the owner of the record's lease is known to be dead
    """
    record = _with_seed(record, asker.client) if asker.seeds else record
    if record.access is not None and _is_news(record.access, asker, now):
        return Adopt(record.access)
    lease = record.lease
    foreign = lease is not None and lease.owner != asker.owner
    if lease is not None and foreign and not abandoned and (wait := _wait(record, lease, asker, now)) > 0:
        return Wait(lease, wait)
    setback = record.setback
    if setback == asker.pardoned:
        record = replace(record, setback=None)
    elif setback is not None and setback.at <= now + CLOCK_SLACK and now < setback.until:
        return Refuse(_error(setback), setback.until - now, setback.count)
    if asker.rejected and record.access is not None and asker.access == record.access:
        record = replace(record, access=None)
    # One's own entry is no trace of a death: whoever wrote it lives, and knows that nothing is under way.
    died = record.journal is not None and (lease is None or foreign)
    record = replace(record, lease=Lease(asker.owner, now + LEASE))
    if asker.client.grant != "refresh_token":
        return Ask(record, asker.client)
    return _refresh(record, asker.client, now, died=died)


def _wait(record: Record, lease: Lease, asker: Asker, now: float) -> float:
    """Seconds for which another's lease is to be respected still, 0 if it is over."""
    watched = asker.watched if lease == asker.watching else 0.0
    # A lease that stays as it is for longer than any lasts is over, whatever the clocks say.
    if (left := min(lease.until - now, LEASE - watched)) > 0:
        return left
    return 0.0 if record.journal is None else max(0.0, GRACE - watched)


def _refresh(record: Record, client: Client, now: float, *, died: bool) -> Step:
    refresh_token, verdict, journal = record.refresh_token, record.verdict, record.journal
    lost = verdict is not None and verdict.lost
    if refresh_token is None or (verdict is not None and verdict.refresh_token == digest(refresh_token)):
        if client.fallback is not None:
            return Ask(replace(record, journal=None), client.fallback)
        return Refuse(needs_login(client, lost=lost, known=refresh_token is not None), LOOK_AGAIN)
    retried = died and journal is not None
    if journal is not None and retried and journal.retried:
        condemned = Verdict(digest(refresh_token), now, lost=True)
        return GiveUp(replace(record, lease=None, journal=None, verdict=condemned))
    return Ask(replace(record, journal=Journal(now, retried=retried)), client, refresh_token)


def _with_seed(record: Record, client: Client) -> Record:
    """The record with the configured refresh token in it, unless that was taken up before: it is used once, whatever
    its tenants are called.
    """
    seed = client.refresh_token
    if client.grant != "refresh_token" or seed is None or (name := digest(seed)) in record.seeds:
        return record
    return supplied(record, seed, seeds=(name,))


def supplied(record: Record, refresh_token: Secret, *, seeds: tuple[str, ...] = ()) -> Record:
    """A record that goes on with another refresh token, from a login or the configuration; nothing else stays."""
    return Record(
        refresh_token=refresh_token,
        generation=record.generation + 1,
        kept_at=record.kept_at,
        seeds=_with_names(record.seeds, seeds),
    )


def _with_names(known: tuple[str, ...], more: tuple[str, ...]) -> tuple[str, ...]:
    return (*known, *(name for name in more if name not in known))[-SEEDS:]


def led(record: Record, seed: str, kept_at: str) -> Record:
    """What is kept under a tenant's name, leading on to where the line of its configured refresh token is kept.

    What else is kept there stays if another name may lead to it; a login's refresh token is replaced.
    """
    if not record.seeds:
        record = Record(generation=record.generation + 1)
    return replace(record, kept_at=kept_at, seeds=_with_names(record.seeds, (seed,)))


def is_usable(access: Access, now: float) -> bool:
    """Whether the access token can be sent now; not where its age can't be told."""
    age = now - access.obtained
    return age >= -CLOCK_SLACK and access.lifetime - max(0.0, age) > tokens.leeway(access.lifetime)


def _is_news(access: Access, asker: Asker, now: float) -> bool:
    had = asker.access
    newer = had is None or (access.obtained >= had.obtained and access.token != had.token)
    return newer and access.issued_to == asker.client.key and is_usable(access, now)


def granted(asked: Ask, access: Access, refresh_token: Secret | None) -> Record:
    """The record after an answer. One without a refresh token keeps the old (RFC 6749 6)."""
    record = replace(asked.record, access=access, lease=None, journal=None, setback=None)
    if asked.refresh_token is None:
        return record
    if refresh_token is None or refresh_token == asked.refresh_token:
        return replace(record, verdict=None)
    return replace(record, refresh_token=refresh_token, generation=record.generation + 1, verdict=None)


def failed(asked: Ask, error: TokenError, pause: float, now: float) -> Record:
    """The record after a request without a token: nobody asks for a while, or never again with that refresh token.

    A refresh token that was refused (invalid_grant) is done with; one whose request got no answer is not, because
    only the server knows what became of it.
    """
    record = replace(asked.record, lease=None, journal=None)
    if asked.refresh_token is not None and error.error == "invalid_grant":
        lost = asked.record.journal is not None and asked.record.journal.retried
        return replace(record, setback=None, verdict=Verdict(digest(asked.refresh_token), now, lost))
    return set_back(record, error, pause, now)


def set_back(record: Record, error: TokenError, pause: float, now: float) -> Record:
    """The record with a failure on top, for which nobody asks for a while."""
    final = isinstance(error, TokenRefused)
    return replace(record, setback=Setback(now, now + pause, failures(record) + 1, error.error, str(error), final))


def failures(record: Record) -> int:
    """How many token requests in a row have failed."""
    return 0 if record.setback is None else record.setback.count


def merged(current: Record, asked: Ask, outcome: Record, owner: str) -> Record | None:
    """What to write where somebody else has written since the request began; None: what is there is better.

    A refresh token that is not the one we began with came by a login, the configuration or another's request that
    was later than ours. The lease of another stays, and so does what it has written in the journal.
    """
    if current.kept_at is not None:
        outcome = replace(outcome, kept_at=current.kept_at, seeds=_with_names(outcome.seeds, current.seeds))
    if is_older(current, asked.record):
        return outcome
    if not _same(current.refresh_token, asked.record.refresh_token):
        return None
    if current.lease is None or current.lease.owner == owner:
        return outcome
    if outcome.access == asked.record.access:
        return None  # a failure of ours, while another is trying
    return replace(outcome, lease=current.lease, journal=current.journal)


def is_older(record: Record, known: Record) -> bool:
    """The store has lost what it once had: another record of the same line was there before."""
    return record.generation < known.generation


def has_lost(record: Record, known: Record) -> bool:
    """What stands in the place of a known record is an earlier one: older, or of the same refresh token, but without
    the note that this was sent, or not leading where the known one leads.
    """
    if record.generation == known.generation and _same(record.refresh_token, known.refresh_token):
        sent = record.journal is None and known.journal is not None
        return sent or known.kept_at not in (None, record.kept_at)
    return is_older(record, known)


def needs_login(client: Client, *, lost: bool, known: bool) -> TokenError:
    """The error of a tenant that no request can help; only a new refresh token does."""
    if not known:
        why = "there is no refresh token"
    elif lost:
        why = "its refresh token was in use when a process was killed, and the answer with the next one is lost"
    else:
        why = (
            "the token endpoint refuses its refresh token (invalid_grant): it was used elsewhere, was revoked, has "
            "expired or is another org's"
        )
    message = f"Tenant {client.tenant}: {why}. Run: genesys-auth-proxy login {client.tenant}"
    return TokenRefused(message, error="invalid_grant" if known else "login_required")


def _error(setback: Setback) -> TokenError:
    kind = TokenRefused if setback.final else TokenUnavailable
    return kind(setback.message, error=setback.error)


def _same(one: Secret | None, other: Secret | None) -> bool:
    return one is None and other is None if one is None or other is None else one == other
