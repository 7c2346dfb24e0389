"""The vocabulary of coded records: spellings, back-off and tokens, without torch."""
