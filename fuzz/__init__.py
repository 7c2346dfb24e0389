"""Damaged inputs for everything that reads something: `python -m fuzz` (docs/security.md)."""
