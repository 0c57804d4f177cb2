"""How does a run's page look, in light and dark, on a phone and on a desk?"""

STYLE = """
:root {
  --page: #f6f7f9; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --rule: #dfe3e8;
  --accent: #0b62c4; --less: #eef1f5; --band: rgba(11, 98, 196, .18);
  --c0: #0b62c4; --c1: #d1495b; --c2: #1f8a50; --c3: #7d4fc9; --c4: #b86200;
  --c5: #00808f; --c6: #bb3a91; --c7: #5f6875; --c8: #6f7d00; --c9: #96492a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101214; --card: #1a1a1a; --ink: #e8eaed; --soft: #a2a9b3; --rule: #34383e;
    --accent: #6cb0ff; --less: #24272b; --band: rgba(108, 176, 255, .22);
    --c0: #6cb0ff; --c1: #ff8091; --c2: #5fd08f; --c3: #bd9bff; --c4: #ffb057;
    --c5: #4fd3e0; --c6: #ff8fd3; --c7: #b3bac4; --c8: #cddc5a; --c9: #e59a78;
  }
  img.chart { filter: invert(.898) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, main, footer { max-width: 78rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 2.2rem 0 .7rem; font-size: 1.25rem; }
h3 { margin: 1.4rem 0 .5rem; font-size: 1rem; }
p { margin: .4rem 0; max-width: 70ch; overflow-wrap: anywhere; }
small, .soft, footer { color: var(--soft); }
a { color: var(--accent); }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1rem; margin: 1rem 0 0; }
nav a { padding: .3rem 0; }
footer { padding-top: 2rem; padding-bottom: 3rem; font-size: .9rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem;
  padding: .6rem .8rem; }
.tiles b { display: block; font-size: 1.3rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.tiles span, .tiles small { display: block; font-size: .85rem; line-height: 1.35;
  color: var(--soft); }
.cards { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.card { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: .6rem;
  padding: .7rem .8rem; min-width: 0; }
.card > figcaption { font-weight: 600; overflow-wrap: anywhere; }
.card > figcaption small { font-weight: 400; }
figure img, .pair img { display: block; max-width: 100%; height: auto; border-radius: .3rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start;
  margin-top: .8rem; }
.pictures .card { max-width: 100%; margin: 0; }
@media (max-width: 44rem) { .scroll img.chart { max-width: 46rem; } }
.pairs { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; align-items: start; }
.pair img { width: 100%; }
.pair span { font-size: .85rem; color: var(--soft); }
pre { background: var(--less); border-radius: .4rem; padding: .6rem .8rem; margin: .5rem 0;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
code { font-family: ui-monospace, SFMono-Regular, Consolas, "DejaVu Sans Mono", monospace; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.numbers td + td, .numbers th + th { text-align: right; white-space: nowrap; }
.words td { overflow-wrap: anywhere; min-width: 4rem; }
.words td:first-child { overflow-wrap: normal; }
@media (max-width: 44rem) { .words td:first-child small { display: none; } }
.meter { display: block; position: relative; height: .7rem; min-width: 3.5rem; margin-top: .4rem;
  background: var(--rule); border-radius: .2rem; overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--c0); }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); padding: .3rem 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font-size: 11px; fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .curve { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
svg circle { fill: currentColor; }
.points svg .curve { stroke: none; }
.points svg circle { r: 4px; }
svg .band { fill: var(--band); stroke: none; }
svg line.mark { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 4 3; }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: .3rem 0 0; padding: 0;
  list-style: none; font-size: .85rem; color: var(--soft); }
.legend b { color: var(--ink); font-weight: 600; font-variant-numeric: tabular-nums; }
.legend li { min-width: 0; overflow-wrap: anywhere; }
.legend i { display: inline-block; width: .9rem; height: .2rem; margin-right: .35rem;
  vertical-align: middle; background: var(--soft); }
"""
