"""Benchmarks: what each stage costs on seeded data, on this machine, now.

Belongs here: preparing data, timing, reporting with the machine and the parameters beside the numbers.
Does not belong here: what is measured (``syncflow_core``).

Source: product.md, "Targets".
"""
