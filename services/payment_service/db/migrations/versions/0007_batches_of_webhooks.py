"""A function that claims a batch of webhooks and finds, locks and reads what they are about, in one round trip.

Only adds: code of before goes on working on the new schema.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# The order of locks is everybody's (ADR 0022): claims by message id, references by name, payments by id, orders by the
# key that is locked. Each statement of a volatile function sees what was committed before it began: so what belongs to
# a payment is read by later statements than the one that waited for its lock.
#
# From here to its end the transaction waits two seconds at most for any lock, as after Inbox.claim_all; and its
# statements are planned once for any number of rows, and by index: a table that was small when a statement was planned
# must not be read as a whole when it has grown. In an empty table all indexes cost the same, so no condition but the one
# that finds a row may be one that an index could answer: that is why a gateway is not compared with "=" where it only
# filters, and why facts are not sorted by a column that has an index.
CLAIM_AND_LOAD = """
    CREATE FUNCTION claim_and_load_webhooks(consumer text, message_ids jsonb, wanted jsonb) RETURNS TABLE (
        about text, payment_id text, order_id text, gateway text, account text, amount_minor bigint, currency text,
        capture text, method text, tolerance_minor bigint, status text, version integer, amount_authorized bigint,
        amount_capture_pending bigint, amount_captured bigint, amount_refund_pending bigint, amount_refunded bigint,
        amount_disputed bigint, amount_dispute_lost bigint, amount_excess bigint, has_unknown_operation boolean,
        session_unknown boolean, authorization_valid_for interval, capture_before timestamptz,
        capture_warned_at timestamptz, given_up_at timestamptz, failure_code text, conflict text,
        gateway_reference text, duplicate_of text, created_at timestamptz, updated_at timestamptz,
        expires_at timestamptz, asked_at timestamptz, has_operations boolean, facts text, siblings text)
    LANGUAGE plpgsql VOLATILE AS $$
    #variable_conflict use_column
    DECLARE
        given_consumer text := consumer;
        claimed text[];
        looked_for jsonb := wanted;
        found jsonb := '[]';
        locked jsonb := '[]';
        hits jsonb;
        unknown jsonb;
        known text[] := '{}';
        payment_ids text[];
    BEGIN
        PERFORM set_config('lock_timeout', '2000', true), set_config('plan_cache_mode', 'force_generic_plan', true),
            set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
            set_config('enable_mergejoin', 'off', true);

        WITH claims AS (
            INSERT INTO inbox_messages (consumer, message_id, status, attempts, handled_at)
            SELECT given_consumer, message_id, 'done', 1, now()
            FROM jsonb_array_elements_text(message_ids) AS given (message_id) ORDER BY message_id
            ON CONFLICT (consumer, message_id) DO UPDATE SET status = 'done', handled_at = now(), body = NULL
            WHERE inbox_messages.status <> 'done'
            RETURNING message_id)
        SELECT array_agg(message_id) INTO claimed FROM claims;
        IF claimed IS NULL OR cardinality(claimed) < jsonb_array_length(message_ids) THEN
            SELECT coalesce(jsonb_agg(one), '[]') INTO looked_for
            FROM jsonb_array_elements(wanted) AS given (one) WHERE one ->> 0 = ANY(claimed);
        END IF;

        FOR look IN 1..2 LOOP
            WITH names AS MATERIALIZED (
                SELECT number, one ->> 1 AS gateway, one ->> 2 AS account, name, is_ours
                FROM jsonb_array_elements(looked_for) WITH ORDINALITY AS given (one, number)
                CROSS JOIN LATERAL (
                    SELECT jsonb_array_elements_text(one -> 3) AS name, false AS is_ours
                    UNION ALL SELECT jsonb_array_elements_text(one -> 4), true) AS each
            ), hits AS MATERIALIZED (
                SELECT number, rank, name, gateway, account, hit.payment_id FROM names CROSS JOIN LATERAL (
                    SELECT 1, p.payment_id FROM payments AS p
                    WHERE is_ours AND p.payment_id = name AND p.gateway IS NOT DISTINCT FROM names.gateway
                      AND p.account IS NOT DISTINCT FROM names.account
                    UNION ALL
                    SELECT 2, a.payment_id FROM payment_attempts AS a
                    WHERE is_ours AND a.reference = name
                      AND (SELECT p.gateway = names.gateway AND p.account IS NOT DISTINCT FROM names.account
                           FROM payments AS p WHERE p.payment_id = a.payment_id)
                    UNION ALL
                    SELECT 3, r.payment_id FROM payment_references AS r
                    WHERE r.gateway = names.gateway AND r.account = coalesce(names.account, '') AND r.reference = name
                    UNION ALL
                    SELECT 4, p.payment_id FROM payments AS p
                    WHERE is_ours AND p.order_id = name AND p.gateway IS NOT DISTINCT FROM names.gateway
                      AND p.account IS NOT DISTINCT FROM names.account
                ) AS hit (rank, payment_id)
            ), best AS MATERIALIZED (
                SELECT DISTINCT ON (number) number, payment_id FROM hits ORDER BY number, rank, payment_id DESC
            )
            SELECT (SELECT jsonb_agg(jsonb_build_array(rank, name, gateway, account, payment_id)) FROM hits),
                ARRAY(SELECT DISTINCT payment_id FROM best),
                (SELECT jsonb_agg(one) FROM jsonb_array_elements(looked_for) WITH ORDINALITY AS given (one, number)
                 WHERE number NOT IN (SELECT number FROM best)
                   AND jsonb_array_length(one -> 3) + jsonb_array_length(one -> 4) > 0)
            INTO hits, payment_ids, unknown;
            found := found || coalesce(hits, '[]');
            known := known || payment_ids;
            EXIT WHEN look = 2 OR unknown IS NULL;
            -- Again, now against payments that are being created at this moment (failure PY5); the same locks, in the
            -- same order, as Parked.lock_references.
            PERFORM pg_advisory_xact_lock(hashtextextended(name, 1)) FROM (
                SELECT DISTINCT ((one ->> 1) || ':' || each.name) COLLATE "C" AS name
                FROM jsonb_array_elements(unknown) AS given (one)
                CROSS JOIN LATERAL jsonb_array_elements_text((one -> 3) || (one -> 4)) AS each (name)
                ORDER BY 1) AS sorted;
            locked := unknown;
            looked_for := unknown;
        END LOOP;

        about := jsonb_build_array(coalesce(to_jsonb(claimed), '[]'), found, locked)::text;
        RETURN NEXT;
        about := NULL;
        IF known = '{}' THEN
            RETURN;
        END IF;

        -- Orders in the order of what is locked, which two of them may share; as Payments.siblings_with_money.
        PERFORM pg_advisory_xact_lock(key) FROM (
            WITH locked_payments AS (
                SELECT p.order_id FROM payments AS p WHERE p.payment_id = ANY(known) ORDER BY p.payment_id FOR UPDATE)
            SELECT DISTINCT hashtextextended(order_id, 0) AS key FROM locked_payments ORDER BY key) AS keys;

        RETURN QUERY SELECT NULL::text, p.payment_id, p.order_id, p.gateway, p.account, p.amount_minor,
            p.currency::text, p.capture, p.method, p.tolerance_minor, p.status, p.version, p.amount_authorized,
            p.amount_capture_pending, p.amount_captured, p.amount_refund_pending, p.amount_refunded,
            p.amount_disputed, p.amount_dispute_lost, p.amount_excess, p.has_unknown_operation,
            p.session_unknown, p.authorization_valid_for, p.capture_before,
            p.capture_warned_at, p.given_up_at, p.failure_code, p.conflict,
            p.gateway_reference, p.duplicate_of, p.created_at, p.updated_at,
            p.expires_at, p.asked_at,
            EXISTS (SELECT FROM operations AS o WHERE o.payment_id = p.payment_id),
            (SELECT json_agg(json_build_array(f.natural_key, f.kind, f.source, f.object_reference, f.amount_minor,
                f.currency, f.reason, f.about, f.operation, f.capture_before, f.occurred_at, f.received_at)
                ORDER BY f.position + 0)::text FROM payment_facts AS f WHERE f.payment_id = p.payment_id),
            (SELECT json_agg(json_build_array(s.payment_id, s.duplicate_of IS NOT NULL,
                s.amount_captured > 0 OR s.amount_authorized > 0))::text
                FROM payments AS s WHERE s.order_id = p.order_id AND s.payment_id <> p.payment_id)
        FROM payments AS p WHERE p.payment_id = ANY(known);
    END $$
    """


def upgrade() -> None:
    op.execute(CLAIM_AND_LOAD)


def downgrade() -> None:
    op.execute("DROP FUNCTION claim_and_load_webhooks(text, jsonb, jsonb)")
