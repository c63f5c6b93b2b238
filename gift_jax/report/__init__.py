"""The report of work directories: tables, plots and one page.

    python -m gift_jax.report WORKDIR... [--out=DIR] [--baseline=LOSS] [--against=OLD]

`reading` and `examples` are where files are read; `statistics`, `groups`, `tables` and
`changes` are pure functions of rows; `lines` and `plots` draw, `figures` says what is
drawn and `figure_data` gives its numbers; `page` composes, `build` writes, and
`notebook` shows.
"""
