"""Registers the test systems, so that every test over registered ids runs on them too."""

from __future__ import annotations

import invariantzoo

invariantzoo.register(
    "test-hold-v0", "systems:Hold", summary="one controller holds a kicked point at the origin"
)
invariantzoo.register(
    "test-leave-v0", "systems:Leave", summary="walkers leave a corridor, one step at a time"
)
