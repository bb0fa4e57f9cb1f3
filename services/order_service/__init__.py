"""Products, stock, orders, invoices and what the customer is told. See README.md."""
