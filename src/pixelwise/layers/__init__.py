"""Parts that several systems share with equal parameters."""
