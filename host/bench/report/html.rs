//! Makes a page of a run. The page is one file without scripts, needs no other file, and can be
//! sent around.
//!
//! Owns the page and its style. Every text from outside goes through [`escape`].

use super::clean::command_line;
use super::column::{Column, columns};
use super::comparison::words;
use super::markup::escape;
use super::notes::{LATENCY_NOTE, method, notes};
use super::plot;
use crate::reading::Quantity;
use crate::run::{CaseRun, Run};
use crate::statistics;
use crate::suite::Skipped;

/// The quantities that are drawn as bars.
const BARS: [Quantity; 7] = [
    Quantity::ReqPerS,
    Quantity::CpuUsPerReq,
    Quantity::LoadMaxPerS,
    Quantity::StartMs,
    Quantity::DropMs,
    Quantity::NeverUsedBytes,
    Quantity::UsedOnceBytes,
];

/// The style of the page. Its colours are those of Okabe and Ito, which colour-blind people can
/// tell apart, too. They are darker on a light page and lighter on a dark one.
const STYLE: &str = "
:root{color-scheme:light dark;--page:#fdfdfc;--text:#1d2125;--quiet:#5f6871;--line:#dfe3e6;
--bad:#b3261e;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0578f;--c4:#c98a00;--c5:#3a9bd6;
--c6:#7a6a00;--c7:#555f68}
@media(prefers-color-scheme:dark){:root{--page:#15181b;--text:#e4e7ea;--quiet:#9aa4ad;
--line:#30363c;--bad:#ff897d;--c0:#4ba3e3;--c1:#f08246;--c2:#2fbf95;--c3:#dc92bd;--c4:#e6b13c;
--c5:#8accf2;--c6:#d6cb5a;--c7:#b4bcc4}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2.5rem 1.25rem 3rem}
h1{font-size:1.75rem;line-height:1.25;margin:0 0 .25rem;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:0 0 .15rem}
h3{font-size:.875rem;font-weight:600;margin:0 0 .6rem}
h3::first-letter{text-transform:uppercase}
h1,h2,h3,p,li,dd{overflow-wrap:anywhere}
p{margin:0 0 .5rem}
.quiet,figcaption{color:var(--quiet);font-size:.875rem}
.banner{border:1px solid var(--bad);border-radius:6px;color:var(--bad);padding:.6rem .9rem;
margin:1rem 0}
section{margin-top:2rem;padding-top:1.5rem;border-top:1px solid var(--line)}
nav{margin-top:1rem;display:flex;flex-wrap:wrap;gap:.2rem 1.25rem;font-size:.9375rem}
a{color:var(--c0)}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(20rem,100%),1fr));
gap:1.5rem 3rem;margin-top:1.5rem}
figure{margin:1.75rem 0 0;min-width:0}
.pair figure{margin:0}
svg{display:block;overflow:visible}
svg text{font-size:12px;fill:var(--quiet);font-variant-numeric:tabular-nums}
.frame{padding:.5rem 1.75rem 1.75rem 4rem}
.grid{stroke:var(--line);stroke-width:1}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round;
vector-effect:non-scaling-stroke}
.line.dash{stroke-dasharray:6 4}
.bars{list-style:none;margin:0;padding:0}
.bars li{display:grid;grid-template-columns:1fr auto;gap:.1rem 1rem;margin-bottom:.7rem;
font-size:.875rem;line-height:1.35}
.bars b{font-weight:600;font-variant-numeric:tabular-nums}
.bars svg{grid-column:1/3}
.bar{fill:var(--c)}
.light{opacity:.45}
.mark{stroke:var(--text);stroke-width:1;opacity:.75}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1.25rem;margin:0 0 .5rem;padding:0;
font-size:.875rem}
.legend svg{display:inline-block;margin-right:.45rem;vertical-align:middle}
.scroll{overflow-x:auto;margin-top:1.5rem}
table{border-collapse:collapse;font-size:.8125rem;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.45rem .6rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--line);
white-space:nowrap}
thead th{vertical-align:bottom;font-weight:600;line-height:1.25}
thead small,td small{display:block;font-weight:400;color:var(--quiet);font-size:.6875rem}
th:first-child{text-align:left;padding-left:0;position:sticky;left:0;background:var(--page);
white-space:normal;overflow-wrap:anywhere;min-width:7rem;max-width:16rem}
.bad{color:var(--bad);font-weight:600}
.notes{margin:1rem 0 0;padding-left:1.2rem;font-size:.875rem;color:var(--quiet)}
dl{display:grid;grid-template-columns:minmax(6rem,auto) 1fr;gap:.25rem 1.25rem;margin:0 0 1rem;
font-size:.875rem}
dt{color:var(--quiet)}
dd{margin:0}
pre{background:color-mix(in srgb,var(--text) 6%,transparent);border-radius:6px;margin:.25rem 0 1rem;
padding:.75rem .9rem;font:.8125rem/1.5 ui-monospace,Consolas,monospace;white-space:pre-wrap;
overflow-wrap:anywhere}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}
.c5{--c:var(--c5)}.c6{--c:var(--c6)}.c7{--c:var(--c7)}
@media(max-width:40rem){main{padding-top:1.5rem}.wide{display:none}
.frame{padding-right:1.25rem;padding-left:3.25rem}}
@media print{section{break-inside:avoid}}
";

/// The head of the page. Its policy forbids the browser to load any other file, even an icon.
const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
style-src 'unsafe-inline'\">\n";

/// The text of the page.
pub fn html(run: &Run) -> String {
    let title = escape(&run.title);
    let mut page =
        format!("{HEAD}<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n");
    page += &format!("<main>\n<header>\n<h1>{title}</h1>\n");
    page += &format!("<p class=\"quiet\">{}</p>\n", escape(&run.started_at));
    if run.interrupted {
        page += "<p class=\"banner\">Interrupted: this run was ended before its time. \
                 Here is what there was until then.</p>\n";
    }
    page += "</header>\n";
    if run.cases.len() > 2 {
        page += &contents(&run.cases);
    }
    for (at, case) in run.cases.iter().enumerate() {
        page += &section(at, case);
    }
    page += &about(run);
    page + "</main>\n</body>\n</html>\n"
}

fn contents(cases: &[CaseRun]) -> String {
    let link = |(at, case): (usize, &CaseRun)| {
        format!("<a href=\"#case-{}\">{}</a>\n", at + 1, escape(&case.name))
    };
    format!("<nav>\n{}</nav>\n", cases.iter().enumerate().map(link).collect::<String>())
}

fn section(at: usize, case: &CaseRun) -> String {
    let mut html = format!("<section id=\"case-{}\">\n<h2>{}</h2>\n", at + 1, escape(&case.name));
    if !case.settings.is_empty() {
        html += &format!("<p>{}</p>\n", escape(&case.settings));
    }
    html += &format!("<p class=\"quiet\">{}</p>\n", escape(&method(case)));
    let figures: String = BARS.iter().filter_map(|it| bars(case, *it)).collect();
    if !figures.is_empty() {
        html += &format!("<div class=\"pair\">\n{figures}</div>\n");
    }
    // Two tables, because one would be too wide for a page.
    let (latencies, others): (Vec<Column>, Vec<Column>) =
        columns(case, true).into_iter().partition(|column| column.is_latency);
    html += &table(case, &others);
    if let Some(svg) = plot::latency(case) {
        html += &latency(case, &svg);
    }
    html += &table(case, &latencies);
    let notes = notes(case);
    if !notes.is_empty() {
        let items: String =
            notes.iter().map(|note| format!("<li>{}</li>\n", escape(note))).collect();
        html += &format!("<ul class=\"notes\">\n{items}</ul>\n");
    }
    html + "</section>\n"
}

fn bars(case: &CaseRun, quantity: Quantity) -> Option<String> {
    let bars = plot::bars(case, quantity)?;
    let (words, title) = (words(quantity), quantity.title());
    let unit = title
        .rsplit_once(' ')
        .map_or(String::new(), |(_, unit)| format!(", {}", unit.trim_end_matches("/req")));
    let parts = Quantity::CpuKernelUsPerReq;
    let has_parts = |row| statistics::quantity(row, parts).is_some();
    let shades = quantity == Quantity::CpuUsPerReq && case.rows.iter().any(has_parts);
    let caption = if shades {
        "<figcaption>Full colour: user time. Faint: kernel time.</figcaption>\n"
    } else {
        ""
    };
    Some(format!("<figure>\n<h3>{words}{unit}</h3>\n{bars}{caption}</figure>\n"))
}

fn latency(case: &CaseRun, svg: &str) -> String {
    let mut legend = String::new();
    for (at, row) in case.rows.iter().enumerate().filter(|(_, row)| !row.latency.is_empty()) {
        legend += &format!(
            "<li><svg width=\"22\" height=\"10\" aria-hidden=\"true\">\
             <path class=\"line {}\" d=\"M1 5H21\"/></svg>{}</li>\n",
            plot::colour(at),
            escape(&row.name)
        );
    }
    format!(
        "<figure>\n<h3>Latency by quantile</h3>\n<ul class=\"legend\">\n{legend}</ul>\n\
         <div class=\"frame\">\n{svg}</div>\n\
         <figcaption>{LATENCY_NOTE} All rounds together; a line ends at its maximum.\
         </figcaption>\n</figure>\n"
    )
}

fn table(case: &CaseRun, columns: &[Column]) -> String {
    if columns.is_empty() {
        return String::new();
    }
    let mut html =
        String::from("<div class=\"scroll\">\n<table>\n<thead><tr><th scope=\"col\"></th>");
    for Column { title, .. } in columns {
        let (title, unit) = title.rsplit_once(' ').unwrap_or((title, ""));
        let (title, unit) = (escape(title), escape(unit));
        html += &format!("<th scope=\"col\">{title}<small>{unit}</small></th>");
    }
    html += "</tr></thead>\n<tbody>\n";
    for (at, row) in case.rows.iter().enumerate() {
        html += &format!("<tr><th scope=\"row\">{}</th>", escape(&row.name));
        for column in columns {
            html += &match &column.cells[at] {
                None => "<td></td>".to_owned(),
                Some(cell) => {
                    let class = if cell.is_bad { " class=\"bad\"" } else { "" };
                    let range = cell.range.as_ref();
                    let range = range.map(|(min, max)| format!("<small>{min}..{max}</small>"));
                    let text = escape(&cell.text);
                    format!("<td{class}>{text}{}</td>", range.unwrap_or_default())
                }
            };
        }
        html += "</tr>\n";
    }
    html + "</tbody>\n</table>\n</div>\n"
}

/// The facts that a reader needs to repeat the run.
fn about(run: &Run) -> String {
    let mut html = String::from("<section>\n<h2>How it was measured</h2>\n");
    let command = escape(&command_line(&run.command));
    html += &format!("<pre><code>{command}</code></pre>\n<dl>\n");
    let seed = run.seed.to_string();
    for (title, fact) in &run.about {
        html += &format!("<dt>{}</dt><dd>{}</dd>\n", escape(title), escape(fact));
    }
    html += &format!("<dt>Seed</dt><dd>{seed}</dd>\n</dl>\n");
    let skipped = |Skipped { name, reason }: &Skipped| {
        format!("<li>skipped: {}: {}</li>\n", escape(name), escape(reason))
    };
    if !run.skipped.is_empty() {
        let items: String = run.skipped.iter().map(skipped).collect();
        html += &format!("<ul class=\"notes\">\n{items}</ul>\n");
    }
    html + "</section>\n"
}
