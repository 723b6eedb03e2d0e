"""A recorded day as one page of HTML: docs/report.md lists what is on it.

timeline.py, symbol_day.py and ingest_day.py count, column by column, and are pure; day.py reads the archive through
them; charts.py and view.py turn the counts into what the template in templates/ shows, and page.py writes it.

Needs the extra `archive`, as what it reads does; nothing of the plain install imports it.
"""
