"""What a user would take instead of SyncFlow, each as a program of its own that ``compare`` starts.

Belongs here: one program for each, written as its documentation or an afternoon would have it.
Does not belong here: what is run when, and the report (``compare``). Nothing of SyncFlow is imported by
a program: it runs under an interpreter where SyncFlow's packages may be missing.
"""
