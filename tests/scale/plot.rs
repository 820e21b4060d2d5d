//! The figures as a picture: what is sent beside what must be, and the time to the last machine, both by the size of
//! the room. Colours that stand out on white and on black, no background of its own.

use std::collections::BTreeMap;
use std::fmt::{Error, Write};

use crate::grid::Cell;

const WIDTH: f64 = 820.0;
const HEIGHT: f64 = 400.0;
/// One colour for each loss, in their order.
const COLOURS: [&str; 6] = [
    "#2a9d8f", "#4f83cc", "#e08e0b", "#d1495b", "#8e6bbf", "#888888",
];
const GREY: &str = "#888888";

/// A panel: where it lies, and what its height means.
struct Panel {
    left: f64,
    width: f64,
    low: f64,
    high: f64,
    machines_max: f64,
}

impl Panel {
    const TOP: f64 = 60.0;
    const BOTTOM: f64 = HEIGHT - 60.0;

    fn x(&self, machines: f64) -> f64 {
        self.left + self.width * machines.log10() / self.machines_max.log10().max(1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low);
        Panel::BOTTOM - part * (Panel::BOTTOM - Panel::TOP)
    }

    fn points(&self, values: &[(f64, f64)]) -> String {
        let points = values
            .iter()
            .map(|&(machines, value)| format!("{:.1},{:.1}", self.x(machines), self.y(value)));
        points.collect::<Vec<String>>().join(" ")
    }

    fn axes(&self, out: &mut String, title: &str, step: f64) -> Result<(), Error> {
        text(out, self.left, 24.0, "start", title)?;
        let mut value = self.low;
        while value <= self.high + step / 2.0 {
            let y = self.y(value);
            line(out, (self.left, y), (self.left + self.width, y), 0.25)?;
            text(out, self.left - 6.0, y + 4.0, "end", &format!("{value:.2}"))?;
            value += step;
        }
        let mut machines = 1.0;
        while machines <= self.machines_max {
            let x = self.x(machines);
            line(out, (x, Panel::BOTTOM), (x, Panel::BOTTOM + 5.0), 1.0)?;
            text(
                out,
                x,
                Panel::BOTTOM + 20.0,
                "middle",
                &format!("{machines}"),
            )?;
            machines *= 10.0;
        }
        let middle = self.left + self.width / 2.0;
        text(out, middle, Panel::BOTTOM + 42.0, "middle", "machines")
    }
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), opacity: f64) -> Result<(), Error> {
    writeln!(
        out,
        r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{GREY}" stroke-opacity="{opacity}"/>"#,
        from.0, from.1, to.0, to.1
    )
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) -> Result<(), Error> {
    writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{GREY}">{words}</text>"#
    )
}

/// The picture of `cells`.
pub(crate) fn render(cells: &[Cell]) -> Result<String, Error> {
    let mut by_loss: BTreeMap<u64, Vec<&Cell>> = BTreeMap::new();
    for cell in cells {
        let millionths = (cell.loss * 1e6).round() as u64;
        by_loss.entry(millionths).or_default().push(cell);
    }
    let machines_max = cells.iter().map(|cell| cell.machines).max().unwrap_or(10) as f64;
    let wire_max = cells.iter().map(|cell| cell.wire).fold(1.05, f64::max);
    let last_max = cells.iter().filter_map(|cell| cell.last);
    let last_max = last_max.map(|last| last.as_secs_f64()).fold(0.5, f64::max);
    let wire = Panel {
        left: 56.0,
        width: 330.0,
        low: 1.0,
        high: (wire_max * 20.0).ceil() / 20.0,
        machines_max,
    };
    let time = Panel {
        left: 470.0,
        low: 0.0,
        high: (last_max * 2.0).ceil() / 2.0,
        ..wire
    };
    let mut out = String::new();
    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    )?;
    wire.axes(&mut out, "symbols sent for each source symbol", 0.05)?;
    text(
        &mut out,
        wire.left,
        42.0,
        "start",
        "dashed: the least to be expected",
    )?;
    time.axes(
        &mut out,
        "seconds until the last machine has everything",
        0.5,
    )?;
    for (at, (millionths, cells)) in by_loss.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let of = |value: fn(&Cell) -> Option<f64>| -> Vec<(f64, f64)> {
            let points = cells.iter().map(|cell| (cell.machines as f64, value(cell)));
            points.filter_map(|(x, y)| Some((x, y?))).collect()
        };
        let sent = of(|cell| Some(cell.wire));
        let last = of(|cell| cell.last.map(|last| last.as_secs_f64()));
        let least = wire.points(&of(|cell| Some(cell.least)));
        writeln!(
            out,
            r#"<polyline points="{least}" fill="none" stroke="{colour}" stroke-dasharray="5 4"/>"#
        )?;
        for (panel, values) in [(&wire, &sent), (&time, &last)] {
            let line = panel.points(values);
            writeln!(
                out,
                r#"<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>"#
            )?;
            for &(machines, value) in values {
                let (x, y) = (panel.x(machines), panel.y(value));
                writeln!(
                    out,
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#
                )?;
            }
        }
        if let Some(&(machines, value)) = sent.last() {
            let (x, y) = (wire.x(machines) + 8.0, wire.y(value) + 4.0);
            let percent = *millionths as f64 / 1e4;
            writeln!(
                out,
                r#"<text x="{x:.1}" y="{y:.1}" fill="{colour}">{percent} %</text>"#
            )?;
        }
    }
    writeln!(out, "</svg>")?;
    Ok(out)
}
