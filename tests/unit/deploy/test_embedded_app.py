"""The embedded mode's own pages: whatever path is asked for, there is an answer."""

from __future__ import annotations

import httpx
import pytest

from deploy.local import embedded_app
from deploy.local.embedded_app import EmbeddedApp


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    monkeypatch.setattr(EmbeddedApp, "__init__", _without_services)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=EmbeddedApp({})), base_url="http://payrail.test")


def _without_services(self: EmbeddedApp, _containers: object) -> None:
    self._containers, self._apps, self._prefixes = {}, {}, []


@pytest.mark.parametrize(
    "path",
    [
        "/storefront/a%00b.js",
        f"/storefront/{'a' * 300}.js",
        f"/storefront/{'a/' * 3000}x.js",
        "/storefront/../dev.py",
        "/storefront/%2e%2e/dev.py",
        "/storefront/",
        "/contracts/%00",
        "/docs/assets/%00",
        "/docs/%00",
        "/openapi/nobody.json",
    ],
)
async def test_a_path_that_is_no_page_is_404(pages: httpx.AsyncClient, path: str) -> None:
    answer = await pages.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_storefront_is_served(pages: httpx.AsyncClient) -> None:
    names = [path.name for path in (embedded_app.LOCAL / "storefront").glob("*.js")]
    assert names
    assert {(await pages.get(f"/storefront/{name}")).status_code for name in names} == {200}


async def test_posting_to_a_page_is_405_and_to_no_page_404(pages: httpx.AsyncClient) -> None:
    answers = [await pages.post("/"), await pages.post("/nothing")]
    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (405, "method_not_allowed"),
        (404, "not_found"),
    ]


async def test_only_the_shop_may_post_forms_and_only_to_where_gateways_are(pages: httpx.AsyncClient) -> None:
    """A gateway that wants a form posted (next_action form_post) is at an origin of its own."""
    policies = {path: (await pages.get(path)).headers["content-security-policy"] for path in ("/", "/mailbox", "/docs")}
    assert policies["/"].endswith("form-action 'self' https: http://127.0.0.1:* http://localhost:*")
    assert policies["/mailbox"].endswith("form-action 'none'")
    assert policies["/docs"].endswith("form-action 'none'")
    assert all("script-src 'self';" in policy for policy in policies.values())
