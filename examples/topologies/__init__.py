"""Topologies to run with ``xenidc run``, each a step further than the one before:

first.py    one driver
shared.py   two users of one back end
stack.py    a driver that stands on another: what is written goes beside, the base stays
tower.py    ten domains, supervised so that a failure takes along what stands above it
"""
