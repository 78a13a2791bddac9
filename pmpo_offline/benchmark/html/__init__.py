"""Self-contained HTML pages of a benchmark's results and of a dataset: one file each, no network.

Tables are HTML made by Jinja2 (autoescaped); charts are Vega-Lite, made by altair and drawn by the JavaScript that
vl-convert bundles. Texts from data reach a page as text only, and its content security policy allows no requests.
"""
