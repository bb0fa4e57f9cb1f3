"""delivery keys

A delivery is recognised by 16 bytes made of its key instead of the key itself: half the index. Nothing is rewritten:
the new index is built beside the old one while deliveries come in. Both are kept until `payrail migrate --finish`: the
release before names the old one's columns in its ON CONFLICT, and could store nothing without it.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEY = "(((gateway || chr(10)) || account) || chr(10)) || dedupe_key"
_DIGEST = f"sha256(replace({_KEY}, chr(92), chr(92) || chr(92))::bytea)"

CONCURRENTLY = {
    "uq_webhook_deliveries_key": "CREATE UNIQUE INDEX CONCURRENTLY uq_webhook_deliveries_key"
    f" ON webhook_deliveries (((encode(substr({_DIGEST}, 1, 16), 'hex'::text)::uuid)))",
}
RETIRED_AT_LAST = {"uq_webhook_deliveries_gateway_account_dedupe_key": "webhook_deliveries"}


def upgrade() -> None:
    pass


def downgrade() -> None:
    op.create_unique_constraint(
        "uq_webhook_deliveries_gateway_account_dedupe_key", "webhook_deliveries", ["gateway", "account", "dedupe_key"]
    )
    op.drop_index("uq_webhook_deliveries_key", table_name="webhook_deliveries")
