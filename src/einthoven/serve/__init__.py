"""The web service: one model and one study, searched over HTTP."""
