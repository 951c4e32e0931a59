"""The bridge database: what SyncFlow remembers, in PostgreSQL, schema ``bridge``.

Belongs here: the server, the tables, the migrations, and one module of functions per table group.
Does not belong here: deciding anything about records.

SQLAlchemy's and the driver's errors become SyncFlow's here (``address``).

Source: product.md 1; design.md, "Layers".
"""
