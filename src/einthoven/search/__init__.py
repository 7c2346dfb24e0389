"""Finding recordings by text."""
