"""Reports as people get them: CSV for spreadsheets, HTML for eyes."""
