"""Outputs, key files and the audit log held against each other."""
