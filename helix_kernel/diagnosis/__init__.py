"""Diagnosis of an installation: one module a check, and `report`, which asks them all."""
