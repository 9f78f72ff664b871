"""What travels between stages, as dataclasses and as Arrow rows."""
