"""The REST API, ``/api/v1``: what operators and programs ask and have done.

Belongs here: HTTP, tokens, problem details.
Does not belong here: deciding anything (``syncflow_core``), running it (Dagster, through ``gateway``).

Source: product.md 9.
"""
