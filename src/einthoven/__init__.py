"""Contrastive learning between a patient's ECG, coded record and clinical text."""
