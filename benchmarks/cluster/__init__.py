"""A cluster on one machine that faults are done to: PostgreSQL, services, a proxy before them, and workers.

Nothing is trained, but all else is as users run it: `lr-arena serve`, real agents, a training process each.
"""
