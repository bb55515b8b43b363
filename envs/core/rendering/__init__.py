"""How a Scene becomes a picture: text that fits, plots with axes, legends."""

import os

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame as pygame
