//! Draws a case as SVG inside a page: the latency curve, and bars.
//!
//! Owns scales, ticks and the order of colours. Lengths across the page are in percent and text is
//! in pixels: so a plot fits a phone, and its letters stay as large as elsewhere. Knows the names
//! of the style's classes, which `html.rs` defines.

use super::markup::escape;
use crate::reading::Quantity;
use crate::run::{CaseRun, Row};
use crate::statistics::{self, Spread};

/// How many rows differ by colour. The next rows have the same colours, and dashes.
const COLOURS: usize = 8;
/// The height of the latency plot in pixels, without the labels below it.
const HEIGHT: f64 = 300.0;
/// The width and the height of the curves' own coordinates.
const UNITS: f64 = 1000.0;
/// If there are more labels below the plot, a narrow page leaves out every other one.
const LABELS_MAX: usize = 5;

/// The classes that give a row its colour and its dashes. `at` is the row's number, from 0.
pub fn colour(at: usize) -> String {
    let dashed = if (at / COLOURS).is_multiple_of(2) { "" } else { " dash" };
    format!("c{}{dashed}", at % COLOURS)
}

/// Both axes of the latency plot, as common logarithms of `1/(1-quantile)` and of microseconds.
struct Scale {
    x_max: f64,
    y_min: f64,
    y_max: f64,
}

impl Scale {
    fn new(curves: &[Vec<(f64, f64)>]) -> Option<Self> {
        let points = || curves.iter().flatten();
        let lengths = curves.iter().map(Vec::len);
        let quantiles = points().map(|(quantile, _)| *quantile).filter(|it| *it < 1.0);
        let y_min = points().map(|(_, us)| log(*us)).min_by(f64::total_cmp)?;
        let y_max = points().map(|(_, us)| log(*us)).max_by(f64::total_cmp)?;
        let last = quantiles.map(nines).max_by(f64::total_cmp).unwrap_or(0.0);
        // The maximum is drawn a step to the right of the last quantile.
        let x_max = if lengths.max() > Some(1) { last + STEP } else { 1.0 };
        Some(Scale { x_max: x_max.max(1.0), y_min: below(y_min), y_max: above(y_max) })
    }

    /// The part of the width, from the left.
    fn x(&self, nines: f64) -> f64 {
        nines / self.x_max
    }

    /// The part of the height, from the top.
    fn y(&self, log_us: f64) -> f64 {
        (self.y_max - log_us) / (self.y_max - self.y_min)
    }
}

/// The distance between two points of a curve.
const STEP: f64 = 0.1;

fn log(us: f64) -> f64 {
    us.max(0.001).log10()
}

/// 1 for 90 %, 2 for 99 %, and so on.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

/// The ticks in each power of ten.
const FACTORS: [f64; 3] = [1.0, 2.0, 5.0];

/// The next tick below.
fn below(log_us: f64) -> f64 {
    let decade = (log_us + 1e-9).floor();
    let steps = FACTORS.map(|factor| decade + factor.log10());
    steps.into_iter().rfind(|it| *it <= log_us + 1e-9).unwrap_or(decade)
}

/// The next tick above.
fn above(log_us: f64) -> f64 {
    let decade = log_us.floor();
    let steps = FACTORS.map(|factor| decade + factor.log10());
    steps.into_iter().find(|it| *it > log_us + 1e-9).unwrap_or(decade + 1.0)
}

/// A plot of every row's latency by quantile. `None` if no latency was measured.
pub fn latency(case: &CaseRun) -> Option<String> {
    let curves: Vec<_> = case.rows.iter().map(|row| statistics::curve(&row.latency)).collect();
    let scale = Scale::new(&curves)?;
    let name = escape(&case.name);
    let mut svg = format!(
        "<svg class=\"plot\" role=\"img\" width=\"100%\" height=\"{HEIGHT}\">\
         <title>Latency of {name} by quantile, both axes logarithmic</title>\n"
    );
    svg += &x_ticks(&scale);
    svg += &y_ticks(&scale);
    svg += &format!(
        "<svg width=\"100%\" height=\"100%\" viewBox=\"0 0 {UNITS} {UNITS}\" \
         preserveAspectRatio=\"none\">\n"
    );
    // Draw the first row last, so that it lies on top.
    for (at, (row, curve)) in case.rows.iter().zip(&curves).enumerate().rev() {
        svg += &line(&scale, row, at, curve);
    }
    Some(svg + "</svg>\n</svg>\n")
}

fn line(scale: &Scale, row: &Row, at: usize, curve: &[(f64, f64)]) -> String {
    let mut before = -STEP;
    let point = |(quantile, us): &(f64, f64)| {
        let nines = if *quantile < 1.0 { nines(*quantile).max(0.0) } else { before + STEP };
        before = nines;
        format!("{:.1},{:.1}", scale.x(nines) * UNITS, scale.y(log(*us)) * UNITS)
    };
    let points: Vec<String> = curve.iter().map(point).collect();
    if points.is_empty() {
        return String::new();
    }
    let (class, name, points) = (colour(at), escape(&row.name), points.join(" "));
    format!(
        "<polyline class=\"line {class}\" points=\"{points}\"><title>{name}</title></polyline>\n"
    )
}

fn x_ticks(scale: &Scale) -> String {
    let mut ticks = vec![(2_f64.log10(), "50%".to_owned()), (1.0, "90%".to_owned())];
    let nines_max = scale.x_max.floor() as usize;
    ticks.extend((2..=nines_max).map(|count| match count {
        2 => (2.0, "99%".to_owned()),
        _ => (count as f64, format!("99.{}%", "9".repeat(count - 2))),
    }));
    let has_many_ticks = ticks.len() > LABELS_MAX;
    let mut svg = String::new();
    for (at, (nines, label)) in ticks.iter().enumerate() {
        let x = scale.x(*nines) * 100.0;
        // 90 % and 99.9 % stay. On a narrow page the labels between them go.
        let class = if has_many_ticks && at.is_multiple_of(2) { " class=\"wide\"" } else { "" };
        svg += &format!(
            "<line class=\"grid\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"0\" y2=\"100%\"/>\
             <text{class} x=\"{x:.2}%\" y=\"{}\" text-anchor=\"middle\">{label}</text>\n",
            HEIGHT + 18.0
        );
    }
    svg
}

fn y_ticks(scale: &Scale) -> String {
    let decades = scale.y_max - scale.y_min;
    let mut svg = String::new();
    for decade in scale.y_min.floor() as i32..=scale.y_max.ceil() as i32 {
        for factor in FACTORS {
            let log_us = f64::from(decade) + factor.log10();
            let within = scale.y_min - 1e-9..=scale.y_max + 1e-9;
            let is_told = decades < 3.5 || factor == 1.0;
            if !within.contains(&log_us) || !is_told {
                continue;
            }
            let y = scale.y(log_us) * 100.0;
            let label = duration(decade, factor);
            svg += &format!(
                "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y:.2}%\" y2=\"{y:.2}%\"/>\
                 <text x=\"-8\" y=\"{y:.2}%\" dy=\"4\" text-anchor=\"end\">{label}</text>\n"
            );
        }
    }
    svg
}

/// `factor` times ten to the power of `decade` microseconds.
fn duration(decade: i32, factor: f64) -> String {
    let unit = decade.div_euclid(3);
    let value = factor * 10_f64.powi(decade.rem_euclid(3));
    match unit {
        ..=-1 => format!("{value} ns"),
        0 => format!("{value} µs"),
        1 => format!("{value} ms"),
        _ => format!("{} s", value * 1000_f64.powi(unit - 2)),
    }
}

/// A bar for each row that has the quantity, with a mark from the lowest to the highest round. In
/// a bar of CPU time, the kernel's part has a lighter shade. `None` if no row has the quantity.
pub fn bars(case: &CaseRun, quantity: Quantity) -> Option<String> {
    let spreads = case.rows.iter().map(|row| statistics::quantity(row, quantity));
    let rows: Vec<(usize, &Row, Spread)> = case
        .rows
        .iter()
        .zip(spreads)
        .enumerate()
        .filter_map(|(at, (row, spread))| Some((at, row, spread?)))
        .collect();
    let max = rows.iter().map(|(_, _, spread)| spread.max).max_by(f64::total_cmp)?;
    let percent = |value: f64| if max > 0.0 { value / max * 100.0 } else { 0.0 };
    let mut html = String::from("<ul class=\"bars\">\n");
    for (at, row, spread) in rows {
        let name = escape(&row.name);
        let value = quantity.format(spread.median);
        html += &format!(
            "<li><span>{name}</span><b>{value}</b>\
             <svg class=\"{}\" role=\"img\" width=\"100%\" height=\"14\">\
             <title>{name}: {value} {}</title>{}",
            colour(at),
            escape(quantity.title()),
            bar(row, quantity, spread.median, percent)
        );
        if spread.rounds > 1 {
            let (from, to) = (percent(spread.min), percent(spread.max));
            html += &format!(
                "<line class=\"mark\" x1=\"{from:.2}%\" x2=\"{to:.2}%\" y1=\"7\" y2=\"7\"/>\
                 <line class=\"mark\" x1=\"{from:.2}%\" x2=\"{from:.2}%\" y1=\"4\" y2=\"10\"/>\
                 <line class=\"mark\" x1=\"{to:.2}%\" x2=\"{to:.2}%\" y1=\"4\" y2=\"10\"/>"
            );
        }
        html += "</svg></li>\n";
    }
    Some(html + "</ul>\n")
}

fn bar(row: &Row, quantity: Quantity, median: f64, percent: impl Fn(f64) -> f64) -> String {
    let rect = |class: &str, from: f64, value: f64| {
        let (from, width) = (percent(from), percent(value));
        format!("<rect class=\"{class}\" x=\"{from:.2}%\" width=\"{width:.2}%\" height=\"14\"/>")
    };
    let part = |quantity| statistics::quantity(row, quantity).map(|spread| spread.median);
    let user = part(Quantity::CpuUserUsPerReq).filter(|_| quantity == Quantity::CpuUsPerReq);
    match user.zip(part(Quantity::CpuKernelUsPerReq)) {
        // Medians of parts need not add up to the median of the whole.
        Some((user, kernel)) if user + kernel > 0.0 => {
            let user = user / (user + kernel) * median;
            rect("bar", 0.0, user) + &rect("bar light", user, median - user)
        }
        _ => rect("bar", 0.0, median),
    }
}
