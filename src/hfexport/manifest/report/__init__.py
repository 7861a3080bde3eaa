"""The report: manifests as one HTML file with charts, which loads nothing and needs no scripts."""

from __future__ import annotations

from hfexport.manifest.report.page import REPORT_PAGE, report_page, write_report_page

__all__ = ["REPORT_PAGE", "report_page", "write_report_page"]
