"""The kinds of chart that the report uses: numbers → SVG, drawn by Vega-Lite without a browser. Pure."""
