"""Archived days in the formats of other tools: docs/data.md says which, and what each leaves out.

books.py, tidy.py, dbn.py, hftbacktest.py and manifest.py are pure: columns in, columns out. archived.py reads a day of
the archive as such columns, writers.py knows each format's file, exporting.py makes one export of it all.
"""
