"""One encoder per modality."""
