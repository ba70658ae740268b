"""`strongroom try`: an image under a room's conditions, in the clear on one's own machine."""
