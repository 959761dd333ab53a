"""Predictions as others read them: lines, records, and files that are written answer by answer."""
