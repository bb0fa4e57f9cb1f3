"""The same handler in Flask with psycopg, under gunicorn."""

# mypy: ignore-errors
# Flask is in the peers' environment only, so there is nothing to check against.

from __future__ import annotations

import hashlib
import hmac
import json
import os

import psycopg
from flask import Flask, abort, g, request

_SECRET = os.environ["PEER_SECRET"].encode()
app = Flask(__name__)
_connections: list = []


def _connection():
    """One connection a worker process, kept: gunicorn's sync workers answer one request at a time."""
    if not _connections:
        _connections.append(psycopg.connect(os.environ["PEER_DATABASE_URL"], autocommit=True))
    g.connection = _connections[0]
    return g.connection


@app.post("/webhooks")
def receive():
    body = request.get_data()
    expected = hmac.new(_SECRET, body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("x-signature", "")):
        abort(401)
    event = json.loads(body)
    with _connection().transaction():
        cursor = g.connection.execute(
            "SELECT order_id, status FROM payments WHERE id = %s FOR UPDATE", (event["transaction_id"],)
        )
        payment = cursor.fetchone()
        if payment is None:
            abort(404)
        if event["status"] == "completed" and payment[1] != "paid":
            g.connection.execute(
                "UPDATE payments SET status = 'paid', gateway_reference = %s WHERE id = %s",
                (event["payment_id"], event["transaction_id"]),
            )
            g.connection.execute(
                "UPDATE orders SET status = 'paid', paid_at = now() AT TIME ZONE 'UTC' WHERE id = %s", (payment[0],)
            )
    return {"status": "accepted"}
