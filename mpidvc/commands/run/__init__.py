"""``mpidvc run``: from scans to a report."""
