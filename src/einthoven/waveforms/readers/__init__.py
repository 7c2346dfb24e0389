"""One file per family of ECG formats; `formats.py` finds the right one."""
