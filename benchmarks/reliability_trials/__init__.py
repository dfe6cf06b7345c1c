"""Trials of benchmarks/reliability.py: kills, damage, signals, full disks, numbers that are not finite, bad input."""
