"""The reference pages of the documentation, made of the code: ``python -m syncflow_dagster.reference``.

Belongs here: turning what the code declares into Markdown.
Does not belong here: what it declares; prose, which is written by hand in ``docs``.

The pages lie in ``docs/reference`` and are committed, so that they can be read without building
anything and a change of the command line or the API is seen in its diff; a test holds them to the code.
"""
