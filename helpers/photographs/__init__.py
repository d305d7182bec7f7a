"""Photographs and masks, from where they come to the pixel cache: notebooks 01 and 02."""
