"""Archived days in the formats of other tools: docs/data.md says which, and what each leaves out.

books.py, dbn.py, hftbacktest.py and manifest.py are pure: columns in, columns out. archived.py reads a day of the
archive as such columns, writers.py and nautilus.py know each format's file, output.py puts files in their place, and
exporting.py makes one export of it all.
"""
