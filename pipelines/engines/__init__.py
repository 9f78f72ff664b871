"""The job on Ray Data and on Beam: the only modules that import an engine."""
