"""A FastAPI route that verifies the HMAC and stores each body by one INSERT of its own: asyncpg with a pool."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fastapi import FastAPI, HTTPException, Request

_SECRET = os.environ["PEER_SECRET"].encode()
_TABLE = """CREATE TABLE IF NOT EXISTS webhooks (
    event_id text PRIMARY KEY, body bytea NOT NULL, received_at timestamptz NOT NULL DEFAULT now())"""
_INSERT = "INSERT INTO webhooks (event_id, body) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_pools: list[Any] = []


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["PEER_DATABASE_URL"], min_size=8, max_size=8) as pool:
        await pool.execute(_TABLE)
        _pools.append(pool)
        yield


app = FastAPI(lifespan=_lifespan)


@app.post("/webhooks")
async def receive(request: Request) -> dict[str, str]:
    body = await request.body()
    expected = hmac.new(_SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        raise HTTPException(401)
    await _pools[0].execute(_INSERT, json.loads(body)["event_id"], body)
    return {"status": "accepted"}
