"""DST: its layout, staging, the commit order, what is published, the lease, and what dead runs left."""
