"""Every disagreement between orders, payments and gateways, through the whole system (design.md §7)."""
