"""The official SDKs serve guests through ``guest_refresh``: a JWT's end is nothing that they ever see."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import jwt
import pytest
import pytest_asyncio

from tests.sdk.drivers import Sdk, SdkError
from tests.sdk.test_sdks import point
from tests.support.stages import Stage, Tenant, make_orgs, open_stage, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    configuration = "keep_warm = false\nguest_refresh = true\n"
    async with open_stage(make_orgs(["one", "two"]), configuration, guest_token_lifetime=1.0) as stage:
        yield stage


async def test_a_guest_goes_on_with_the_jwt_the_chat_began_with_until_they_revoke_it(sdk: Sdk, tenant: Tenant) -> None:
    await point(sdk, tenant)
    token, _ = await sdk.do("guest_exchange", deployment=tenant.org.deployments[0], code=f"{sdk.name}-code")
    expires_at = jwt.decode(token, options={"verify_signature": False})["exp"]
    await until(lambda: time.time() > expires_at)
    assert await sdk.do("guest_messages", jwt=token) == 0
    assert tenant.refused == {}, "no expired JWT was sent"
    await sdk.do("guest_revoke", jwt=token)
    with pytest.raises(SdkError, match=r"bad\.credentials|credentials\.expired"):
        await sdk.do("guest_messages", jwt=token)
