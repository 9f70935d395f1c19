"""What commands write: run folders, files, tables, charts, pages, and the statistics in them."""
