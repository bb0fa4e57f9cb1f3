"""The demo catalogue: put once into an empty shop; what is there is left as it is, stock above all."""

from __future__ import annotations

import json
from pathlib import Path

import httpx

from shared.http import build_http_client
from shared.ports import Ports

CATALOGUE = Path(__file__).resolve().parent / "catalogue.json"


async def seed_catalogue(app: object, *, token: str, ports: Ports) -> int:
    """Create the demo products that are missing, through the API like anybody; returns how many."""
    added = 0
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    headers = {"authorization": f"Bearer {token}"}
    async with build_http_client(ports, base_url="http://127.0.0.1", transport=transport) as client:
        for product in json.loads(CATALOGUE.read_text(encoding="utf-8")):
            path = f"/api/v1/products/{product.pop('sku')}"
            if (await client.get(path)).status_code == httpx.codes.OK:
                continue
            (await client.put(path, json=product, headers=headers)).raise_for_status()
            added += 1
    return added
