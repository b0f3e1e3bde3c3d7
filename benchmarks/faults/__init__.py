"""Benchmarks that do harm: processes killed, servers stopped, disks filled. Each says what must hold and what held.

They run by name alone, as ``python -m benchmarks DATA_DIR kill_fold``, or all of them with `make faults`.
"""
