"""Grafana's dashboards, made from a compact description: ``python -m tools.dashboards`` writes them into the chart.

``model`` is what a dashboard is made of and how Grafana writes it; each other module is one dashboard. A panel asks in
plain PromQL, with ``FLEET`` for the matchers that every query has.
"""
