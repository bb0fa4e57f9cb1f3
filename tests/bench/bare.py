"""What ours is compared with: a FastAPI endpoint that verifies the same HMAC and keeps nothing.

``python -m tests.bench.bare PORT SECRET`` serves it in a process of its own, by the same server with the same settings.
"""

from __future__ import annotations

import hashlib
import hmac
import sys

from fastapi import FastAPI, HTTPException, Request

from deploy.running import uvicorn_config

app = FastAPI(openapi_url=None)
_secret = b""


@app.post("/webhooks")
async def receive(request: Request) -> dict[str, str]:
    body = await request.body()
    expected = hmac.new(_secret, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        raise HTTPException(401)
    return {"status": "accepted"}


def main() -> None:
    global _secret
    import uvicorn

    from deploy.running import run_event_loop

    _secret = sys.argv[2].encode()
    run_event_loop(uvicorn.Server(uvicorn_config(app, host="127.0.0.1", port=int(sys.argv[1]))).serve())


if __name__ == "__main__":
    main()
