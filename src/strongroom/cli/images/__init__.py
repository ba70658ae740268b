"""Verbs of images and bases."""
