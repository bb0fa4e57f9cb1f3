"""A FastAPI route that verifies the HMAC of the raw body and keeps nothing."""

from __future__ import annotations

import hashlib
import hmac
import os

from fastapi import FastAPI, HTTPException, Request

app = FastAPI()
_SECRET = os.environ["PEER_SECRET"].encode()


@app.post("/webhooks")
async def receive(request: Request) -> dict[str, str]:
    body = await request.body()
    expected = hmac.new(_SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        raise HTTPException(401)
    return {"status": "accepted"}
