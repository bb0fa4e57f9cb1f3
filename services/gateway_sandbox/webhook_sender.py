"""Outgoing webhooks over httpx."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx

from services.gateway_sandbox.use_cases.deliver_webhooks import SendResult
from shared.http import HttpClient


class HttpWebhookSender:
    """One POST, no redirects; an answer's body is not read. Never raises for what the receiver does."""

    def __init__(
        self,
        client: HttpClient,
        *,
        timeout_seconds: float,
    ) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> SendResult:
        try:
            # httpx bounds each read, not the whole exchange (field note M19).
            async with asyncio.timeout(self._timeout_seconds):
                async with self._client.stream("POST", url, headers=dict(headers), content=body) as response:
                    return SendResult(response.status_code)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            return SendResult(None, type(error).__name__)
