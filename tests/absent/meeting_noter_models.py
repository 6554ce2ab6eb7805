"""Stands in front of the package with published weights, so that the suite finds a machine without it (conftest.py)."""
