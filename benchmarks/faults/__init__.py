"""Benchmarks that kill processes, stop servers and fill disks, and check what must hold afterwards.

They run only by name, as in ``python -m benchmarks DATA_DIR kill_fold``, or all with `make faults`.
"""
