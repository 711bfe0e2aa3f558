"""Painting: a drawing, and what a run answers to it."""
