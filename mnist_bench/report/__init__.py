"""``report``: a run as one HTML page. Pure: records in, text out (its template and scripts are parts of it)."""
