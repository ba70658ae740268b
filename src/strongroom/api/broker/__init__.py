"""The broker's routes: one function a route, which only speaks."""
