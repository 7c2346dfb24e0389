"""One file per source: each turns published files into the tables of a study."""
