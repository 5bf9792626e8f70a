"""Parts of pages: charts, tables, and input fields whose value is in the URL."""
