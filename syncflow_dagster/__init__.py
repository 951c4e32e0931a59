"""The shell people use: Dagster definitions, the command line, the REST API.

Belongs here: everything that starts, shows or schedules a sync.
Does not belong here: what a sync does (``syncflow_core``). Nothing is imported or wired here, so that
loading one module loads no other.
"""
