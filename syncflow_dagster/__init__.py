"""SyncFlow."""
