-- The tables of both tutorial handlers.
DROP TABLE IF EXISTS payments, orders;
CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL, total bigint NOT NULL, paid_at timestamp);
CREATE TABLE payments (
    id text PRIMARY KEY,
    order_id text NOT NULL REFERENCES orders (id),
    amount bigint NOT NULL,
    status text NOT NULL,
    gateway_reference text
);
CREATE INDEX ON payments (order_id);
