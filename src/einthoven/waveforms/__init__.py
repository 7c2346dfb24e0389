"""Signals: reading, standardising, flagging and storing recordings."""
