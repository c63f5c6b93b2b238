"""The report of work directories: tables, plots and one page.

    python -m gift_jax.report WORKDIR... [--out=DIR] [--baseline=LOSS]

`reading` and `examples` are where files are read; `statistics`, `groups` and `tables`
are pure functions of rows; `lines` and `plots` draw, and `figures` says what is drawn;
`page` composes, `build` writes.
"""
