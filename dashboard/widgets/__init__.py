"""Parts of pages: charts, tables, fields that keep their place in the address."""
