"""The REST API, ``/api/v1``: plans, and who may say yes to them.

Belongs here: HTTP, tokens, problem details.
Does not belong here: deciding anything (``syncflow_core``), running it (Dagster, through ``gateway``).

Source: product.md 9.
"""
