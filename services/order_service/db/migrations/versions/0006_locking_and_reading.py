"""A function that locks the orders of a batch, and then reads all that settling them takes, in one round trip.

Only adds: code of before goes on working on the new schema.
"""

from __future__ import annotations

from alembic import op

revision = "0006_locking_and_reading"
down_revision = "0005_retention"
branch_labels = None
depends_on = None

# Each statement of a volatile function sees what was committed before it began, so the second one sees what those
# who held the locks have done. What is planned in its transaction from here on is planned once, for any number of rows,
# and by index: that a table was small when it was planned must not read all of it when it has grown. In an empty table
# all indexes cost the same, so nothing but what finds a row may be such that an index could answer it: that is why what
# is sorted is not a column.
LOCK_AND_READ = """
    CREATE FUNCTION lock_and_read_orders(order_ids text[]) RETURNS TABLE (
        id text, status text, payment_status text, attention text, closed_as text, reopened_by text, confirmed_by text,
        total_minor bigint, currency text, secret_digest bytea, customer_subject text, customer_email text,
        customer_name text, customer_phone text, shipping_address jsonb, billing_address jsonb, metadata jsonb,
        expires_at timestamptz, expiry_attempts integer, created_at timestamptz, updated_at timestamptz,
        confirmed_at timestamptz, closed_at timestamptz, refunded_at timestamptz, revoked_payment text,
        revoked_at timestamptz, version bigint, lines json, payments json)
    LANGUAGE plpgsql VOLATILE AS $$
    #variable_conflict use_column
    BEGIN
        PERFORM set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
            set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
        PERFORM FROM orders WHERE id = ANY(order_ids) ORDER BY id FOR UPDATE;
        RETURN QUERY SELECT orders.id, status, payment_status, attention, closed_as, reopened_by, confirmed_by,
            total_minor, currency::text, secret_digest, customer_subject, customer_email,
            customer_name, customer_phone, shipping_address, billing_address, metadata,
            expires_at, expiry_attempts, created_at, updated_at,
            confirmed_at, closed_at, refunded_at, revoked_payment,
            revoked_at, version,
            (SELECT json_agg(json_build_array(line.sku, line.name, line.quantity, line.unit_price_minor,
                held.status, held.quantity) ORDER BY line.position + 0)
                FROM order_items AS line LEFT JOIN stock_reservations AS held USING (order_id, sku)
                WHERE line.order_id = orders.id),
            (SELECT json_agg(json_build_array(payment.payment_id, payment.gateway, payment.gateway_reference,
                payment.status, payment.version, payment.amount_minor, payment.currency, payment.amount_authorized,
                payment.amount_captured, payment.amount_refund_pending, payment.amount_refunded,
                payment.amount_disputed, payment.amount_excess, payment.outcome_unknown, payment.resolution,
                payment.asked_number, payment.asked_attempt, payment.asked_captured, payment.ask_again_at,
                payment.terms, payment.created_at, payment.updated_at, payment.next_close_attempt_at IS NOT NULL)
                ORDER BY payment.payment_id || '')
                FROM order_payments AS payment WHERE payment.order_id = orders.id)
        FROM orders WHERE orders.id = ANY(order_ids);
    END $$
    """


def upgrade() -> None:
    op.execute(LOCK_AND_READ)


def downgrade() -> None:
    op.execute("DROP FUNCTION lock_and_read_orders(text[])")
