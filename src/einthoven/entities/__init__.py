"""Clinical terms in notes, and what is said of them."""
