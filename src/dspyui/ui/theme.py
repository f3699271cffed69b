"""Every colour, size and font of the pages. No literal of these stands anywhere else."""

from collections.abc import Mapping
from typing import Final

FONT: Final = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "PingFang SC", "Noto Sans CJK SC", "Microsoft YaHei", '
    "sans-serif"
)
MONO: Final = (
    'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Menlo, Consolas, "PingFang SC", '
    '"Noto Sans Mono CJK SC", "Noto Sans CJK SC", "Microsoft YaHei", monospace'
)

# The drawer turns into an overlay below this width, in pixels.
DRAWER_BREAKPOINT: Final = 900
DRAWER_WIDTH: Final = 208

LIGHT: Final[Mapping[str, str]] = {
    "page": "#f6f7f7",
    "surface": "#ffffff",
    "sunken": "#f1f3f3",
    "line": "#e1e5e5",
    "line-strong": "#8a9695",
    "ink": "#182120",
    "ink-soft": "#53605f",
    "accent": "#0f766e",
    "accent-strong": "#0b5f58",
    "accent-soft": "#e2f1ef",
    "on-accent": "#ffffff",
    "good": "#1c6f3c",
    "good-soft": "#e4f3e8",
    "warn": "#8a5300",
    "warn-soft": "#fdf1dc",
    "bad": "#b3261e",
    "bad-soft": "#fbe9e7",
    "shadow": "0 1px 2px rgb(20 30 30 / 6%)",
}
DARK: Final[Mapping[str, str]] = {
    "page": "#111515",
    "surface": "#191f1f",
    "sunken": "#141919",
    "line": "#2b3333",
    "line-strong": "#738180",
    "ink": "#e6ebea",
    "ink-soft": "#a0adab",
    "accent": "#4cc3b5",
    "accent-strong": "#79d8cc",
    "accent-soft": "#16302d",
    "on-accent": "#06211e",
    "good": "#74d191",
    "good-soft": "#16301e",
    "warn": "#e8b25a",
    "warn-soft": "#33270f",
    "bad": "#ff938a",
    "bad-soft": "#3a1c1a",
    "shadow": "none",
}

# Charts are drawn as SVG, which knows the variables.
CHART_BASELINE: Final = "var(--ink-soft)"
CHART_OPTIMISED: Final = "var(--accent)"
CHART_TRIAL: Final = "var(--warn)"
CHART_INK: Final = "var(--ink-soft)"
CHART_LINE: Final = "var(--line)"
CHART_FONT_SIZE: Final = 12

# For Quasar, which mixes tints of its own from its brand colours.
BRAND: Final[Mapping[str, str]] = {
    "primary": "#0f766e",
    "secondary": "#53605f",
    "accent": "#0f766e",
    "dark": DARK["surface"],
    "dark_page": DARK["page"],
    "positive": "#1c6f3c",
    "negative": "#b3261e",
    "info": "#53605f",
    "warning": "#8a5300",
}

FAVICON: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" '
    'fill="#0f766e"/><path d="M8 22 L14 15 L18 18 L24 10" fill="none" stroke="#fff" stroke-width="3" '
    'stroke-linecap="round" stroke-linejoin="round"/></svg>'
)


def _variables(tokens: Mapping[str, str]) -> str:
    return "".join(f"--{name}: {value};" for name, value in tokens.items())


def first_paint(*, dark: bool | None, words: str) -> str:
    """CSS for the time before the page is drawn: nothing flashes, and its rough shape is there at once, with `words`
    in it. None follows the system."""
    shape = (
        f"{_UNDRAWN}::before, {_UNDRAWN}::after {{ position: fixed; left: 0; right: 0; }}"
        f"{_UNDRAWN}::before {{ content: ''; top: 0; height: 52px; }}"
        f"{_UNDRAWN}::after {{ content: '{words}'; top: 84px; margin: 0 auto; width: min(1192px, 100% - 24px);"
        f" box-sizing: border-box; padding: 56px 16px; border-radius: 8px; text-align: center; font: 14px {FONT}; }}"
    )
    light, night = (_first_colours(tokens) for tokens in (LIGHT, DARK))
    if dark is None:
        return f"{shape} {light} @media (prefers-color-scheme: dark) {{ {night} }}"
    return f"{shape} {night if dark else light}"


# NiceGUI fills this element once its scripts run.
_UNDRAWN = "body:has(> #app:empty)"


def _first_colours(tokens: Mapping[str, str]) -> str:
    surface, line = tokens["surface"], tokens["line"]
    return (
        f"html {{ background: {tokens['page']}; }}"
        f"{_UNDRAWN}::before {{ background: {surface}; border-bottom: 1px solid {line}; }}"
        f"{_UNDRAWN}::after {{ background: {surface}; border: 1px solid {line}; color: {tokens['ink-soft']}; }}"
    )


_SIZES = (
    "--s4: 4px; --s8: 8px; --s16: 16px; --s24: 24px; --radius: 8px;"
    "--t12: 12px; --t14: 14px; --t16: 16px; --t20: 20px; --t28: 28px;"
    f"--font: {FONT}; --mono: {MONO};"
)

CSS: Final = (
    f":root {{ {_SIZES} {_variables(LIGHT)} }}\n"
    # Quasar's own are written into the element, where only this outranks them.
    f"body.body--dark {{ {_variables(DARK)} --q-primary: {DARK['accent']} !important;"
    f" --q-negative: {DARK['bad']} !important; }}\n"
    + """
body { font-family: var(--font); font-size: var(--t14); line-height: 1.5; color: var(--ink);
  background: var(--page); -webkit-font-smoothing: antialiased; }
body.body--dark, body.body--light { background: var(--page); }
.nicegui-content { padding: 0; gap: 0; display: block; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
/* Quasar takes the outline from these for good. */
.q-focusable:focus-visible, .q-btn:focus-visible, .q-toggle:focus-visible, .q-radio:focus-visible,
.q-checkbox:focus-visible, .q-tab:focus-visible, .q-item:focus-visible {
  box-shadow: 0 0 0 2px var(--surface), 0 0 0 4px var(--accent) !important; border-radius: var(--radius); }
h1, h2, h3, p { margin: 0; }

/* Frame */
.d-header { background: var(--surface); color: var(--ink); border-bottom: 1px solid var(--line);
  flex-direction: row; align-items: center; gap: var(--s8); padding: 0 var(--s16); min-height: 52px;
  flex-wrap: nowrap; box-shadow: none; }
.d-brand { display: flex; align-items: center; gap: var(--s8); font-weight: 650; font-size: var(--t16);
  color: var(--ink); }
.d-brand:hover { text-decoration: none; }
.d-brand svg { width: 24px; height: 24px; display: block; }
.d-drawer { background: var(--surface); border-right: 1px solid var(--line); padding: var(--s16) var(--s8);
  gap: 2px; }
.d-nav { display: flex; align-items: center; gap: 10px; width: 100%; padding: 8px 12px;
  border-radius: var(--radius); color: var(--ink-soft); font-weight: 500; }
.d-nav:hover { background: var(--sunken); text-decoration: none; color: var(--ink); }
.d-nav[aria-current] { background: var(--accent-soft); color: var(--accent-strong); }
.d-nav .q-icon { font-size: var(--t20); }
.d-page { max-width: 1240px; margin: 0 auto; padding: var(--s24) var(--s24) 64px; display: flex;
  flex-direction: column; gap: var(--s16); width: 100%; }
.d-title { display: flex; align-items: flex-start; gap: var(--s16); justify-content: space-between; }
.d-title > div { min-width: min(320px, 100%); }
.d-title > div:first-child { flex: 1 1 320px; }
.d-title > .d-actions { min-width: 0; flex: 0 1 auto; }
.d-title h1 { font-size: var(--t28); line-height: 1.25; font-weight: 650; letter-spacing: -0.01em;
  overflow-wrap: anywhere; }
.d-lead { color: var(--ink-soft); max-width: 72ch; margin-top: var(--s4); }
.d-actions { display: flex; gap: var(--s8); align-items: center; flex-wrap: wrap; justify-content: flex-end;
  flex: none; max-width: 100%; }
/* A note below buttons, as wide as they are and not making them any wider. */
.d-under { width: 0; min-width: 100%; text-align: right; }
.d-banner { background: var(--warn-soft); color: var(--ink); border-bottom: 1px solid var(--line);
  padding: var(--s8) var(--s24); display: flex; gap: var(--s16); align-items: center; flex-wrap: wrap; }
.d-banner p { flex: 1 1 320px; overflow-wrap: anywhere; }
.d-grow { flex: 1 1 auto; min-width: 0; }
.d-skip { position: absolute; left: -9999px; }
.d-skip:focus { left: var(--s8); top: var(--s8); z-index: 9999; background: var(--surface); padding: var(--s8);
  border-radius: var(--radius); }

/* Cards */
.d-card { background: var(--surface); border: 1px solid var(--line); border-radius: var(--radius);
  box-shadow: var(--shadow); padding: var(--s16); display: flex; flex-direction: column; gap: 12px;
  width: 100%; min-width: 0; }
.d-card-head { display: flex; gap: var(--s16); justify-content: space-between; align-items: center; flex-wrap: wrap; }
.d-card-head > .d-grow { flex: 1 1 200px; }
.d-card h2, .d-h2 { font-size: var(--t16); font-weight: 600; line-height: 1.4; }
.d-card h3, .d-h3 { font-size: var(--t14); font-weight: 600; line-height: 1.4; }
.d-note { color: var(--ink-soft); font-size: var(--t12); overflow-wrap: anywhere; }
.d-soft { color: var(--ink-soft); }
.d-row { display: flex; gap: var(--s8); align-items: center; flex-wrap: wrap; }
/* In a row that breaks, these stay on one line as long as it is wide enough. */
.d-together { max-width: 100%; }
.d-topics { display: flex; gap: var(--s8) var(--s24); flex-wrap: wrap; }
.d-stack { display: flex; flex-direction: column; gap: var(--s8); min-width: 0; width: 100%; }
.d-stack-16 { display: flex; flex-direction: column; gap: var(--s16); min-width: 0; width: 100%; }
.d-cols { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: var(--s16); width: 100%; }
.d-top { align-items: start; }
.d-grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 12px var(--s16);
  width: 100%; align-items: start; }
.d-grid.d-roomy { grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }
/* Answers side by side, as many as there is room for. */
.d-answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(260px, 100%), 1fr)); gap: var(--s16);
  width: 100%; align-items: start; }
.d-answers .d-facts { grid-template-columns: minmax(0, 1fr); gap: 2px; }
.d-wrong { color: var(--bad); font-size: var(--t12); }
.d-weights { display: grid; grid-template-columns: fit-content(60%) 120px; gap: var(--s8) var(--s16);
  align-items: center; width: 100%; overflow-wrap: anywhere; }
/* A switch that stands alone has room for its words. */
.d-grid > .d-field:only-child:has(.q-toggle) { grid-column: 1 / -1; }
.d-form { display: grid; grid-template-columns: minmax(0, 1fr) 300px; gap: var(--s16); align-items: start;
  width: 100%; }
.d-rail { position: sticky; top: 68px; }
.d-rail .d-facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
.d-rail .d-facts .k { font-size: var(--t12); }
.d-rail .d-facts .v { margin-bottom: var(--s8); }
.d-break { overflow-wrap: anywhere; }
/* A name on one line; of a very long one the beginning. */
.d-name { display: block; max-width: 28ch; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }

/* Chips */
.d-chip { display: inline-flex; align-items: center; gap: 6px; padding: 2px 10px; border-radius: 999px;
  font-size: var(--t12); font-weight: 500; line-height: 20px; background: var(--sunken); color: var(--ink-soft);
  border: 1px solid transparent; white-space: nowrap; max-width: 100%; }
.d-chip .q-icon { font-size: var(--t14); }
.d-chip span { overflow: hidden; text-overflow: ellipsis; }
.d-chip.good { background: var(--good-soft); color: var(--good); }
.d-chip.warn { background: var(--warn-soft); color: var(--warn); }
.d-chip.bad { background: var(--bad-soft); color: var(--bad); }
.d-chip.accent { background: var(--accent-soft); color: var(--accent-strong); }
a.d-chip:hover { border-color: currentcolor; text-decoration: none; }

/* Controls */
.q-btn.d-btn { border-radius: var(--radius); font-size: var(--t14); font-weight: 550; padding: 6px 14px;
  min-height: 36px; line-height: 1.4; letter-spacing: 0; }
.q-btn.d-btn .q-icon { font-size: 18px; }
.q-btn.d-btn .on-left { margin-right: 6px; }
.q-btn.d-primary { background: var(--accent) !important; color: var(--on-accent) !important; }
.q-btn.d-plain { background: var(--surface) !important; color: var(--ink) !important;
  border: 1px solid var(--line-strong); }
.q-btn.d-plain[aria-current] { color: var(--accent) !important; border-color: var(--accent); }
.q-btn.d-danger { background: var(--surface) !important; color: var(--bad) !important;
  border: 1px solid var(--bad); }
.q-btn.d-quiet { background: transparent !important; color: var(--ink-soft) !important; padding: 6px 8px; }
.q-btn.d-quiet:hover { color: var(--ink) !important; }
.d-label { font-size: var(--t12); font-weight: 550; color: var(--ink-soft); display: block; margin-bottom: var(--s4); }
.d-field { min-width: 0; width: 100%; }
.d-field .q-field { font-size: var(--t14); }
.q-field--outlined .q-field__control { border-radius: var(--radius); background: var(--surface); }
.q-field--outlined .q-field__control:before { border-color: var(--line-strong); }
.q-field__native, .q-field__input { color: var(--ink) !important; line-height: 1.5; }
.q-field--dense .q-field__bottom { padding: 4px 2px 0; font-size: var(--t12); line-height: 1.4; min-height: 0; }
.q-field__messages { line-height: 1.4; }
.q-field__native::placeholder, .q-field__input::placeholder { color: var(--ink-soft); opacity: 1; }
.q-item__label--caption { color: var(--ink-soft); }
/* What an empty choice means stands in it, not above the value that was chosen. */
.d-unset.q-field--float .q-field__label { display: none; }
.d-unset .q-field__control-container { padding-top: 0 !important; }
.d-unset .q-field__native { padding-top: 0 !important; padding-bottom: 0 !important; }
.q-toggle { margin-left: -8px; }
.q-field--with-bottom { padding-bottom: 0; }
.q-field--with-bottom .q-field__bottom { position: static; transform: none; }
.q-field--disabled .q-field__control > div { opacity: 1 !important; }
.q-field--outlined.q-field--disabled .q-field__control { background: var(--sunken); }
.q-toggle__label, .q-checkbox__label, .q-radio__label { font-size: var(--t14); color: var(--ink); }
.q-tab { text-transform: none; min-height: 36px; padding: 0 12px; border-radius: var(--radius);
  color: var(--ink-soft); }
.q-tab--active { color: var(--accent); }
.q-tab__label { font-size: var(--t14); }
.q-tab-panel, .q-panel > div { padding: 0; }
.nicegui-tab-panel { padding: var(--s4) 0 0 !important; gap: 12px; align-items: stretch; }
.q-tab-panels { background: transparent; }
.d-menu-note { padding: var(--s8) var(--s16) var(--s16); max-width: 40ch; }
.q-menu { background: var(--surface); color: var(--ink); border: 1px solid var(--line);
  border-radius: var(--radius); }
.q-expansion-item .q-item { padding: 6px 0; min-height: 36px; border-radius: var(--radius); font-weight: 500; }
.nicegui-expansion-content { padding: var(--s8) 0 0 !important; gap: 12px; align-items: stretch !important; }
.q-dialog .d-card { width: 480px; max-width: calc(100vw - 32px); padding: var(--s24); gap: var(--s16); }
/* A button's tooltip would lie over the menu that the button has just opened. */
body:has(.q-menu) .q-tooltip { display: none; }
/* Quasar gives these the accent, which cannot be read on red or green. */
.q-notification__actions { color: inherit; }
.q-notification__actions .q-btn { font-weight: 650; text-transform: none; }
.q-notification { border-radius: var(--radius); font-size: var(--t14); }
.q-uploader { width: 100%; background: transparent; border: 1px dashed var(--line-strong); border-radius: var(--radius);
  box-shadow: none; }
.q-uploader__header { background: transparent !important; color: var(--ink) !important; border-radius: var(--radius); }
.q-uploader__list, .q-uploader__subtitle { display: none; }
.q-uploader__title { font-size: var(--t14); font-weight: 500; }
.d-fieldrow { display: grid; gap: var(--s8); align-items: start;
  grid-template-columns: minmax(120px, 1.2fr) 132px minmax(0, 2fr) auto; }
.d-fieldrow .d-choices { grid-column: 2 / 4; }
.d-problem { background: var(--bad-soft); border: 1px solid transparent; border-left: 3px solid var(--bad);
  border-radius: var(--radius); padding: 10px 14px; color: var(--ink); display: flex; flex-direction: column;
  gap: var(--s8); overflow-wrap: anywhere; width: 100%; }
.d-hint { background: var(--accent-soft); border-radius: var(--radius); padding: 10px 14px; color: var(--ink);
  overflow-wrap: anywhere; width: 100%; }
.d-warning { background: var(--warn-soft); border-radius: var(--radius); padding: 10px 14px; color: var(--ink);
  overflow-wrap: anywhere; width: 100%; }
.d-prose { overflow-wrap: anywhere; line-height: 1.6; max-width: 960px; }
.d-prose h1 { font-size: var(--t20); line-height: 1.3; margin: 0 0 var(--s16); }
.d-prose h2 { font-size: var(--t16); line-height: 1.3; margin: var(--s24) 0 var(--s8); }
.d-prose table { border-collapse: collapse; display: block; overflow-x: auto; margin: var(--s8) 0 var(--s16); }
.d-prose th, .d-prose td { border-bottom: 1px solid var(--line); padding: var(--s4) var(--s8); text-align: left;
  vertical-align: top; overflow-wrap: normal; }
.d-prose p, .d-prose ul, .d-prose ol { margin: 0 0 var(--s8); }
.d-prose pre { overflow-x: auto; }
a[aria-current=page] { font-weight: 650; }
.d-empty { display: flex; flex-direction: column; align-items: center; text-align: center; gap: 12px;
  padding: 56px var(--s16); color: var(--ink-soft); }
.d-empty > .q-icon { font-size: var(--t28); color: var(--line-strong); }
.d-empty h2 { color: var(--ink); }

/* Figures */
.d-figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(120px, 1fr)); gap: var(--s16); width: 100%; }
.d-figure { display: flex; flex-direction: column; min-width: 0; }
.d-figure dt, .d-figure .k { color: var(--ink-soft); font-size: var(--t12); }
.d-dot { display: inline-block; width: var(--s8); height: var(--s8); border-radius: 999px; margin-right: 6px; }
.d-figure .v { font-size: var(--t20); font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.4; }
.d-figure.big .v { font-size: var(--t28); }
.d-figure .w { font-size: var(--t12); color: var(--ink-soft); }
.d-figure.good .v, .d-figure.good .w { color: var(--good); }
.d-figure.bad .v, .d-figure.bad .w { color: var(--bad); }
.d-num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.d-facts { display: grid; grid-template-columns: minmax(120px, max-content) minmax(0, 1fr); gap: 6px var(--s16);
  width: 100%; }
.d-facts .d-span { grid-column: 1 / -1; }
.d-facts .k { color: var(--ink-soft); }
.d-facts .v { overflow-wrap: anywhere; min-width: 0; }

/* Tables */
.d-table-box { width: 100%; overflow-x: auto; }
/* What goes on beyond an edge casts a shadow there: the covers scroll along, the shadows stay. */
.d-table-box, .d-prose table { background:
    linear-gradient(to right, var(--surface) 50%, transparent) left / 32px 100% no-repeat local,
    linear-gradient(to left, var(--surface) 50%, transparent) right / 32px 100% no-repeat local,
    linear-gradient(to right, var(--line), transparent) left / 16px 100% no-repeat scroll,
    linear-gradient(to left, var(--line), transparent) right / 16px 100% no-repeat scroll; }
.d-table { width: 100%; border-collapse: collapse; font-size: var(--t14); }
.d-table th { text-align: left; font-weight: 550; font-size: var(--t12); color: var(--ink-soft);
  padding: var(--s8) 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
.d-table td { padding: 10px; border-bottom: 1px solid var(--line); vertical-align: top; }
.d-table tbody tr:hover { background: var(--sunken); }
.d-table tbody tr:last-child td { border-bottom: none; }
.d-table th.d-num { text-align: right; }
.d-cell { max-width: 36ch; }
.d-table td.d-whole { overflow-wrap: normal; }
/* Under a figure, words may go on in the next line. */
.d-table td.d-num .d-note { white-space: normal; overflow-wrap: normal; }
/* A name with a box to choose it by. */
.d-row.d-pick { min-width: 20ch; flex-wrap: nowrap; align-items: flex-start; }
/* A button is higher than a line of text. */
.d-table td.d-last { padding-top: var(--s4); padding-bottom: var(--s4); text-align: right; width: 1px;
  white-space: nowrap; }
.d-table td.d-last .q-btn__content { flex-wrap: nowrap; }
.d-table td.d-edit + td.d-last { padding-top: 6px; }
.d-table td.d-edit { padding: var(--s4); min-width: 180px; }
.d-fold { display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden;
  overflow-wrap: anywhere; white-space: pre-wrap; cursor: pointer; }
.d-fold.open { display: block; }

/* Steps */
.d-steps { list-style: none; margin: 0; padding: 0; display: flex; flex-direction: column; gap: 6px; }
.d-steps li { display: flex; gap: var(--s8); align-items: center; color: var(--ink-soft); }
.d-steps li .q-icon { font-size: 18px; }
.d-steps li.done .q-icon { color: var(--good); }
.d-steps li.now { color: var(--ink); font-weight: 600; }
.d-steps li.now .q-icon { color: var(--accent); }
.d-steps li.now.failed .q-icon { color: var(--bad); }
.d-steps li.now.cancelled .q-icon { color: var(--warn); }
.d-live { display: grid; grid-template-columns: 300px minmax(0, 1fr); gap: var(--s16); width: 100%;
  align-items: start; }
.d-charts { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 1fr); gap: var(--s16); }
.d-chart { height: 260px; width: 100%; }
.nicegui-log.d-log { font-family: var(--mono); font-size: var(--t12); background: var(--sunken); color: var(--ink);
  border: 1px solid var(--line); border-radius: var(--radius); padding: var(--s8) 12px; height: 200px;
  white-space: pre-wrap; }
.d-log * { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; max-width: 100%; }
.d-log .bad { color: var(--bad); }
.d-log .warn { color: var(--warn); }

/* Data */
.d-splitbar { display: flex; gap: 2px; width: 100%; height: var(--s8); border-radius: 999px; overflow: hidden;
  background: var(--sunken); }
.d-splitbar .d-part { min-width: 2px; }
:is(.d-part, .d-dot).train { background: var(--accent); }
:is(.d-part, .d-dot).validation { background: var(--warn); }
:is(.d-part, .d-dot).test { background: var(--ink-soft); }

/* Prompts and code */
.d-message { border: 1px solid var(--line); border-radius: var(--radius); background: var(--sunken);
  padding: var(--s8) 12px; display: flex; flex-direction: column; gap: var(--s4); width: 100%; }
.d-message .who { font-size: var(--t12); font-weight: 600; color: var(--ink-soft); }
.d-message .said, .d-code { font-family: var(--mono); font-size: var(--t12); white-space: pre-wrap;
  overflow-wrap: anywhere; line-height: 1.6; }
.d-prompt { display: flex; flex-direction: column; gap: var(--s8); max-height: 560px; overflow-y: auto; width: 100%; }
.d-diff { font-family: var(--mono); font-size: var(--t12); line-height: 1.6; max-height: 560px; overflow-y: auto;
  width: 100%; border: 1px solid var(--line); border-radius: var(--radius); background: var(--sunken); }
.d-diff-line { display: flex; gap: var(--s8); padding: 0 var(--s8); }
.d-diff-line .sign { flex: none; width: 1ch; user-select: none; }
.d-diff-line .said { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; }
.d-diff-line.added { background: var(--good-soft); color: var(--good); }
.d-diff-line.removed { background: var(--bad-soft); color: var(--bad); }
.d-diff-line.folded { color: var(--ink-soft); }
.d-code { background: var(--sunken); border: 1px solid var(--line); border-radius: var(--radius);
  padding: 10px 14px; width: 100%; margin: 0; max-height: 360px; overflow: auto; }
.d-code.d-program { white-space: pre; overflow-wrap: normal; background:
    linear-gradient(to right, var(--sunken) 50%, transparent) left / 32px 100% no-repeat local,
    linear-gradient(to left, var(--sunken) 50%, transparent) right / 32px 100% no-repeat local,
    linear-gradient(to right, var(--line), transparent) left / 16px 100% no-repeat scroll,
    linear-gradient(to left, var(--line), transparent) right / 16px 100% no-repeat scroll, var(--sunken); }
/* A box that scrolls fades out where it goes on; at its end this stands below everything. */
.d-code::after, .d-diff::after, .d-prompt::after, .d-log .q-scrollarea__content::before { content: ""; display: block;
  flex: none; position: sticky; left: 0; height: var(--s24); pointer-events: none; }
.d-code::after, .d-diff::after { bottom: 0; background: linear-gradient(transparent, var(--sunken)); }
.d-code::after { bottom: -10px; margin-bottom: -10px; }
.d-prompt::after { bottom: 0; background: linear-gradient(transparent, var(--surface)); }
.d-log .q-scrollarea__content::before { top: 0; margin-top: calc(-1 * var(--s8));
  background: linear-gradient(var(--sunken), transparent); }

.q-linear-progress { color: var(--accent); border-radius: 999px; height: 6px; }
.q-skeleton { border-radius: var(--radius); }
.d-wide { display: inline; }

@media (max-width: 1080px) {
  .d-form { grid-template-columns: minmax(0, 1fr); }
  .d-rail { position: static; }
  .d-live { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 700px) {
  .d-page { padding: var(--s16) 12px 48px; }
  .d-header { padding: 0 var(--s8); gap: 2px; }
  .d-title { flex-direction: column; gap: 12px; }
  .d-title > div:first-child { flex: none; }
  .d-title h1 { font-size: var(--t20); }
  .d-actions { justify-content: flex-start; }
  .d-under { text-align: left; }
  .d-title .d-actions .d-primary { order: -1; }
  .d-prose th, .d-prose td { min-width: 11em; overflow-wrap: anywhere; }
  .d-cols, .d-charts { grid-template-columns: minmax(0, 1fr); }
  .d-banner { padding: var(--s8) 12px; }
  .d-wide { display: none; }
  .d-filters > .q-input { flex: 1 1 140px; }
  .d-facts { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .d-facts .v { margin-bottom: var(--s8); }
  .d-fieldrow { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); padding-bottom: 12px;
    border-bottom: 1px solid var(--line); }
  .d-fieldrow .d-choices, .d-fieldrow .d-desc { grid-column: 1 / -1; }
  .d-fieldrow .d-tools { grid-column: 1 / -1; }
  /* A long table scrolls in itself, and leaves the page a length that a thumb can travel. */
  .d-table-box.d-long { max-height: 65vh; overflow-y: auto; }
  .d-table-box.d-long::after { content: ""; display: block; position: sticky; left: 0; bottom: 0; height: var(--s24);
    pointer-events: none; background: linear-gradient(transparent, var(--surface)); }
  .d-prompt { max-height: 320px; }
  .d-chart { height: 200px; }
  .d-table.stacks thead { display: none; }
  .d-table.stacks tr, .d-table.stacks td { display: block; width: 100%; }
  .d-table.stacks tr { border-bottom: 1px solid var(--line); padding: var(--s8) 0; }
  .d-table.stacks td { border: none; padding: var(--s4) 0; max-width: none; text-align: left; }
  .d-table.stacks tr { position: relative; }
  .d-table.stacks td.d-last { position: absolute; top: 4px; right: 0; width: auto; padding: 0; }
  /* In a list, two short facts stand beside each other below the name. */
  .d-table.pairs tr { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); column-gap: var(--s16); }
  .d-table.pairs td:first-child { grid-column: 1 / -1; padding-right: 40px; }
  .d-table.stacks td[data-label]:before { content: attr(data-label); display: block; font-size: var(--t12);
    color: var(--ink-soft); }
}
@media (prefers-reduced-motion: reduce) { * { animation-duration: 0.01ms !important; transition: none !important; } }
"""
)
