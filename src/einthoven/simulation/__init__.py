"""A simulated cohort: hearts that make ECGs, and charts written about them."""
