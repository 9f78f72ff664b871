"""A job from start to end, whatever the engine; what its workers do; what it reports."""
