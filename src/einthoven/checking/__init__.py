"""Whether a study is what it should be, and what is in it."""
