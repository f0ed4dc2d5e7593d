"""The pages of the site, and what of it is made from the code (made.py) when Sphinx builds it."""
