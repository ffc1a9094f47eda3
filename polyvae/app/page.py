"""The style of the report's page: light and dark, wide and narrow, screen and paper."""

CSS = """
:root { color-scheme: light dark; --ink: #1f2937; --soft: #5b6472; --line: #dfe3e8; --paper: #ffffff;
  --card: #f5f7f9; --accent: #2b6a99; --good: #1f7a5a; --bad: #b4491b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #a3acb9; --line: #38404c;
  --paper: #14181e; --card: #1d232b; --accent: #7fb6de; --good: #6cc5a1; --bad: #f0956a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line); }
p, li { max-width: 46rem; } p { margin: .5rem 0; }
ul.plain { padding-left: 1.2rem; margin: .8rem 0; } ul.plain li { margin: .35rem 0; }
.soft { color: var(--soft); font-size: .92rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.6rem, 1fr)); gap: .7rem;
  margin: 1.3rem 0; }
.card { background: var(--card); border-radius: .5rem; padding: .75rem .9rem; }
.card b { display: block; font-size: 1.5rem; line-height: 1.2; color: var(--accent);
  font-variant-numeric: tabular-nums; }
.card b small { font-size: .55em; font-weight: 600; }
.card span { display: block; font-weight: 600; font-size: .95rem; line-height: 1.3; margin: .1rem 0 .2rem; }
.card p { margin: .15rem 0 0; font-size: .83rem; line-height: 1.4; color: var(--soft); }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .94rem; }
th, td { padding: .32rem .9rem .32rem 0; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; white-space: nowrap; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: normal; }
th { font-weight: 600; color: var(--soft); white-space: normal; max-width: 9rem; line-height: 1.3; }
@media (max-width: 36rem) { table { font-size: .84rem; } th, td { padding-right: .55rem; } }
table.words td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
code, pre { font: .9em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); padding: .7rem .9rem; border-radius: .5rem; white-space: pre-wrap;
  overflow-wrap: anywhere; margin: .8rem 0; }
figure { margin: 1.8rem 0; } figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem; padding: .5rem; }
figcaption { margin-top: .5rem; max-width: 46rem; font-size: .95rem; color: var(--soft); }
figcaption b { color: var(--ink); }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --line: #bbb; --paper: #fff;
  --card: #f2f2f2; --accent: #1d4f76; --good: #14553e; --bad: #8f3712; }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; }
  figure, .card, .wide, pre { break-inside: avoid; } h2 { break-after: avoid; } figure img { max-height: 17cm; } }
"""
