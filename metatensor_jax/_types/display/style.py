"""The style sheet of what notebooks show: one for each output, and for it alone.

Text has the colour of the page, and lines and shades are mixed from it, so that it can
be read on any page. Only the pictures have colours, for light pages and for dark ones:
those of the system, unless a notebook says which it has.
"""

from __future__ import annotations

#: the class of the outermost element: all rules are for what is in it
ROOT = "mts-jax"

_STEPS = (25, 50, 75, 100)  # per cent


def _steps(name: str, light: str, dark: str) -> str:
    """Rules for four steps of a colour; the first of each pair for older browsers."""
    return "".join(
        f".{ROOT} .{name}{i}{{stroke:{light};stroke:light-dark({light},{dark});"
        f"opacity:{step / 100:g}}}\n"
        for i, step in enumerate(_STEPS, 1)
    )


STYLE = f"""\
.{ROOT}{{color-scheme:light dark;line-height:1.4;overflow-x:auto}}
@media (prefers-color-scheme:dark){{.{ROOT}{{color-scheme:dark}}}}
[data-jp-theme-light=true] .{ROOT},[data-theme=light] .{ROOT},\
.vscode-light .{ROOT}{{color-scheme:light}}
[data-jp-theme-light=false] .{ROOT},[data-theme=dark] .{ROOT},html[theme=dark] .{ROOT},\
.vscode-dark .{ROOT},.vscode-high-contrast:not(.vscode-high-contrast-light) .{ROOT}\
{{color-scheme:dark}}
.{ROOT} .note{{opacity:.7}}
.{ROOT} .body{{margin:.2em 0 .3em .3em;padding-left:.9em;\
border-left:1px solid rgba(128,128,128,.4)}}
.{ROOT} .axis{{display:flex;align-items:flex-start;gap:.8em;margin:.25em 0}}
.{ROOT} .axis>:first-child{{flex:none;width:6.5em}}
.{ROOT} .axis>:last-child{{min-width:0;overflow-x:auto}}
.{ROOT} summary{{cursor:pointer;display:list-item}}
.{ROOT} .more{{max-height:20em;overflow:auto;width:fit-content}}
.{ROOT}.{ROOT} table{{border-collapse:collapse;margin:0;font-size:.9em;\
width:auto;table-layout:auto;border:none}}
.{ROOT}.{ROOT} tr:nth-child(n){{background:none}}
.{ROOT}.{ROOT} :is(th,td):nth-child(n){{padding:.05em .55em;text-align:right;\
border:none;max-width:none;white-space:nowrap;\
font-variant-numeric:tabular-nums}}
.{ROOT}.{ROOT} th:nth-child(n){{text-align:left;font-weight:600;\
background:rgba(128,128,128,.16)}}
.{ROOT}.{ROOT} td.text:nth-child(n){{text-align:left}}
.{ROOT}.{ROOT} td.pad:nth-child(n){{font-style:italic;opacity:.75;text-align:center;\
background:repeating-linear-gradient(135deg,rgba(128,128,128,.3) 0 1px,\
transparent 1px 5px)}}
.{ROOT} svg{{display:block;border:1px solid rgba(128,128,128,.4)}}
.{ROOT} .z{{stroke:currentColor;opacity:.04}}
.{ROOT} path.pad{{stroke:currentColor;opacity:.22}}
.{ROOT} .odd{{stroke:#c49a00}}
{_steps("n", "#2166ac", "#6fb1ff")}{_steps("p", "#b2182b", "#ff7b66")}"""
