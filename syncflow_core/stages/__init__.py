"""The nine stages of a batch, in order: each gathers its input, lets a pure module decide, applies.

* ``fetch``      read the source's pages into staged frames
* ``normalize``  the five layers, validation and mapping among them
* ``identity``   key hash, data hash, one row a key, the parents' key hashes
* ``delta``      compare with what the target acknowledged (``settle``, ``adopt`` before it)
* ``resolve``    parents before children
* ``push``       inserts, updates, deletes (through ``sender``; ``release`` after it)
* ``track``      the accounts, the watermark, the end of the batch

Belongs here: the composition of input, decision and output.
Does not belong here: the decisions themselves (the pure modules), Dagster (``syncflow_dagster``).

Source: product.md, "The nine stages".
"""
