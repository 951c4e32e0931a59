"""The engine of SyncFlow: pure rules, and the input and output around them.

Belongs here: everything that makes a record of the source a record of the target.
Does not belong here: Dagster, the command line, the REST API (``syncflow_dagster``).
"""
